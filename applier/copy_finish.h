/*
 * applier/copy_finish.h
 *     Ends the copying of one table while the rows of the next one flow.
 */
#ifndef PGTRICKLE_APPLIER_COPY_FINISH_H
#define PGTRICKLE_APPLIER_COPY_FINISH_H

#include "copy.h"

/* Of one copy, whose strings have to stay until it is taken. */
typedef struct CopyFinish
{
	Copy   copy;
	Micros took; /* from the beginning of the copying */
	bool   is_done;
	Error  failure;
} CopyFinish;

/*
 * All rows are there: has the server told, by connections and a thread of their own.  `snapshot` is that of a table without a key.  Waits
 * for the one before.
 */
extern void copy_finish_start(CopyRemote *work, const Copy *copy, const char *snapshot,
							  Micros started_at);

/* One that has ended, in the order of their beginnings; waits for it.  False: there is none. */
extern bool copy_finish_take(CopyRemote *work, CopyFinish *finish);

#endif /* PGTRICKLE_APPLIER_COPY_FINISH_H */
