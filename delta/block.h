/*
 * delta/block.h
 *     What operators see of a query level: inputs to join, and conditions between them.
 *
 * A block is one SELECT level after normalisation: joins are flattened into a list of inputs and one list of conditions, join
 * aliases are resolved, unused range-table entries are gone.  Input i has range-table index i + 1.
 */
#ifndef PGTRICKLE_BLOCK_H
#define PGTRICKLE_BLOCK_H

#include "postgres.h"

#include "nodes/parsenodes.h"
#include "program.h"
#include "utils/relcache.h"

/* One thing in FROM. */
typedef struct BlockInput
{
	RangeTblEntry *rte;			/* yields its rows in the new state: a relation, subquery, function, VALUES */
	int			rowset;			/* the rowset with its delta; -1: it never changes */
	List	   *states;			/* of ProgramState: what rte names */
	List	   *colnames;		/* of String: columns by attribute number, without the weight */
	List	   *coltypes;		/* oid, int and oid lists beside colnames */
	List	   *coltypmods;
	List	   *colcollations;
	List	   *key;			/* of int: attribute numbers that are unique together; NIL: none */

	/*
	 * Not joined but looked up: a row of the others stays when no row of this input fulfils `unless`, which at most one
	 * may.  An anti input is the last of its block, and is not counted among what targets and quals refer to.
	 */
	bool		anti;
	List	   *unless;			/* of Expr, ANDed, over all inputs including this one */
} BlockInput;

typedef struct QueryBlock
{
	Query	   *query;			/* the normalised level; its rtable holds the inputs' rtes */
	List	   *inputs;			/* of BlockInput */
	List	   *quals;			/* of Expr, ANDed */
	List	   *temporal;		/* of TemporalQual: those of quals that look at the clock */
	List	   *near;			/* of NearRows */
	List	   *states;			/* of ProgramState: those that the inputs' new states name */
	DeltaProgram *program;
	List	   *lock_pairs;		/* of LockPair (lock_pairs.c) */
	bool		has_lock_pairs; /* they have been looked for */
} QueryBlock;

/* Rows of an input that match the delta of some other one, looked up in one scan (near.c). */
typedef struct NearRows
{
	QueryBlock *block;
	int			input;			/* whose rows, as index in block->inputs */
	uint64		edges;			/* the inputs whose deltas they match */
	int			rowset;
	Bitmapset  *columns;		/* attribute numbers that the level uses */
} NearRows;

#define BLOCK_INPUTS_MAX 62		/* bits of a set of inputs, near rows among them */

/* Among the changed inputs of a block: the moment (temporal.c). */
#define BLOCK_TIME_CHANGED STEP_TIME_PASSED

/* What a compiled level offers to the level above. */
typedef struct Compiled
{
	int			rowset;			/* its delta; -1: it never changes */
	Query	   *new_query;		/* its rows in the new state; may name states */
	List	   *states;			/* of ProgramState: those that new_query names */
	List	   *key;			/* of int: output columns that identify a row; NIL: none, a bag */
	bool		single_row;		/* at most one row */
	bool		key_is_unique;	/* by grouping */
} Compiled;

typedef struct Compiler
{
	DeltaProgram *program;
	int			next_node;
	Oid			catalog_namespace;	/* of the extension */
	List	   *memo;			/* of MemoEntry (memo.c): levels that are compiled */
} Compiler;

/* compile.c: one query level, recursively.  NULL for what has no rule; the reason is noted. */
extern Compiled *compile_level(Compiler *compiler, Query *query);

/* Notes the reason why the query can only be refreshed in full (the first one is kept); returns NULL, to be returned. */
extern void *compile_cannot(Compiler *compiler, const char *reason,...) pg_attribute_printf(2, 3);

/* Registers a relation that the program reads, with more used columns. */
/* Registers every relation below a query that cannot be maintained by delta: its refreshes still depend on them. */
extern void note_all_sources(Compiler *compiler, Query *query);

/* The rowset with the delta of a source; `only`: without its child tables. */
extern int	program_source_rowset(Compiler *compiler, Oid relid, bool only);

extern ProgramSource *program_note_source(Compiler *compiler, Oid relid, const Bitmapset *used_attnos, bool by_delta);

/* memo.c: what an equal level was compiled to, as a copy that may be scribbled on; NULL: there was none. */
extern Compiled *memo_find(Compiler *compiler, Query *query);

/* Remembers a level; `query` must be a copy from before it was compiled. */
extern void memo_add(Compiler *compiler, Query *query, Compiled *compiled);

/* program_build.c: adding parts. */
extern int	program_add_rowset(Compiler *compiler, char *name, Oid source_relid);
extern ProgramStep *program_add_step(Compiler *compiler, StepKind kind, const char *operator_name, const char *strategy);
extern void step_add_input(ProgramStep *step, int rowset);
extern char *program_new_rowset_name(Compiler *compiler, const char *what);

/* normalize.c: NULL when some part has no rule. */
extern QueryBlock *block_from_query(Compiler *compiler, Query *query);

/* The columns (a list of int) that make the rows of a relation in FROM unique: a primary key, or a unique one that is NOT NULL; NIL: none. */
extern List *relation_rte_key(RangeTblEntry *rte);

/* Does a tree read any table?  If not, it changes only with what it refers to. */
extern bool reads_tables(Node *node);

/* Columns merged by a join, and (18) references to the grouping step, as what they stand for. */
extern Node *resolve_aliases(Query *query, Node *node);

/* grouping_sets.c: the level without GROUPING SETS, CUBE and ROLLUP (itself, when it has none); NULL: no rule. */
extern Query *rewrite_grouping_sets(Compiler *compiler, Query *query);

/* whole_row.c: the level with rows built from columns in place of references to whole rows; NULL: no rule. */
extern Query *rewrite_whole_rows(Compiler *compiler, Query *query);

/* distinct_aggregate.c: the level without DISTINCT inside of aggregates, where that makes it follow deltas; else itself. */
extern Query *rewrite_distinct_aggregates(Query *query);

/* virtual_column.c: makes a table of which a virtual generated column is used a subquery that computes it; true: done. */
extern bool compute_virtual_columns(RangeTblEntry *rte, Bitmapset *used_attnos);

/* row_security.c: the level with subqueries that apply the policies of its tables; in place. */
extern Query *rewrite_row_security(Compiler *compiler, Query *query);

/* set_operation.c: the level without INTERSECT and EXCEPT, and with a UNION that union.c can take; NULL: no rule. */
extern Query *rewrite_set_operations(Compiler *compiler, Query *query);

/* copies.c: INTERSECT ALL and EXCEPT ALL, which rewrite_set_operations leaves. */
extern bool is_bag_operation(Query *query);
extern Compiled *compile_copies(Compiler *compiler, Query *level);

/* One input of a level: what its range-table entry yields, compiled.  NULL when it has no rule. */
extern BlockInput *block_describe_input(Compiler *compiler, Query *query, int rtindex);

/* What a compiled level is as an input of another one. */
extern BlockInput *block_input_from_compiled(Compiled *compiled, const char *alias);

/* Moves inputs to range-table indexes 1, 2, ... everywhere in the level; other entries are dropped. */
extern void block_renumber_inputs(Query *query, List *rtindexes);

/* Columns of joins, in every expression of the level, become the columns of tables that they stand for. */
extern void resolve_all_aliases(Query *query);

/* Whether blocks can express what the level's expressions contain; notes what they cannot. */
extern bool block_level_is_supported(Compiler *compiler, Query *query);

/* isolate.c: every outer join in FROM as a subquery with two inputs; false when that has no rule. */
extern bool isolate_outer_joins(Compiler *compiler, Query *query);

/* FROM as a list of items (RangeTblRef, or JoinExpr of an outer join) and a list of conditions; inner joins are taken apart. */
extern void collect_from_items(Node *node, List **items, List **quals);

/* The joins of a FROM item: places of their range-table entries. */
extern Bitmapset *joins_in(Node *node);

/*
 * Moves a FROM item, which must already be out of query->jointree, and conditions on it into a new subquery of the level; references to its tables become
 * references to the subquery's columns everywhere in the level.  Returns what stands in FROM for it.
 */
extern Node *move_into_subquery(Query *query, Node *item, List *quals);

/* The columns of a unique index over NOT NULL columns, the primary key before others; NIL: none. */
extern List *relation_key(Relation relation);

/* Is the level nothing but one outer join, a filter and a projection? */
extern bool level_is_outer_join(Query *query);

/* outer_join.c: such a level. */
extern Compiled *compile_outer_join(Compiler *compiler, Query *query);

/* join.c: the terms of the delta of the block's FROM and WHERE. */

/*
 * A SELECT of `targets` (TargetEntry list over the block's inputs) and the weight, with the inputs in `changed` (bit i:
 * input i) read from their deltas and the others in their new state.  The sign is that of inclusion and exclusion.  With no input changed:
 * all rows of the new state, weight 1.
 */
extern Query *join_term(QueryBlock *block, uint64 changed, List *targets);

/* UNION ALL of the terms for every non-empty subset of `changed`, as text. */
extern char *join_delta_sql(QueryBlock *block, uint64 changed, List *targets);

/* near.c: adds the steps that look up rows near a change, where that saves scans. */
extern void block_add_near_rows(Compiler *compiler, QueryBlock *block);

/* The rowset to read in place of this input's new state in a term with these deltas; NULL: none. */
extern NearRows *block_near_rows(QueryBlock *block, int input_no, uint64 delta);

/* Is there a row near a change?  `changed`: from join_changed_inputs. */
extern bool near_rows_are_there(QueryBlock *block, NearRows *near, uint64 changed);

/* Does a term with these deltas and old states read near rows of which there are none?  `changed`: from join_changed_inputs. */
extern bool near_rows_are_empty(QueryBlock *block, uint64 delta, uint64 old, uint64 changed);

/* EXISTS (SELECT FROM rte WHERE quals), where the quals are over the block's inputs and call this one `rtindex`. */
extern Node *join_exists(RangeTblEntry *rte, int rtindex, List *quals);

/* An input's delta, with its weight. */
extern RangeTblEntry *join_delta_rte(QueryBlock *block, int input_no);

/* Attribute numbers of an input that the level uses, subqueries in it included. */
extern Bitmapset *used_columns(Query *query, int rtindex);

/* Which inputs change, as bits; which rowsets those are, into the step, in input order. */
extern void join_add_inputs(QueryBlock *block, ProgramStep *step);

/*
 * Translates "which inputs of the step are not empty" into "which inputs of the block changed".  The bits above those of the inputs
 * tell which near rows there are.
 */
extern uint64 join_changed_inputs(QueryBlock *block, ProgramStep *step, uint64 nonempty);

/* The block's rows in the new state, with these targets. */
extern Query *join_new_state(QueryBlock *block, List *targets);

/* A column list that names a rowset or state like a table. */
extern RangeTblEntry *named_rte(const char *name, const char *alias, List *colnames, List *coltypes,
								List *coltypmods, List *colcollations);

/* A query level with these entries, FROM all of them, WHERE all quals. */
extern Query *simple_query(List *rtable, List *quals, List *targets);

/* key.c: output columns (of targets) that identify a row of a join; NIL: none. */
extern List *join_key(QueryBlock *block, List *targets);

/* The output column that shows a column of an input as it is; 0: none. */
extern int	output_column(List *targets, int input_no, AttrNumber attno);

/* project.c, aggregate.c, distinct.c, union.c: one operator each. */
extern Compiled *compile_projection(Compiler *compiler, QueryBlock *block);

/*
 * Adds a step that reads rows of a state (with weights, from one or more rowsets of its columns) and yields `targets` where `quals` hold; both refer to
 * the state's columns as Vars of range-table entry 1.  The result's new_query reads the state itself.
 */
extern Compiled *project_state(Compiler *compiler, ProgramState *state, const char *operator_name,
							   List *rowsets, List *targets, List *quals);

/* The columns of a state, as Vars see them. */
extern RangeTblEntry *state_rte(ProgramState *state, const char *name, bool with_weight);
extern Compiled *compile_aggregate(Compiler *compiler, QueryBlock *block);
extern Compiled *compile_distinct(Compiler *compiler, Compiled *input);
extern Compiled *compile_union_all(Compiler *compiler, Query *query);

/* recursion.c: SELECT columns FROM a recursive WITH query of its own. */
extern Compiled *compile_recursion(Compiler *compiler, Query *query);
extern bool level_reads_unstorable_recursion(Query *query);

/* limit.c, distinct_on.c, window.c: levels that end in these; what is below is compiled first. */
extern Compiled *compile_limit(Compiler *compiler, Query *query);
extern Compiled *compile_distinct_on(Compiler *compiler, Query *query);
extern Compiled *compile_windows(Compiler *compiler, Query *query);

/* names.c: distinct column names for a target list; the type lists beside. */
extern List *target_column_names(List *targets);
extern void rename_targets(List *targets, List *names);
extern void target_column_types(List *targets, List **types, List **typmods, List **collations);

#endif							/* PGTRICKLE_BLOCK_H */
