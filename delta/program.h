/*
 * delta/program.h
 *     A delta program: how one stream table follows its sources, as data.
 *
 * compile.c makes a program from a defining query; run.c executes it; explain.c prints it.  A program is a list of
 * steps over numbered rowsets.  The first rowsets are the deltas of the sources; each step makes one more; the last
 * one is the delta of the stream table.  A step whose inputs are all empty is skipped and its result is empty.
 *
 * A program knows SQL only as text: every step's statement is printed by the server's own deparser with all names
 * qualified, so that what explain shows is what runs.  It does not know OIDs of its state tables: statements
 * name them __pgt_state_<n>, and a WITH clause put in front binds that name to the table.
 *
 * Lifetime: everything hangs in `context`; program_free() deletes it.
 */
#ifndef PGTRICKLE_PROGRAM_H
#define PGTRICKLE_PROGRAM_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "nodes/bitmapset.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"

/* A relation whose changes the program reads. */
typedef struct ProgramSource
{
	Oid			relid;
	char	   *schema_name;
	char	   *relation_name;
	const char *source_type;	/* as in pgtrickle.pgt_sources */
	Bitmapset  *used_attnos;	/* attribute numbers, not offset */
	bool		by_delta;		/* false: only full refreshes read it */
} ProgramSource;

/*
 * How a column of a state table takes in a delta.  The names refer to functions of schema pgtrickle or pg_catalog;
 * run.c resolves them.
 */
typedef struct StateColumn
{
	char	   *name;
	Oid			type;
	int32		typmod;
	Oid			collation;
	bool		is_minmax;
	bool		is_max;
	Oid			merge_function; /* (state, delta) -> state; InvalidOid for min and max */
	Oid			compare_function;	/* min and max: btree 3-way comparison */
	char	   *delta_name;		/* column of the group delta that it takes in */
	char	   *delta_gone_name;	/* min and max: the extremum of the rows that went */
} StateColumn;

/* An internal table with the rows of one grouping node: its keys, a row count, and merge columns. */
typedef struct ProgramState
{
	int			number;			/* node number, part of the table's name */
	char	   *name;			/* __pgt_state_<number>, as statements call it */
	int			nkeys;
	List	   *columns;		/* of StateColumn: the keys first, then `rows`, then the others */
	bool		is_global;		/* no GROUP BY: exactly one row, even over nothing */
	bool		merges;			/* algebraic: merge_group_delta; false: replace_by_key with recomputed rows */
	bool		is_bag;			/* a key has any number of rows, copies included; without keys rows are found by their hash */
	List	   *probe_columns;	/* of int: columns that statements look rows up by, besides the key; each gets an index */
	char	   *fill_sql;		/* all its rows from the sources' new state (may read other states) */
	List	   *reads;			/* of ProgramState: what fill_sql names */
} ProgramState;

typedef enum StepKind
{
	STEP_QUERY,					/* output = a statement over the inputs, one variant per set of non-empty inputs */
	STEP_MERGE,					/* merges a group delta into a state; output: -old +new state rows */
	STEP_REPLACE				/* recomputes the groups whose keys are in the input; output: -old +new state rows */
} StepKind;

struct ProgramStep;

/* Besides the inputs that are not empty: set for a step that follows the time. */
#define STEP_TIME_PASSED (UINT64CONST(1) << 63)

/* The variant of a STEP_QUERY for few rows: print_rows (merge.c adds up what belongs together). */
#define STEP_ROW_BY_ROW (UINT64CONST(1) << 61)

/* The variant of a STEP_QUERY that reads the places of rows that were looked up for several stream tables (shared_rows.c). */
#define STEP_SHARED (UINT64CONST(1) << 62)

/*
 * Prints the statement of a STEP_QUERY for the inputs that are not empty (bit i: input i; STEP_TIME_PASSED).  The statement
 * yields the output's columns and a weight.
 */
typedef char *(*StepPrinter) (struct ProgramStep *step, uint64 nonempty);

typedef struct ProgramStep
{
	StepKind	kind;
	const char *operator_name;	/* for explain: "join", "aggregate", ... */
	const char *strategy;		/* for explain: "linear", "algebraic", "affected keys", ... */
	int			ninputs;
	int		   *inputs;			/* rowset numbers */
	int			output;			/* rowset number */
	StepPrinter print;			/* STEP_QUERY */
	StepPrinter print_rows;		/* STEP_QUERY whose output is merged: not grouped, a group delta for each row; NULL: no such statement */
	bool		subtracts;		/* STEP_QUERY: one input without deletes may already yield some */
	void	   *build;			/* what the printer works from */
	List	   *states_read;	/* of ProgramState: bound by the WITH clause in front */
	ProgramState *state;		/* STEP_MERGE, STEP_REPLACE */
	int			recompute_output;	/* STEP_MERGE: rowset of keys to recompute, or -1 */
	/* STEP_REPLACE: the statement that recomputes groups, for one pattern of NULLs in the keys (bit i: key i is NULL) */
	char	   *(*print_recompute) (struct ProgramStep *step, const char *keys_name, uint64 null_keys);
	List	   *fk_edges;		/* STEP_QUERY: of ForeignKeyEdge (fk_prune.c): inputs that it may ignore */
	List	   *shared;			/* STEP_QUERY: of char *, beside inputs: the lookup for this input that may be shared, or NULL; NIL: none */
	bool		follows_time;	/* STEP_QUERY: runs even if its inputs are empty, since time has passed */

	/*
	 * IMMEDIATE runs (docs/explanation/immediate.md): the rule of its operator is known to be exact with locks on the pairs below, and on keys of
	 * the state it writes.  Otherwise the program is run by one transaction at a time.
	 */
	bool		has_fine_locks;
	List	   *lock_pairs;		/* of LockPair */
} ProgramStep;

typedef struct ProgramRowset
{
	char	   *name;			/* the name SQL uses */
	Oid			source_relid;	/* deltas of sources; else InvalidOid */
	bool		source_only;	/* without the source's child tables */
} ProgramRowset;

typedef struct DeltaProgram
{
	MemoryContext context;
	char	   *defining_query; /* every name qualified */
	char	   *run_query;		/* the same with open orders completed: what a full refresh runs */
	char	   *full_reason;	/* why it cannot be maintained by delta; NULL: it can */
	char	   *clock_reason;	/* why its answer changes without a change in the WAL; NULL: it does not */
	bool		follows_time;	/* some step does: pgtrickle.previous_now() must be known */
	int			lock_pair_count;
	List	   *functions;		/* oid list: the users' functions that it calls, see functions_used.c */
	List	   *sources;		/* of ProgramSource */
	List	   *rowsets;		/* of ProgramRowset */
	List	   *states;			/* of ProgramState, those below first */
	List	   *steps;			/* of ProgramStep, in order */
	int			result;			/* rowset number of the stream table's delta */
	char	   *new_sql;		/* the stream table's rows from the sources' new state, reading states */
	List	   *new_sql_states;
	TupleDesc	tupdesc;		/* the stream table's columns */
	List	   *key;			/* of int: attribute numbers that identify a row; NIL: none */
	bool		single_row;		/* exactly one row at most, no key needed */
	bool		key_is_unique;	/* the key comes from grouping: a unique index is sound */
	List	   *notes;			/* of char *: what a user should know, for validate and explain */
} DeltaProgram;

/*
 * Compiles a defining query under the current user, search_path and settings.  Errors: syntax and analysis errors of
 * the server; 0A000 for statements that cannot define a stream table at all (no SELECT, FOR UPDATE, volatile functions,
 * data-modifying WITH ...).  What can only be refreshed in full gives a program with full_reason.
 * The result lives in a new context below `parent`.
 */
extern DeltaProgram *program_compile(const char *query_text, MemoryContext parent);
extern void program_free(DeltaProgram *program);

/* Drops what only deltas need, because somebody decided for full refreshes. */
extern void program_refresh_in_full(DeltaProgram *program, const char *reason);

/* The defining query with every name qualified, without compiling: the identity of a definition. */
extern char *query_normalize(const char *query_text);

/* WITH clause that binds the states' names, "" when there are none; `pgt_id` names the tables. */
extern char *program_state_binding(List *states, int64 pgt_id);

/* Name of a state table in schema pgtrickle. */
extern char *program_state_table_name(int64 pgt_id, int number);

/* The defining query with upstream stream tables expanded down to their sources; see verify.c. */
extern char *query_expand_stream_tables(const char *query_text);

#endif							/* PGTRICKLE_PROGRAM_H */
