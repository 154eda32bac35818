/*
 * delta/keyed.c
 *     Recomputing by key: the rule for window functions, DISTINCT ON, LIMIT, and whatever else has no finer one.
 *
 * F is a query over one input R.  Let its rows with key k depend on R's rows with key k only (the key of a window is what it is
 * partitioned by, that of DISTINCT ON its expressions).  With K the keys that occur in dR, and R'|K the new rows with a key in K,
 *
 *     d F(R) = F(R'|K) - F(R)|K
 *
 * because for a key outside of K the rows of R are the same as before, and so are those of F.  F(R)|K is what the node's state table
 * holds for K: the recomputed rows replace them (STEP_REPLACE), and what differs is the delta.  With no key at all there is one
 * partition, the whole input: F is computed anew and the difference to the state is the delta.
 *
 * The state holds F's visible columns and the key, once where the key is visible.  Unlike a group, a key has any number of rows.
 *
 * NULL keys: as in aggregate.c, a statement is printed per pattern of NULLs, so that the others can be found by `=`.
 */
#include "keyed.h"

#include "catalog/pg_type_d.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "port/pg_bitutils.h"
#include "query.h"
#include "rowset.h"
#include "tree_build.h"
#include "utils/builtins.h"
#include "utils/typcache.h"

typedef struct KeyedBuild
{
	KeyedLevel *level;
	DeltaProgram *program;
	ProgramState *state;
	Query	   *query;			/* F, with the keys among its visible targets */
	List	   *names;			/* of String: the input's columns */
	List	   *columns;		/* of int: which target of `query` is which column of the state */
} KeyedBuild;

bool
keyed_type_is_usable(Oid type, Oid equality_operator)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_EQ_OPR | TYPECACHE_LT_OPR);

	return OidIsValid(entry->lt_opr) && OidIsValid(entry->eq_opr) &&
		(!OidIsValid(equality_operator) || entry->eq_opr == equality_operator);
}

/* ---- statements ---- */

static Var *
input_var(KeyedBuild *build, int column, int rtindex)
{
	Node	   *expr = (Node *) ((TargetEntry *) list_nth(build->level->input->new_query->targetList, column - 1))->expr;

	return makeVar(rtindex, column, exprType(expr), exprTypmod(expr), exprCollation(expr), 0);
}

/* The distinct keys of the input's delta; without keys one row without columns. */
static char *
print_affected_keys(ProgramStep *step, uint64 nonempty)
{
	KeyedBuild *build = step->build;
	ProgramRowset *rowset = list_nth(build->program->rowsets, step->inputs[pg_rightmost_one_pos64(nonempty)]);
	StringInfoData sql;
	ListCell   *lc;

	initStringInfo(&sql);
	appendStringInfoString(&sql, build->level->keys == NIL ? "SELECT " : "SELECT DISTINCT ");
	foreach(lc, build->level->keys)
		appendStringInfo(&sql, "d.%s AS k%d, ", quote_identifier(strVal(list_nth(build->names, lfirst_int(lc) - 1))),
						 foreach_current_index(lc) + 1);
	appendStringInfo(&sql, "1 AS " ROWSET_WEIGHT_COLUMN " FROM %s d", quote_identifier(rowset->name));
	if (build->level->keys == NIL)
		appendStringInfoString(&sql, " LIMIT 1");
	return sql.data;
}

/* The rowset of affected keys as range-table entry 2, and the conditions between it and the input, entry 1. */
static RangeTblEntry *
affected_keys_rte(KeyedBuild *build, const char *keys_name, uint64 null_keys, List **quals)
{
	List	   *names = NIL;
	List	   *types = NIL;
	List	   *typmods = NIL;
	List	   *collations = NIL;
	ListCell   *lc;

	foreach(lc, build->level->keys)
	{
		int			i = foreach_current_index(lc);
		Var		   *sides[2];

		sides[0] = input_var(build, lfirst_int(lc), 1);
		sides[1] = makeVar(2, i + 1, sides[0]->vartype, sides[0]->vartypmod, sides[0]->varcollid, 0);
		names = lappend(names, makeString(psprintf("k%d", i + 1)));
		types = lappend_oid(types, sides[0]->vartype);
		typmods = lappend_int(typmods, sides[0]->vartypmod);
		collations = lappend_oid(collations, sides[0]->varcollid);
		if ((null_keys & (UINT64CONST(1) << i)) == 0)
			*quals = lappend(*quals, make_opclause(lookup_type_cache(sides[0]->vartype, TYPECACHE_EQ_OPR)->eq_opr,
												   BOOLOID, false, (Expr *) sides[0], (Expr *) sides[1],
												   InvalidOid, sides[0]->varcollid));
		else
			for (int side = 0; side < 2; side++)
			{
				NullTest   *test = makeNode(NullTest);

				test->arg = (Expr *) sides[side];
				test->nulltesttype = IS_NULL;
				*quals = lappend(*quals, test);
			}
	}
	return named_rte(keys_name, "affected", names, types, typmods, collations);
}

/* The input's rows in the new state; with `keys_name` those with a key in that rowset. */
static Query *
input_rows(KeyedBuild *build, const char *keys_name, uint64 null_keys)
{
	Query	   *rows = copyObject(build->level->input->new_query);
	List	   *rtable;
	List	   *quals = NIL;
	List	   *targets = NIL;

	if (keys_name == NULL || build->level->keys == NIL)
		return rows;
	rtable = list_make2(subquery_rte(rows, "input"), affected_keys_rte(build, keys_name, null_keys, &quals));
	for (int column = 1; column <= list_length(build->names); column++)
		targets = lappend(targets, makeTargetEntry((Expr *) input_var(build, column, 1), column,
												   pstrdup(strVal(list_nth(build->names, column - 1))), false));
	return simple_query(rtable, quals, targets);
}

/* All rows of the state, or those for some keys. */
static char *
state_rows_sql(KeyedBuild *build, const char *keys_name, uint64 null_keys, bool with_weight)
{
	Query	   *query = copyObject(build->query);
	List	   *names;
	StringInfoData sql;
	ListCell   *lc;

	if (build->level->input != NULL)
		((RangeTblEntry *) linitial(query->rtable))->subquery = input_rows(build, keys_name, null_keys);
	names = target_column_names(query->targetList);
	rename_targets(query->targetList, names);
	initStringInfo(&sql);
	foreach(lc, build->state->columns)
		appendStringInfo(&sql, "%s r.%s AS %s", foreach_current_index(lc) > 0 ? "," : "SELECT",
						 quote_identifier(strVal(list_nth(names, list_nth_int(build->columns,
																			  foreach_current_index(lc)) - 1))),
						 ((StateColumn *) lfirst(lc))->name);
	if (with_weight)
		appendStringInfoString(&sql, ", 1 AS " ROWSET_WEIGHT_COLUMN);
	appendStringInfo(&sql, "\nFROM (%s) r", query_print(query));
	return sql.data;
}

static char *
print_recompute(ProgramStep *step, const char *keys_name, uint64 null_keys)
{
	return state_rows_sql(step->build, keys_name, null_keys, true);
}

/* ---- the state ---- */

/* The place of a target that shows this column of the input as it is; 0: none does. */
static int
target_of_input_column(List *targets, int column)
{
	ListCell   *lc;

	foreach(lc, targets)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);
		Var		   *var = (Var *) target->expr;

		if (!target->resjunk && IsA(var, Var) && var->varno == 1 && var->varattno == column && var->varlevelsup == 0)
			return target->resno;
	}
	return 0;
}

List *
visible_input_key(Compiled *input, List *targets)
{
	List	   *key = NIL;
	ListCell   *lc;

	if (expression_returns_set((Node *) targets))
		return NIL;
	foreach(lc, input->key)
	{
		int			resno = target_of_input_column(targets, lfirst_int(lc));

		if (resno == 0)
			return NIL;
		key = list_append_unique_int(key, resno);
	}
	return key;
}

/* Puts the visible targets first, numbered, and the keys that are not among them behind. */
static void
add_key_targets(KeyedBuild *build)
{
	List	   *visible = NIL;
	List	   *junk = NIL;
	ListCell   *lc;

	foreach(lc, build->query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (target->resjunk)
			junk = lappend(junk, target);
		else
			visible = lappend(visible, target);
		target->resno = list_length(visible);
	}
	foreach(lc, build->level->keys)
	{
		if (target_of_input_column(visible, lfirst_int(lc)) == 0)
			visible = lappend(visible, makeTargetEntry((Expr *) input_var(build, lfirst_int(lc), 1),
													   list_length(visible) + 1,
													   psprintf("__pgt_k%d", foreach_current_index(lc) + 1), false));
	}
	foreach(lc, junk)
		lfirst_node(TargetEntry, lc)->resno = list_length(visible) + foreach_current_index(lc) + 1;
	build->query->targetList = list_concat(list_copy(visible), junk);
}

static void
add_state_column(KeyedBuild *build, int target_no, char *name)
{
	Node	   *expr = (Node *) get_tle_by_resno(build->query->targetList, target_no)->expr;
	StateColumn *column = palloc0(sizeof(StateColumn));

	column->name = column->delta_name = name;
	column->type = exprType(expr);
	column->typmod = exprTypmod(expr);
	column->collation = exprCollation(expr);
	build->state->columns = lappend(build->state->columns, column);
	build->columns = lappend_int(build->columns, target_no);
}

static void
make_state(KeyedBuild *build, Compiler *compiler, int visible_count)
{
	ProgramState *state = build->state = palloc0(sizeof(ProgramState));
	ListCell   *lc;

	state->number = list_length(compiler->program->states) + 1;
	state->name = psprintf("__pgt_state_%d", state->number);
	state->nkeys = list_length(build->level->keys);
	state->is_bag = true;
	state->reads = build->level->input != NULL ? build->level->input->states : NIL;
	foreach(lc, build->level->keys)
		add_state_column(build, target_of_input_column(build->query->targetList, lfirst_int(lc)),
						 psprintf("k%d", foreach_current_index(lc) + 1));
	for (int target_no = 1; target_no <= visible_count; target_no++)
	{
		if (!list_member_int(build->columns, target_no))
			add_state_column(build, target_no, psprintf("v%d", target_no));
	}
	state->fill_sql = state_rows_sql(build, NULL, 0, false);
	compiler->program->states = lappend(compiler->program->states, state);
}

/* ---- steps ---- */

static int
add_steps(KeyedBuild *build, Compiler *compiler)
{
	KeyedLevel *level = build->level;
	ProgramStep *keys = program_add_step(compiler, STEP_QUERY, level->operator_name,
										 level->keys == NIL ? "recompute" : "affected keys");
	ProgramStep *replace;
	ListCell   *lc;

	if (level->input != NULL)
		step_add_input(keys, level->input->rowset);
	foreach(lc, level->rowsets)
		step_add_input(keys, lfirst_int(lc));
	keys->print = print_affected_keys;
	keys->build = build;
	keys->has_fine_locks = true;
	keys->output = program_add_rowset(compiler, program_new_rowset_name(compiler, "affected"), InvalidOid);

	replace = program_add_step(compiler, STEP_REPLACE, level->operator_name,
							   level->keys == NIL ? "recompute and compare" : "recompute affected keys");
	step_add_input(replace, keys->output);
	replace->has_fine_locks = true;
	replace->print_recompute = print_recompute;
	replace->build = build;
	replace->state = build->state;
	replace->states_read = build->state->reads;
	replace->output = program_add_rowset(compiler, program_new_rowset_name(compiler, "replaced"), InvalidOid);
	return replace->output;
}

/* The visible targets as columns of the state. */
static List *
output_targets(KeyedBuild *build, List *names)
{
	List	   *targets = NIL;

	for (int target_no = 1; target_no <= list_length(names); target_no++)
	{
		int			attno = 1;

		while (list_nth_int(build->columns, attno - 1) != target_no)
			attno++;

		StateColumn *column = list_nth(build->state->columns, attno - 1);
		Var		   *var = makeVar(1, attno, column->type, column->typmod, column->collation, 0);

		targets = lappend(targets, makeTargetEntry((Expr *) var, target_no,
												   pstrdup(strVal(list_nth(names, target_no - 1))), false));
	}
	return targets;
}

/* An input that never changes needs no state: its rows are computed where they are read. */
static Compiled *
compile_constant(KeyedLevel *level, List *names)
{
	Compiled   *compiled = palloc0(sizeof(Compiled));

	compiled->rowset = -1;
	compiled->new_query = level->query;
	if (level->input != NULL)
	{
		((RangeTblEntry *) linitial(level->query->rtable))->subquery = level->input->new_query;
		compiled->states = level->input->states;
	}
	rename_targets(level->query->targetList, names);
	return compiled;
}

Compiled *
compile_keyed(Compiler *compiler, KeyedLevel *level)
{
	KeyedBuild *build = palloc0(sizeof(KeyedBuild));
	List	   *names = target_column_names(level->query->targetList);
	Compiled   *compiled;

	build->level = level;
	build->program = compiler->program;
	if (level->input != NULL)
	{
		build->names = target_column_names(level->input->new_query->targetList);
		rename_targets(level->input->new_query->targetList, build->names);
	}
	if (level->input != NULL ? level->input->rowset < 0 : level->rowsets == NIL)
		compiled = compile_constant(level, names);
	else
	{
		build->query = copyObject(level->query);
		add_key_targets(build);
		make_state(build, compiler, list_length(names));
		compiled = project_state(compiler, build->state, psprintf("%s output", level->operator_name),
								 list_make1_int(add_steps(build, compiler)), output_targets(build, names), NIL);
	}
	compiled->key = level->output_key;
	compiled->key_is_unique = level->key_is_unique && level->output_key != NIL;
	compiled->single_row = level->single_row;
	return compiled;
}
