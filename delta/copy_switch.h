/*
 * delta/copy_switch.h
 *     Puts what has been copied in place.
 */
#ifndef PGTRICKLE_COPY_SWITCH_H
#define PGTRICKLE_COPY_SWITCH_H

#include "postgres.h"

#include "copy_definition.h"
#include "rowset.h"

typedef struct CopySwitched
{
	bool		is_done;		/* false: a later tick has to */
	ApplyCounts counts;
	Rowset	   *net;			/* what changed in a copy that had rows before; NULL: nothing, or it had none */
} CopySwitched;

/*
 * Catches the load table up by the spool, makes the copy's rows its rows, and drops it.  A tick's, whose position is not below copied_lsn.  A
 * first copy may need several: from the first one on, which has caught up, the load table follows the stream.
 * Needs an SPI connection and the rights on the extension's catalog.  `net` and everything else is allocated in `context`.
 */
extern CopySwitched copy_switch(CopyDefinition *definition, bool hidden, MemoryContext context, CopyDefinition **current);

#endif							/* PGTRICKLE_COPY_SWITCH_H */
