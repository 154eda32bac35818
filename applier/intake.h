/*
 * applier/intake.h
 *     From the records of the stream to the change buffer, the settle list and the requests.
 *
 * Every record of the stream passes through here once, in order.  Row records are only appended; at
 * a commit the transaction is routed: put on the pending list of every stream table that it belongs
 * to.  What this leaves behind is read by the schedule and by the tick; nothing is called back.
 */
#ifndef PGTRICKLE_APPLIER_INTAKE_H
#define PGTRICKLE_APPLIER_INTAKE_H

#include "buffer.h"
#include "catalog.h"
#include "schedule.h"
#include "settle.h"

/* A received transaction that changed the catalog; the loaded one does not have it yet. */
typedef struct CatalogChange
{
	Xid xid;
	Lsn commit_lsn;
} CatalogChange;

typedef struct Intake
{
	Buffer	 *buffer;
	Settle	 *settle;
	Schedule *schedule;
	Catalog	 *catalog; /* NULL until the first one is loaded */

	/*
	 * The stream position: everything that commits before it has been received.  The largest end of
	 * a received commit, message or keepalive.
	 */
	Lsn stream_lsn;

	CatalogChange *catalog_changes; /* in commit order */
	size_t		   catalog_change_count;
	size_t		   catalog_change_capacity;
	uint64_t	   ddl_count; /* moves when names of sources may have changed */

	/*
	 * The relations whose rows the plugin was told to send.  When it leaves out one that somebody
	 * reads, because nobody told it, the stream has to be started again.
	 */
	Oid	  *carried;
	size_t carried_count;
	size_t carried_capacity;
	bool   stream_lacks_relations;
} Intake;

extern Intake *intake_create(Buffer *buffer, Settle *settle, Schedule *schedule);
extern void	   intake_free(Intake *intake);

/*
 * One message of the stream.  `server_time` is when the server sent it, in its clock (PostgreSQL's
 * epoch).
 */
extern bool intake_batch(Intake *intake, const void *data, size_t length, int64_t server_time,
						 Error *error) MUST_CHECK;

/* These relations are on the interest list that the stream was started with. */
extern void intake_note_carried(Intake *intake, const Oid *relids, size_t count);

extern void intake_keepalive(Intake *intake, Lsn wal_end);

/*
 * Starts to use a catalog, whose pending lists are filled from the buffer.  The previous one (NULL:
 * there was none) must have given its lists back (pending_free).
 */
extern void intake_use_catalog(Intake *intake, Catalog *catalog, const Catalog *old);

/* Every received change of the catalog that the snapshot sees has been loaded. */
extern bool intake_catalog_is_current(const Intake *intake, const Snapshot *snapshot);

/* A snapshot of ours whose insert position the stream has reached: settles what it sees. */
extern void intake_see_snapshot(Intake *intake, const Snapshot *snapshot);

/*
 * After a full refresh of the stream table with its present frontier: which transactions did it
 * still miss?
 */
extern void intake_check_missed(Intake *intake, StreamTable *table);

/* The buffer has no room left: gives up the rows of slow stream tables, to be refreshed in full. */
extern void intake_relieve_pressure(Intake *intake);

#endif /* PGTRICKLE_APPLIER_INTAKE_H */
