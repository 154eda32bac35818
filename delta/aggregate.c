/*
 * delta/aggregate.c
 *     Delta rule for GROUP BY.
 *
 * The node keeps one row per group in a state table: the keys, the number of input rows (`rows`), and what its aggregates need.
 *
 * Algebraic: every aggregate has a rule (aggregate_rules.h).  The group delta, one statement over the terms of the join's delta,
 *
 *     SELECT keys, sum(weight) AS rows, sum(weight * x) ... FROM (terms) t GROUP BY keys
 *
 * is merged into the state (STEP_MERGE): new = old + delta; a group without rows goes.  A group that lost its min or max is computed again
 * from the new state of the inputs, restricted to its key (STEP_REPLACE).
 *
 * Otherwise, affected keys: K = the keys that occur in the join's delta; all groups in K are computed again and replace what
 * the state holds for K (STEP_REPLACE).
 *
 * Both yield -old +new state rows, from which a projection makes the visible columns, HAVING included: a group below the threshold
 * stays in the state, so that it can come up later.  Correct because a group's row is a function of the bag of its input rows, and that bag changes
 * only for keys in the input's delta.
 *
 * NULL keys: groups compare keys by IS NOT DISTINCT FROM, which no join can hash or probe an index with; so a
 * recomputing statement is printed per pattern of NULLs, with `=` for the others.
 */
#include "postgres.h"

#include "aggregate_rules.h"
#include "block.h"
#include "catalog/pg_type_d.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "catalog/pg_aggregate.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_func.h"
#include "query.h"
#include "rowset.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#define GROUP_KEYS_MAX 32		/* columns of an index, and bits of a pattern of NULLs */

/* An aggregate call of the level, and how its value is read from the state. */
typedef struct AggregateCall
{
	Aggref	   *aggref;
	AggregateRule rule;
	Expr	   *final;			/* over Vars of the state, range-table entry 1 */
} AggregateCall;

/* A column of the state: what the terms must carry for it, and the expressions over them. */
typedef struct AggregateColumn
{
	StateColumn *state;
	char	   *delta_sql;		/* over t: its column of the group delta */
	char	   *gone_sql;		/* min and max */
	Aggref	   *aggref;			/* affected keys: the call itself */
} AggregateColumn;

typedef struct AggregateBuild
{
	Compiler   *compiler;
	QueryBlock *block;
	ProgramState *state;
	List	   *keys;			/* of Expr over the block's inputs */
	List	   *key_columns;	/* of StateColumn */
	List	   *calls;			/* of AggregateCall */
	List	   *columns;		/* of AggregateColumn, without keys and rows */
	List	   *targets;		/* of the terms: the keys k1.., then the arguments a1.. */
	bool		algebraic;
} AggregateBuild;

/* ---- what the level groups by and computes ---- */

typedef struct CollectContext
{
	AggregateBuild *build;
	bool		failed;
} CollectContext;

static bool
is_key(AggregateBuild *build, Node *node)
{
	return list_member(build->keys, node);
}

/*
 * Collects aggregate calls; a column outside of them that is not part of a key depends on the keys (GROUP BY a primary key) and
 * becomes one more key, which makes no other groups.
 */
static bool
collect_walker(Node *node, CollectContext *context)
{
	AggregateBuild *build = context->build;

	if (node == NULL || is_key(build, node))
		return false;
	if (IsA(node, Aggref))
	{
		ListCell   *lc;
		AggregateCall *call;

		foreach(lc, build->calls)
		{
			if (equal(((AggregateCall *) lfirst(lc))->aggref, node))
				return false;
		}
		call = palloc0(sizeof(AggregateCall));
		call->aggref = (Aggref *) node;
		call->rule = aggregate_rule(call->aggref);
		build->calls = lappend(build->calls, call);
		return false;
	}
	if (IsA(node, GroupingFunc))
	{
		compile_cannot(build->compiler, "GROUPING() without grouping sets has no delta rule yet");
		context->failed = true;
		return true;
	}
	if (IsA(node, Var))
	{
		build->keys = lappend(build->keys, node);
		return false;
	}
	return expression_tree_walker(node, collect_walker, context);
}

static bool
collect_keys_and_calls(AggregateBuild *build)
{
	Query	   *query = build->block->query;
	CollectContext context = {build, false};
	ListCell   *lc;

	build->algebraic = true;
	foreach(lc, query->groupClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);

		build->keys = list_append_unique(build->keys,
										 get_sortgroupclause_expr(clause, query->targetList));
	}
	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (!target->resjunk)
			(void) collect_walker((Node *) target->expr, &context);
	}
	(void) collect_walker(query->havingQual, &context);
	if (context.failed)
		return false;
	if (list_length(build->keys) > GROUP_KEYS_MAX)
		return compile_cannot(build->compiler, "GROUP BY with more than %d columns has no delta rule",
							  GROUP_KEYS_MAX) != NULL;
	foreach(lc, build->keys)
	{
		Oid			type = exprType(lfirst(lc));

		if (!OidIsValid(lookup_type_cache(type, TYPECACHE_LT_OPR)->lt_opr))
			return compile_cannot(build->compiler, "grouping by type %s, which has no order, has no delta rule",
								  format_type_be(type)) != NULL;
	}
	foreach(lc, build->calls)
		build->algebraic &= ((AggregateCall *) lfirst(lc))->rule != AGGREGATE_RECOMPUTE;
	return true;
}

/* ---- the state's columns ---- */

static StateColumn *
add_state_column(AggregateBuild *build, char *name, Oid type, int32 typmod, Oid collation)
{
	StateColumn *column = palloc0(sizeof(StateColumn));

	column->name = name;
	column->type = type;
	column->typmod = typmod;
	column->collation = collation;
	column->delta_name = name;
	build->state->columns = lappend(build->state->columns, column);
	return column;
}

static Expr *
state_var(AggregateBuild *build, StateColumn *column)
{
	int			attno = 1;
	ListCell   *lc;

	foreach(lc, build->state->columns)
	{
		if (lfirst(lc) == column)
			return (Expr *) makeVar(1, attno, column->type, column->typmod, column->collation, 0);
		attno++;
	}
	elog(ERROR, "state column \"%s\" is not in its state", column->name);
	return NULL;
}

static StateColumn *
rows_column(AggregateBuild *build)
{
	return list_nth(build->state->columns, list_length(build->keys));
}

static void
add_key_columns(AggregateBuild *build)
{
	ListCell   *lc;
	int			i = 0;

	foreach(lc, build->keys)
	{
		Node	   *key = lfirst(lc);
		char	   *name = psprintf("k%d", ++i);

		build->key_columns = lappend(build->key_columns,
									 add_state_column(build, name, exprType(key), exprTypmod(key),
													  exprCollation(key)));
		build->targets = lappend(build->targets,
								 makeTargetEntry((Expr *) key, list_length(build->targets) + 1, name, false));
	}
	add_state_column(build, pstrdup("rows"), INT8OID, -1, InvalidOid)->merge_function = F_INT8PL;
}

/* The call's argument as a column of the terms; FILTER becomes a CASE, since every rule ignores NULLs. */
static char *
argument_column(AggregateBuild *build, Aggref *aggref)
{
	Expr	   *argument = aggref->aggstar ? (Expr *) makeBoolConst(true, false)
		: linitial_node(TargetEntry, aggref->args)->expr;
	ListCell   *lc;
	char	   *name;

	if (aggref->aggfilter != NULL)
	{
		CaseExpr   *choice = makeNode(CaseExpr);
		CaseWhen   *when = makeNode(CaseWhen);

		when->expr = aggref->aggfilter;
		when->result = argument;
		choice->casetype = exprType((Node *) argument);
		choice->casecollid = exprCollation((Node *) argument);
		choice->args = list_make1(when);
		choice->defresult = (Expr *) makeNullConst(choice->casetype, exprTypmod((Node *) argument),
												   choice->casecollid);
		argument = (Expr *) choice;
	}
	foreach(lc, build->targets)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (equal(target->expr, argument) && target->resno > list_length(build->keys))
			return target->resname;
	}
	name = psprintf("a%d", list_length(build->targets) - list_length(build->keys) + 1);
	build->targets = lappend(build->targets,
							 makeTargetEntry(argument, list_length(build->targets) + 1, name, false));
	return name;
}

/* A merge column with this group-delta expression, shared by calls that need the same one. */
static StateColumn *
merge_column(AggregateBuild *build, char *delta_sql, Oid type, Oid merge_function)
{
	ListCell   *lc;
	AggregateColumn *column;

	foreach(lc, build->columns)
	{
		column = lfirst(lc);
		if (column->delta_sql != NULL && strcmp(column->delta_sql, delta_sql) == 0)
			return column->state;
	}
	column = palloc0(sizeof(AggregateColumn));
	column->delta_sql = delta_sql;
	column->state = add_state_column(build, psprintf("s%d", list_length(build->columns) + 1),
									 type, -1, InvalidOid);
	column->state->merge_function = merge_function;
	build->columns = lappend(build->columns, column);
	return column->state;
}

static Oid
extension_function(const char *name, int nargs, Oid arg1, Oid arg2)
{
	Oid			args[2] = {arg1, arg2};

	return LookupFuncName(list_make2(makeString("pgtrickle"), makeString(pstrdup(name))), nargs, args, false);
}

static Expr *
final_call(const char *name, Oid result_type, Expr *arg1, Expr *arg2)
{
	Oid			type1 = exprType((Node *) arg1);
	Oid			type2 = arg2 ? exprType((Node *) arg2) : InvalidOid;

	return (Expr *) makeFuncExpr(extension_function(name, arg2 ? 2 : 1, type1, type2), result_type,
								 arg2 ? list_make2(arg1, arg2) : list_make1(arg1),
								 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

static StateColumn *
count_column(AggregateBuild *build, const char *argument)
{
	return merge_column(build,
						psprintf("COALESCE(sum(t.__w) FILTER (WHERE t.%s IS DISTINCT FROM NULL), 0)", argument),
						INT8OID, F_INT8PL);
}

static void
add_minmax_column(AggregateBuild *build, AggregateCall *call, const char *argument)
{
	bool		is_max = call->rule == AGGREGATE_MAX;
	const char *function = is_max ? "max" : "min";
	Node	   *expr = (Node *) linitial_node(TargetEntry, call->aggref->args)->expr;
	StateColumn *state = merge_column(build,
									  psprintf("%s(t.%s) FILTER (WHERE t.__w > 0)", function, argument),
									  call->aggref->aggtype, InvalidOid);

	if (!state->is_minmax)
	{
		AggregateColumn *column = llast(build->columns);

		column->gone_sql = psprintf("%s(t.%s) FILTER (WHERE t.__w < 0)", function, argument);
		state->is_minmax = true;
		state->is_max = is_max;
		state->typmod = exprTypmod(expr);
		state->collation = call->aggref->inputcollid;
		state->compare_function = aggregate_compare_function(call->aggref);
		state->delta_gone_name = psprintf("%s_gone", state->name);
	}
	call->final = state_var(build, state);
}

static void
add_algebraic_columns(AggregateBuild *build, AggregateCall *call)
{
	char	   *argument;
	StateColumn *sum;

	if (call->rule == AGGREGATE_COUNT_ROWS && call->aggref->aggfilter == NULL)
	{
		call->final = state_var(build, rows_column(build));
		return;
	}
	argument = argument_column(build, call->aggref);
	switch (call->rule)
	{
		case AGGREGATE_COUNT_ROWS:
		case AGGREGATE_COUNT:
			call->final = state_var(build, count_column(build, argument));
			break;
		case AGGREGATE_SUM_INTEGER:
		case AGGREGATE_AVG_INTEGER:
			sum = merge_column(build, psprintf("COALESCE(pgtrickle.weighted_sum(t.%s, t.__w), 0)", argument),
							   INT8OID, F_INT8PL);
			call->final = final_call(call->rule == AGGREGATE_SUM_INTEGER ? "sum_or_null" : "avg_or_null",
									 call->aggref->aggtype, state_var(build, sum),
									 state_var(build, count_column(build, argument)));
			break;
		case AGGREGATE_SUM_BIGINT:
		case AGGREGATE_AVG_BIGINT:
			sum = merge_column(build, psprintf("COALESCE(sum((t.%s)::numeric * (t.__w)::numeric), 0)", argument),
							   NUMERICOID, F_NUMERIC_ADD);
			call->final = final_call(call->rule == AGGREGATE_SUM_BIGINT ? "sum_or_null" : "avg_or_null",
									 call->aggref->aggtype, state_var(build, sum),
									 state_var(build, count_column(build, argument)));
			break;
		case AGGREGATE_SUM_NUMERIC:
		case AGGREGATE_AVG_NUMERIC:
			sum = merge_column(build, psprintf("pgtrickle.numeric_state(t.%s, t.__w)", argument), BYTEAOID,
							   extension_function("numeric_state_merge", 2, BYTEAOID, BYTEAOID));
			call->final = final_call(call->rule == AGGREGATE_SUM_NUMERIC ? "numeric_state_sum" : "numeric_state_avg",
									 NUMERICOID, state_var(build, sum), NULL);
			break;
		case AGGREGATE_MIN:
		case AGGREGATE_MAX:
			add_minmax_column(build, call, argument);
			break;
		case AGGREGATE_RECOMPUTE:
			elog(ERROR, "aggregate without a rule among algebraic ones");
	}
}

static void
add_recomputed_column(AggregateBuild *build, AggregateCall *call)
{
	AggregateColumn *column = palloc0(sizeof(AggregateColumn));

	column->aggref = call->aggref;
	column->state = add_state_column(build, psprintf("v%d", list_length(build->columns) + 1),
									 call->aggref->aggtype, -1, call->aggref->aggcollid);
	build->columns = lappend(build->columns, column);
	call->final = state_var(build, column->state);
}

/* ---- statements ---- */

/* SELECT keys, rows, columns FROM (from) t GROUP BY keys; with `for_state` without what only a group delta has. */
static char *
group_sql(AggregateBuild *build, const char *from, bool for_state)
{
	StringInfoData sql;
	ListCell   *lc;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (int i = 1; i <= list_length(build->keys); i++)
		appendStringInfo(&sql, "t.k%d, ", i);
	appendStringInfoString(&sql, "COALESCE(sum(t.__w), 0) AS rows");
	foreach(lc, build->columns)
	{
		AggregateColumn *column = lfirst(lc);

		appendStringInfo(&sql, ",\n\t%s AS %s", column->delta_sql, column->state->name);
	}
	foreach(lc, build->columns)
	{
		AggregateColumn *column = lfirst(lc);

		if (column->gone_sql != NULL && !for_state)
			appendStringInfo(&sql, ",\n\t%s AS %s", column->gone_sql, column->state->delta_gone_name);
	}
	if (!for_state)
		appendStringInfoString(&sql, ", 1 AS " ROWSET_WEIGHT_COLUMN);
	appendStringInfo(&sql, "\nFROM (%s) t", from);
	for (int i = 1; i <= list_length(build->keys); i++)
		appendStringInfo(&sql, "%s t.k%d", i == 1 ? "\nGROUP BY" : ",", i);
	return sql.data;
}

static char *
print_group_delta(ProgramStep *step, uint64 nonempty)
{
	AggregateBuild *build = step->build;

	return group_sql(build, join_delta_sql(build->block, join_changed_inputs(build->block, nonempty),
										   build->targets), false);
}

/* The distinct keys of the delta.  Without keys: one empty row. */
static char *
print_affected_keys(ProgramStep *step, uint64 nonempty)
{
	AggregateBuild *build = step->build;
	List	   *key_targets = list_copy_head(build->targets, list_length(build->keys));
	char	   *terms = join_delta_sql(build->block, join_changed_inputs(build->block, nonempty), key_targets);
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, build->keys == NIL ? "SELECT " : "SELECT DISTINCT ");
	for (int i = 1; i <= list_length(build->keys); i++)
		appendStringInfo(&sql, "t.k%d, ", i);
	appendStringInfo(&sql, "1 AS " ROWSET_WEIGHT_COLUMN " FROM (%s) t", terms);
	if (build->keys == NIL)
		appendStringInfoString(&sql, " LIMIT 1");
	return sql.data;
}

/* key = K.key, or for a NULL one: key IS NULL AND K.key IS NULL. */
static List *
key_conditions(AggregateBuild *build, int keys_rtindex, uint64 null_keys)
{
	List	   *quals = NIL;
	int			i = 0;
	ListCell   *lc;

	foreach(lc, build->keys)
	{
		Node	   *key = copyObject(lfirst(lc));
		StateColumn *column = list_nth(build->key_columns, i);
		Var		   *wanted = makeVar(keys_rtindex, i + 1, column->type, column->typmod, column->collation, 0);

		if ((null_keys & (UINT64CONST(1) << i)) != 0)
		{
			Node	   *sides[2] = {key, (Node *) wanted};

			for (int side = 0; side < 2; side++)
			{
				NullTest   *test = makeNode(NullTest);

				test->arg = (Expr *) sides[side];
				test->nulltesttype = IS_NULL;
				quals = lappend(quals, test);
			}
		}
		else
			quals = lappend(quals, make_opclause(lookup_type_cache(column->type, TYPECACHE_EQ_OPR)->eq_opr,
												 BOOLOID, false, (Expr *) key, (Expr *) wanted,
												 InvalidOid, column->collation));
		i++;
	}
	return quals;
}

/* The inputs' new state as a query level; with `keys_name` restricted to the keys in that rowset. */
static Query *
restricted_level(AggregateBuild *build, const char *keys_name, uint64 null_keys, List *targets)
{
	List	   *rtable = NIL;
	List	   *quals = copyObject(build->block->quals);
	ListCell   *lc;

	foreach(lc, build->block->inputs)
		rtable = lappend(rtable, copyObject(((BlockInput *) lfirst(lc))->rte));
	if (keys_name != NULL && build->keys != NIL)
	{
		List	   *names = NIL;
		List	   *types = NIL;
		List	   *typmods = NIL;
		List	   *collations = NIL;

		foreach(lc, build->key_columns)
		{
			StateColumn *column = lfirst(lc);

			names = lappend(names, makeString(column->name));
			types = lappend_oid(types, column->type);
			typmods = lappend_int(typmods, column->typmod);
			collations = lappend_oid(collations, column->collation);
		}
		rtable = lappend(rtable, named_rte(keys_name, "affected", names, types, typmods, collations));
		quals = list_concat(quals, key_conditions(build, list_length(rtable), null_keys));
	}
	return simple_query(rtable, quals, targets);
}

/* All state rows of a node whose aggregates have no rule, computed from the new state. */
static char *
recomputed_rows_sql(AggregateBuild *build, const char *keys_name, uint64 null_keys)
{
	List	   *targets = NIL;
	Query	   *query;
	ListCell   *lc;
	Aggref	   *count = makeNode(Aggref);
	int			i = 0;

	foreach(lc, build->keys)
	{
		TargetEntry *target = makeTargetEntry(copyObject(lfirst(lc)), i + 1, psprintf("k%d", i + 1), false);

		target->ressortgroupref = ++i;
		targets = lappend(targets, target);
	}
	count->aggfnoid = F_COUNT_;
	count->aggtype = INT8OID;
	count->aggstar = true;
	count->aggkind = AGGKIND_NORMAL;
	count->aggargtypes = NIL;
	targets = lappend(targets, makeTargetEntry((Expr *) count, list_length(targets) + 1, pstrdup("rows"), false));
	foreach(lc, build->columns)
	{
		AggregateColumn *column = lfirst(lc);

		targets = lappend(targets, makeTargetEntry(copyObject((Expr *) column->aggref), list_length(targets) + 1,
												   column->state->name, false));
	}
	query = restricted_level(build, keys_name, null_keys, targets);
	query->hasAggs = true;
	for (i = 1; i <= list_length(build->keys); i++)
	{
		SortGroupClause *clause = makeNode(SortGroupClause);
		TypeCacheEntry *type = lookup_type_cache(exprType(list_nth(build->keys, i - 1)),
												 TYPECACHE_EQ_OPR | TYPECACHE_LT_OPR);

		clause->tleSortGroupRef = i;
		clause->eqop = type->eq_opr;
		clause->sortop = type->lt_opr;
		query->groupClause = lappend(query->groupClause, clause);
	}
	return query_print(query);
}

/* All state rows of an algebraic node, computed from the new state. */
static char *
algebraic_rows_sql(AggregateBuild *build, const char *keys_name, uint64 null_keys)
{
	List	   *targets = copyObject(build->targets);
	Expr	   *one = (Expr *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(1), false, true);

	targets = lappend(targets, makeTargetEntry(one, list_length(targets) + 1,
											   pstrdup(ROWSET_WEIGHT_COLUMN), false));
	return group_sql(build, query_print(restricted_level(build, keys_name, null_keys, targets)), true);
}

static char *
state_rows_sql(AggregateBuild *build, const char *keys_name, uint64 null_keys)
{
	return build->algebraic ? algebraic_rows_sql(build, keys_name, null_keys)
		: recomputed_rows_sql(build, keys_name, null_keys);
}

static char *
print_recompute(ProgramStep *step, const char *keys_name, uint64 null_keys)
{
	StringInfoData sql;
	AggregateBuild *build = step->build;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT r.*, 1 AS " ROWSET_WEIGHT_COLUMN " FROM (%s) r",
					 state_rows_sql(build, keys_name, null_keys));
	return sql.data;
}

/* ---- steps ---- */

static int
add_rowset(AggregateBuild *build, const char *what)
{
	return program_add_rowset(build->compiler, program_new_rowset_name(build->compiler, what), InvalidOid);
}

static ProgramStep *
add_step(AggregateBuild *build, StepKind kind, const char *strategy)
{
	ProgramStep *step = program_add_step(build->compiler, kind, "aggregate", strategy);

	step->build = build;
	step->state = build->state;
	step->states_read = build->block->states;
	return step;
}

static int
add_replace_step(AggregateBuild *build, int keys_rowset)
{
	ProgramStep *step = add_step(build, STEP_REPLACE, "recompute affected groups");

	step_add_input(step, keys_rowset);
	step->print_recompute = print_recompute;
	return step->output = add_rowset(build, "groups");
}

/* Returns the rowsets with the state's -old +new rows. */
static List *
add_algebraic_steps(AggregateBuild *build)
{
	ProgramStep *delta = add_step(build, STEP_QUERY, "algebraic");
	ProgramStep *merge;
	bool		has_minmax = false;
	ListCell   *lc;

	join_add_inputs(build->block, delta);
	delta->print = print_group_delta;
	delta->output = add_rowset(build, "group_delta");

	merge = add_step(build, STEP_MERGE, "algebraic");
	step_add_input(merge, delta->output);
	merge->output = add_rowset(build, "groups");
	foreach(lc, build->state->columns)
		has_minmax |= ((StateColumn *) lfirst(lc))->is_minmax;
	if (!has_minmax)
		return list_make1_int(merge->output);
	merge->recompute_output = add_rowset(build, "lost_extremum");
	return list_make2_int(merge->output, add_replace_step(build, merge->recompute_output));
}

static List *
add_affected_keys_steps(AggregateBuild *build)
{
	ProgramStep *keys = add_step(build, STEP_QUERY, "affected keys");

	join_add_inputs(build->block, keys);
	keys->print = print_affected_keys;
	keys->output = add_rowset(build, "affected");
	return list_make1_int(add_replace_step(build, keys->output));
}

/* ---- the visible columns ---- */

static Node *
finals_mutator(Node *node, AggregateBuild *build)
{
	ListCell   *lc;
	int			i = 0;

	if (node == NULL)
		return NULL;
	foreach(lc, build->keys)
	{
		if (equal(lfirst(lc), node))
			return (Node *) state_var(build, list_nth(build->key_columns, i));
		i++;
	}
	if (IsA(node, Aggref))
	{
		foreach(lc, build->calls)
		{
			AggregateCall *call = lfirst(lc);

			if (equal(call->aggref, node))
				return copyObject((Node *) call->final);
		}
		elog(ERROR, "aggregate call is not among those of its level");
	}
	return expression_tree_mutator(node, finals_mutator, build);
}

/* The key of the output: the columns that show the keys as they are. */
static List *
visible_key(AggregateBuild *build, List *targets)
{
	List	   *key = NIL;

	for (int i = 1; i <= list_length(build->keys); i++)
	{
		ListCell   *lc;
		int			found = 0;

		foreach(lc, targets)
		{
			TargetEntry *target = lfirst_node(TargetEntry, lc);

			if (found == 0 && IsA(target->expr, Var) && ((Var *) target->expr)->varattno == i)
				found = target->resno;
		}
		if (found == 0)
			return NIL;
		key = lappend_int(key, found);
	}
	return key;
}

static Compiled *
add_output(AggregateBuild *build, List *rowsets)
{
	Query	   *query = build->block->query;
	List	   *targets = NIL;
	ListCell   *lc;
	Compiled   *compiled;

	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (target->resjunk)
			continue;
		targets = lappend(targets,
						  makeTargetEntry((Expr *) finals_mutator((Node *) target->expr, build),
										  list_length(targets) + 1, target->resname, false));
	}
	rename_targets(targets, target_column_names(targets));
	compiled = project_state(build->compiler, build->state, "aggregate output", rowsets, targets,
							 make_ands_implicit((Expr *) finals_mutator(query->havingQual, build)));
	compiled->key = visible_key(build, targets);
	compiled->key_is_unique = compiled->key != NIL && !expression_returns_set((Node *) targets);
	if (!compiled->key_is_unique)
		compiled->key = NIL;
	compiled->single_row = build->keys == NIL && !expression_returns_set((Node *) targets);
	return compiled;
}

Compiled *
compile_aggregate(Compiler *compiler, QueryBlock *block)
{
	AggregateBuild *build = palloc0(sizeof(AggregateBuild));
	ListCell   *lc;
	bool		changes = block->temporal != NIL;

	build->compiler = compiler;
	build->block = block;
	if (!collect_keys_and_calls(build))
		return NULL;
	foreach(lc, block->inputs)
		changes |= ((BlockInput *) lfirst(lc))->rowset >= 0;
	if (!changes)
		return compile_cannot(compiler, "grouping rows that never change has no delta rule");

	build->state = palloc0(sizeof(ProgramState));
	build->state->number = list_length(compiler->program->states) + 1;
	build->state->name = psprintf("__pgt_state_%d", build->state->number);
	build->state->nkeys = list_length(build->keys);
	build->state->is_global = build->keys == NIL;
	build->state->merges = build->algebraic;
	build->state->reads = block->states;
	add_key_columns(build);
	foreach(lc, build->calls)
	{
		if (build->algebraic)
			add_algebraic_columns(build, lfirst(lc));
		else
			add_recomputed_column(build, lfirst(lc));
	}
	build->state->fill_sql = state_rows_sql(build, NULL, 0);
	compiler->program->states = lappend(compiler->program->states, build->state);
	return add_output(build, build->algebraic ? add_algebraic_steps(build) : add_affected_keys_steps(build));
}
