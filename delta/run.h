/*
 * delta/run.h
 *     Runs delta programs: what a refresh does between its inputs and the stream table's new rows.
 */
#ifndef PGTRICKLE_RUN_H
#define PGTRICKLE_RUN_H

#include "postgres.h"

#include "apply.h"
#include "cost.h"
#include "program.h"
#include "executor/spi.h"
#include "rowset.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

/* Prepared statements of a program. */
typedef struct PlanKey
{
	int			step;			/* index in program->steps */
	int			padding;
	uint64		variant;		/* non-empty inputs, or pattern of NULLs */
	uint64		magnitudes;		/* of the inputs' row counts: cost_magnitude() */
} PlanKey;

typedef struct PlanEntry
{
	PlanKey		key;
	SPIPlanPtr	plan;
	struct DirectJoin *join;	/* what direct_join.c keeps */
	bool		is_indirect;	/* more than direct_step.c and direct_join.c can do */
	bool		is_planned;		/* STEP_ROW_BY_ROW: is_wide is known */
	bool		is_wide;		/* the planner expects so many rows that grouping them pays */
} PlanEntry;

/* What a step did in the last refresh by delta. */
typedef struct StepRun
{
	bool		ran;			/* false: its inputs were empty */
	int64		rows_in;
	int64		rows_out;
	double		duration_ms;
} StepRun;

struct config_generic;

/* A setting pinned at creation, as text, and how it can be seen without making text of the present value that it has not changed. */
typedef struct PinnedSetting
{
	char	   *name;
	char	   *value;
	struct config_generic *variable;	/* NULL: not looked up yet */
	bool		number_is_known;
	int			number;			/* what the variable held when its text was the value */
} PinnedSetting;

/* A program with everything that is needed to run it, kept for the session and made again when something it depends on changes. */
typedef struct LoadedTable
{
	int64		pgt_id;
	Oid			relid;
	Oid			owner;
	char	   *schema_name;
	char	   *relation_name;
	char	   *qualified_name; /* for messages */
	char	   *defining_query;
	char	   *stored_fingerprint; /* of the program that made the state tables */
	char	   *stored_clock_reason;	/* of the program, as the catalog has it */
	bool		wants_delta;	/* effective mode is DIFFERENTIAL or IMMEDIATE */
	bool		is_immediate;	/* writers of its sources maintain it */
	bool		states_checked; /* IMMEDIATE: the state tables have been found to fit */
	bool		is_auto;		/* the mode that was asked for leaves the choice to us */
	bool		is_populated;
	bool		retains_history;	/* what its refreshes change is kept (retain.h) */
	TransactionId frontier_xmin;	/* below it, all transactions were in when this was loaded; may be invalid */
	List	   *settings;		/* of PinnedSetting */
	List	   *consumer_ids;	/* of int64 *: stream tables that read this one */
	DeltaProgram *program;
	List	   *rights_levels;	/* what the owner has to be allowed to read (source_rights.h) */
	RowLocator	locator;
	List	   *state_relids;	/* oid list beside program->states */
	List	   *state_indexes;
	HTAB	   *plans;			/* of PlanEntry */
	CostModel	cost;
	StepRun    *step_runs;		/* beside program->steps */
	TimestampTz steps_written_at;	/* to the catalog */
	MemoryContext context;		/* holds all of the above */
	bool		valid;
	bool		is_known;		/* some tick has found that this is not younger than its snapshot */
	bool		sources_bound;	/* pgt_sources named all that the program reads when this was compiled */
	/* refresh history: the row that continuous refreshes of one second are summed up in */
	int64		history_id;
	TimestampTz history_started_at;
	bool		history_is_quiet;	/* refreshes by the clock that changed nothing */
} LoadedTable;

/*
 * The table's program, from the session's cache.  Must be called with the rights to read the extension's catalog.  NULL
 * when there is no such stream table (any more).
 */
extern LoadedTable *table_load(int64 pgt_id);

/* The same if it is there already, without looking into the catalog; else NULL. */
extern LoadedTable *table_find_loaded(int64 pgt_id);

/* Only what the catalog says about it, without a program, in `context`. */
extern LoadedTable *table_read_definition(int64 pgt_id, MemoryContext context);

/* The same for whoever has no rights on the catalog, in the current context.  Errors: 42P01 where there is none. */
extern LoadedTable *table_definition(int64 pgt_id);

/* Were the state tables made for the program as it is compiled now? */
extern bool table_states_fit(LoadedTable *table);

/* Makes them anew, empty, and loads the table again; a full refresh must follow in the same transaction.  Frees `table`. */
extern LoadedTable *table_rebuild_states(LoadedTable *table);

/* Identity of what a program keeps in its states and shows: differs when a source changed in a way that matters. */
extern char *program_fingerprint(DeltaProgram *program);

struct RunLocks;

/* What a refresh did. */
typedef struct RefreshOutcome
{
	const char *action;			/* NO_DATA, DIFFERENTIAL, FULL */
	ApplyCounts counts;
	int64		delta_rows;		/* changes of sources that went in */
	Rowset	   *net;			/* the stream table's own delta, for consumers and retain.h; NULL: nothing changed, or nobody wants it */
} RefreshOutcome;

/*
 * Both run as the table's owner with its pinned settings, inside the caller's SPI connection and transaction.  The caller has pushed
 * an active snapshot of its own (not shared); it is moved forward so that later commands see what was written.  `locks`: of an IMMEDIATE
 * run (immediate_locks.h); NULL in a tick.
 */
extern RefreshOutcome table_refresh_delta(LoadedTable *table, Rowset **source_rowsets, bool hidden, struct RunLocks *locks);
extern RefreshOutcome table_refresh_full(LoadedTable *table, bool hidden);

/* Fills states and table that are empty and have no index yet (the table) from the new state. */
extern int64 table_first_fill(LoadedTable *table);

/* Rows of the expanded query (+) less rows of the stream table (-): empty when they are equal. */
extern Rowset *table_compare(LoadedTable *table, int64 *row_count);

/* The statement of a step for a set of inputs that are not empty (of a replace step: for a pattern of NULLs among the keys). */
extern char *table_step_sql(LoadedTable *table, int step_no, uint64 variant);

/* A step's statement, kept for its variant and the orders of magnitude of its inputs, which are registered so that the parser finds them. */
extern SPIPlanPtr table_prepare_step(LoadedTable *table, int step_no, uint64 variant, uint64 magnitudes);

/* The statements of a full refresh: a state's rows, and the table's; with weights. */
extern char *table_state_fill_sql(LoadedTable *table, ProgramState *state);
extern char *table_fill_sql(LoadedTable *table);

extern Relation table_open_state(LoadedTable *table, ProgramState *state);

/* The row type of a group delta's keys, for the rowset of groups to recompute. */
extern TupleDesc table_key_tupdesc(TupleDesc state_columns, int nkeys);

/* Makes what was written visible to the next statement. */
extern void advance_active_snapshot(void);

/* Runs `sql` as a query, appending its rows to a new rowset; `sql` yields the weight as its last column. */
extern Rowset *rowset_from_sql(const char *sql, const char *name);

#endif							/* PGTRICKLE_RUN_H */
