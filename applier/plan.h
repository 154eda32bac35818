/*
 * applier/plan.h
 *     What a tick is going to do, once its snapshot is known and the stream has reached it.
 *
 * Decides who takes part, what each does (delta or full), which transactions belong to which change
 * set, and how far the slot may be told to go when the tick is committed.  Pure: looks at the
 * catalog and the buffer, talks to nobody.
 */
#ifndef PGTRICKLE_APPLIER_PLAN_H
#define PGTRICKLE_APPLIER_PLAN_H

#include "intake.h"

struct Remote;

/*
 * Records of exactly the transactions that belong to the tick for one frontier; or, whole and in their order, of those that a tick
 * takes from a remote (remote_plan.h).
 */
typedef struct ChangeSet
{
	int				   number; /* from 1 */
	const Buffer	  *buffer; /* that holds its transactions */
	struct Remote	  *remote; /* NULL: of the local stream */
	const StreamTable *first; /* whose frontier it is; NULL for a remote's */
	bool   is_exclusive; /* of a stream table whose own fill lies inside one of the transactions */
	Oid	  *wanted; /* relations that its stream tables read */
	size_t wanted_count;
	size_t wanted_capacity;
	Transaction **transactions;
	size_t		  transaction_count;
	size_t		  transaction_capacity;
} ChangeSet;

typedef struct PlannedTable
{
	StreamTable *table;
	int			 set; /* ChangeSet.number */
	bool		 is_full;
	bool		 spools; /* no refresh: its changes are stored for a later one */
	char		*action; /* as tick_plan wants it */
} PlannedTable;

typedef struct Plan
{
	Snapshot	 *snapshot;
	PlannedTable *tables; /* in topological order */
	size_t		  table_count;
	ChangeSet	 *sets;
	size_t		  set_count;
	uint64_t	  tick_number;
	Lsn			  ack_lsn; /* may be acknowledged when the tick's commit is flushed */
	Lsn			  stream_lsn; /* the stream position when the plan was made */
} Plan;

/*
 * Is there anything in it for the stream tables that were chosen (in_tick)?  Asked as soon as the
 * snapshot is known: if not, no fence need be written.
 */
extern bool
plan_is_worth_it(const Schedule *schedule, const Catalog *catalog, const Snapshot *snapshot);

/*
 * Makes the plan; takes_part is set on the stream tables.  The snapshot must have been seen by the
 * intake (intake_see_snapshot).  Does not return NULL; a plan without tables means that there is
 * nothing to do.
 */
extern Plan *plan_create(Intake *intake, Snapshot *snapshot, uint64_t tick_number, Micros now);
extern void	 plan_free(Plan *plan);

/* One more change set, empty. */
extern ChangeSet *plan_add_set(Plan *plan);

/*
 * The tick was committed under this transaction id: frontiers move, pending lists shrink, what
 * nobody needs is released.
 */
extern void plan_committed(const Plan *plan, Intake *intake, Xid own_xid);

/*
 * How far the slot may go as things are, if a plan (NULL: none) is committed: before everything
 * that some stream table still needs, that no snapshot of ours has seen, that a pin or an
 * unanswered request holds.
 */
extern Lsn plan_ack_lsn(const Plan *plan, const Intake *intake);

/* ------------------------------------------------------------------------------------------------
 * Reading the change sets as bytes
 */

#define STAGE_BYTES_MAX                                                                            \
	(4 * 1024 * 1024) /* of one call of tick_stage; a larger record goes alone */

typedef struct StageReader
{
	const Plan	 *plan;
	size_t		  set;
	size_t		  transaction;
	size_t		  chunk;
	uint64_t	  offset; /* within the chunk */
	bool		  chunk_is_started; /* offset is set, and the relation's record was written */
	bool		 *described; /* by relation number: its record is in this set */
	size_t		  described_capacity;
	uint8_t		 *data;
	size_t		  length;
	size_t		  capacity;
} StageReader;

extern void stage_reader_init(StageReader *reader, const Plan *plan);

/* The next part: a Batch for tick_stage(set, data).  *length is 0 at the end. */
extern bool stage_reader_next(StageReader *reader, int *set, const uint8_t **data, size_t *length,
							  Error *error) MUST_CHECK;
extern void stage_reader_free(StageReader *reader);

#endif /* PGTRICKLE_APPLIER_PLAN_H */
