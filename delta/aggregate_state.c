/*
 * delta/aggregate_state.c
 *     The columns of a grouping node's state: the keys, the number of rows, and what each aggregate call needs.
 *
 * A call with a rule gets columns that are sums over weighted rows (or an extremum), shared by calls that need the same one, and an expression
 * over them that yields its value; without a rule, when one call of the level has none, the column is the value itself.
 */
#include "aggregate.h"

#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

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

Expr *
aggregate_state_var(AggregateBuild *build, StateColumn *column)
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

void
aggregate_add_keys(AggregateBuild *build)
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

/* A merge column with this group-delta expression (and that of a single row, if there is one), shared by calls that need the same one. */
static StateColumn *
merge_column(AggregateBuild *build, char *delta_sql, char *row_sql, Oid type, Oid merge_function)
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
	column->row_sql = row_sql;
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

/* How many rows fulfil the condition. */
static StateColumn *
rows_with_column(AggregateBuild *build, const char *condition)
{
	return merge_column(build, psprintf("COALESCE(sum(t.__w) FILTER (WHERE %s), 0)", condition),
						psprintf("CASE WHEN %s THEN t.__w ELSE 0 END::bigint", condition), INT8OID, F_INT8PL);
}

static StateColumn *
count_column(AggregateBuild *build, const char *argument)
{
	return rows_with_column(build, psprintf("t.%s IS DISTINCT FROM NULL", argument));
}

static void
add_minmax_column(AggregateBuild *build, AggregateCall *call, const char *argument)
{
	bool		is_max = call->rule == AGGREGATE_MAX;
	const char *function = quote_qualified_identifier(get_namespace_name(get_func_namespace(call->aggref->aggfnoid)),
													  get_func_name(call->aggref->aggfnoid));
	Node	   *expr = (Node *) linitial_node(TargetEntry, call->aggref->args)->expr;
	StateColumn *state = merge_column(build,
									  psprintf("%s(t.%s) FILTER (WHERE t.__w > 0)", function, argument),
									  NULL, call->aggref->aggtype, InvalidOid);

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
	call->final = aggregate_state_var(build, state);
}

static void
add_image_column(AggregateBuild *build, AggregateCall *call, const char *argument)
{
	Aggref	   *aggref = call->aggref;
	StateColumn *images = merge_column(build, psprintf("pgtrickle.image_counts(t.%s, t.__w)", argument), NULL, BYTEAOID,
									   extension_function("image_counts_merge", 2, BYTEAOID, BYTEAOID));
	Expr	   *of_type = (Expr *) makeNullConst(aggref->aggtype, -1, aggref->aggcollid);

	call->final = (Expr *) makeFuncExpr(extension_function("image_counts_least", 2, BYTEAOID, ANYELEMENTOID), aggref->aggtype,
										list_make2(aggregate_state_var(build, images), of_type),
										aggref->aggcollid, aggref->inputcollid, COERCE_EXPLICIT_CALL);
}

static StateColumn *
numeric_state_column(AggregateBuild *build, char *value)
{
	return merge_column(build, psprintf("pgtrickle.numeric_state(%s, t.__w)", value), NULL, BYTEAOID,
						extension_function("numeric_state_merge", 2, BYTEAOID, BYTEAOID));
}

/* The sum, which sum() and avg() may share, and the sum of squares. */
static void
add_variance_columns(AggregateBuild *build, AggregateCall *call, const char *argument)
{
	Oid			type = exprType((Node *) linitial_node(TargetEntry, call->aggref->args)->expr);
	char	   *value = type == NUMERICOID ? psprintf("t.%s", argument) : psprintf("(t.%s)::numeric", argument);
	StateColumn *sum = numeric_state_column(build, value);
	StateColumn *squares = numeric_state_column(build, psprintf("%s * %s", value, value));
	const char *function = call->rule == AGGREGATE_VAR_POP ? "numeric_state_var_pop" :
		call->rule == AGGREGATE_VAR_SAMP ? "numeric_state_var_samp" :
		call->rule == AGGREGATE_STDDEV_POP ? "numeric_state_stddev_pop" : "numeric_state_stddev_samp";

	call->final = final_call(function, NUMERICOID, aggregate_state_var(build, sum), aggregate_state_var(build, squares));
}

static void
add_bool_columns(AggregateBuild *build, AggregateCall *call, const char *argument)
{
	StateColumn *trues = rows_with_column(build, psprintf("t.%s", argument));
	StateColumn *falses = rows_with_column(build, psprintf("NOT t.%s", argument));

	call->final = final_call(call->rule == AGGREGATE_BOOL_AND ? "bool_and_of" : "bool_or_of", BOOLOID,
							 aggregate_state_var(build, trues), aggregate_state_var(build, falses));
}

static void
add_algebraic_columns(AggregateBuild *build, AggregateCall *call)
{
	char	   *argument;
	StateColumn *sum;

	if (call->rule == AGGREGATE_COUNT_ROWS && call->aggref->aggfilter == NULL)
	{
		call->final = aggregate_state_var(build, rows_column(build));
		return;
	}
	argument = argument_column(build, call->aggref);
	switch (call->rule)
	{
		case AGGREGATE_COUNT_ROWS:
		case AGGREGATE_COUNT:
			call->final = aggregate_state_var(build, count_column(build, argument));
			break;
		case AGGREGATE_SUM_INTEGER:
		case AGGREGATE_AVG_INTEGER:
			sum = merge_column(build, psprintf("COALESCE(pgtrickle.weighted_sum(t.%s, t.__w), 0)", argument),
							   psprintf("COALESCE(pgtrickle.weighted_sum_step(0, t.%s, t.__w), 0)", argument),
							   INT8OID, F_INT8PL);
			call->final = final_call(call->rule == AGGREGATE_SUM_INTEGER ? "sum_or_null" : "avg_or_null",
									 call->aggref->aggtype, aggregate_state_var(build, sum),
									 aggregate_state_var(build, count_column(build, argument)));
			break;
		case AGGREGATE_SUM_BIGINT:
		case AGGREGATE_AVG_BIGINT:
			sum = merge_column(build, psprintf("COALESCE(sum((t.%s)::numeric * (t.__w)::numeric), 0)", argument),
							   psprintf("COALESCE((t.%s)::numeric * (t.__w)::numeric, 0)", argument),
							   NUMERICOID, F_NUMERIC_ADD);
			call->final = final_call(call->rule == AGGREGATE_SUM_BIGINT ? "sum_or_null" : "avg_or_null",
									 call->aggref->aggtype, aggregate_state_var(build, sum),
									 aggregate_state_var(build, count_column(build, argument)));
			break;
		case AGGREGATE_SUM_NUMERIC:
		case AGGREGATE_AVG_NUMERIC:
			sum = numeric_state_column(build, psprintf("t.%s", argument));
			call->final = final_call(call->rule == AGGREGATE_SUM_NUMERIC ? "numeric_state_sum" : "numeric_state_avg",
									 NUMERICOID, aggregate_state_var(build, sum), NULL);
			break;
		case AGGREGATE_SUM_MONEY:
			sum = merge_column(build, psprintf("pgtrickle.weighted_sum(t.%s, t.__w)", argument), NULL, MONEYOID, F_CASH_PL);
			call->final = final_call("sum_or_null", MONEYOID, aggregate_state_var(build, sum),
									 aggregate_state_var(build, count_column(build, argument)));
			break;
		case AGGREGATE_SUM_INTERVAL:
		case AGGREGATE_AVG_INTERVAL:
			sum = merge_column(build, psprintf("pgtrickle.interval_state(t.%s, t.__w)", argument), NULL, BYTEAOID,
							   extension_function("interval_state_merge", 2, BYTEAOID, BYTEAOID));
			call->final = final_call(call->rule == AGGREGATE_SUM_INTERVAL ? "interval_state_sum" : "interval_state_avg",
									 INTERVALOID, aggregate_state_var(build, sum), NULL);
			break;
		case AGGREGATE_VAR_POP:
		case AGGREGATE_VAR_SAMP:
		case AGGREGATE_STDDEV_POP:
		case AGGREGATE_STDDEV_SAMP:
			add_variance_columns(build, call, argument);
			break;
		case AGGREGATE_BOOL_AND:
		case AGGREGATE_BOOL_OR:
			add_bool_columns(build, call, argument);
			break;
		case AGGREGATE_MIN:
		case AGGREGATE_MAX:
			add_minmax_column(build, call, argument);
			break;
		case AGGREGATE_LEAST_IMAGE:
			add_image_column(build, call, argument);
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
	call->final = aggregate_state_var(build, column->state);
}

void
aggregate_add_call(AggregateBuild *build, AggregateCall *call)
{
	if (build->algebraic)
		add_algebraic_columns(build, call);
	else
		add_recomputed_column(build, call);
}
