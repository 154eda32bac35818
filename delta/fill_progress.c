/*
 * delta/fill_progress.c
 *     How far a first fill has come, for others to see.
 *
 * The server lets no extension have a progress view of its own, but it does not mind which numbers stand in the slots that COPY leaves empty.
 * So a fill reports itself as a COPY into the stream table (which is how it looks in pg_stat_progress_copy) and adds its phase and the planner's estimate;
 * a mark tells it from real ones.  The view pgtrickle.pgt_fill_progress reads it.  The server clears it when the transaction fails.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/progress.h"
#include "fill_progress.h"
#include "pgstat.h"
#include "utils/backend_progress.h"
#include "utils/plancache.h"
#include "utils/resowner.h"

#define PARAM_PHASE 10
#define PARAM_ROWS_ESTIMATED 11
#define PARAM_MARK 12
#define MARK 7067				/* as in the view */
#define ROWS_PER_REPORT 256

bool		fill_in_progress = false;
static int64 rows_done = 0;

typedef struct CountingReceiver
{
	DestReceiver receiver;
	DestReceiver *inner;
} CountingReceiver;

static void
forget_fill(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_COMMIT)
		fill_in_progress = false;
}

void
fill_progress_begin(Oid relid)
{
	static bool registered = false;

	if (!registered)
		RegisterXactCallback(forget_fill, NULL);
	registered = true;
	pgstat_progress_start_command(PROGRESS_COMMAND_COPY, relid);
	pgstat_progress_update_param(PROGRESS_COPY_COMMAND, PROGRESS_COPY_COMMAND_FROM);
	pgstat_progress_update_param(PROGRESS_COPY_TYPE, PROGRESS_COPY_TYPE_CALLBACK);
	pgstat_progress_update_param(PARAM_MARK, MARK);
	fill_in_progress = true;
}

void
fill_progress_phase(FillPhase phase, double rows_estimated)
{
	if (!fill_in_progress)
		return;
	rows_done = 0;
	pgstat_progress_update_param(PROGRESS_COPY_TUPLES_PROCESSED, 0);
	pgstat_progress_update_param(PARAM_ROWS_ESTIMATED, (int64) rows_estimated);
	pgstat_progress_update_param(PARAM_PHASE, phase);
}

void
fill_progress_count_row(void)
{
	if (fill_in_progress && ++rows_done % ROWS_PER_REPORT == 0)
		pgstat_progress_update_param(PROGRESS_COPY_TUPLES_PROCESSED, rows_done);
}

void
fill_progress_end(void)
{
	if (fill_in_progress)
		pgstat_progress_end_command();
	fill_in_progress = false;
}

/* ---- rows of the query ---- */

static bool
count_and_pass(TupleTableSlot *slot, DestReceiver *self)
{
	CountingReceiver *counting = (CountingReceiver *) self;

	fill_progress_count_row();
	return counting->inner->receiveSlot(slot, counting->inner);
}

static void
start_inner(DestReceiver *self, int operation, TupleDesc columns)
{
	CountingReceiver *counting = (CountingReceiver *) self;

	counting->inner->rStartup(counting->inner, operation, columns);
}

static void
stop_inner(DestReceiver *self)
{
	CountingReceiver *counting = (CountingReceiver *) self;

	counting->inner->rShutdown(counting->inner);
}

static void
destroy_both(DestReceiver *self)
{
	CountingReceiver *counting = (CountingReceiver *) self;

	counting->inner->rDestroy(counting->inner);
	pfree(counting);
}

static double
expected_rows(SPIPlanPtr plan)
{
	CachedPlan *cached = SPI_plan_get_cached_plan(plan);
	double		rows = 0;

	if (cached == NULL)
		return 0;
	if (cached->stmt_list != NIL && linitial_node(PlannedStmt, cached->stmt_list)->planTree != NULL)
		rows = linitial_node(PlannedStmt, cached->stmt_list)->planTree->plan_rows;
	ReleaseCachedPlan(cached, cached->is_saved ? CurrentResourceOwner : NULL);
	return rows;
}

DestReceiver *
fill_progress_receiver(DestReceiver *inner, SPIPlanPtr plan)
{
	CountingReceiver *counting;

	if (!fill_in_progress)
		return inner;
	pgstat_progress_update_param(PARAM_ROWS_ESTIMATED, (int64) expected_rows(plan));
	counting = palloc0(sizeof(CountingReceiver));
	counting->receiver.receiveSlot = count_and_pass;
	counting->receiver.rStartup = start_inner;
	counting->receiver.rShutdown = stop_inner;
	counting->receiver.rDestroy = destroy_both;
	counting->receiver.mydest = inner->mydest;
	counting->inner = inner;
	return &counting->receiver;
}
