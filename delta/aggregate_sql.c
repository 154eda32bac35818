/*
 * delta/aggregate_sql.c
 *     The statements of a grouping node: the group delta, grouped or row by row, the affected keys, and groups computed again.
 *
 * The group delta and the algebraic computation of groups are the same text over different rows: the terms of the delta with their
 * weights, or the new state with weight 1.
 */
#include "aggregate.h"

#include "catalog/pg_aggregate.h"
#include "catalog/pg_type_d.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "query.h"
#include "rowset.h"
#include "utils/fmgroids.h"
#include "utils/typcache.h"

/* Rows of a state, grouped; or what a delta adds to it, grouped or each row by itself. */
typedef enum GroupForm
{
	GROUP_STATE,
	GROUP_DELTA,
	GROUP_ROW_DELTAS
} GroupForm;

/* SELECT keys, rows, columns FROM (from) t GROUP BY keys, without what the form does not have. */
static char *
group_sql(AggregateBuild *build, const char *from, GroupForm form)
{
	StringInfoData sql;
	ListCell   *lc;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (int i = 1; i <= list_length(build->keys); i++)
		appendStringInfo(&sql, "t.k%d, ", i);
	appendStringInfo(&sql, "%s AS rows", form == GROUP_ROW_DELTAS ? "(t.__w)::bigint" : "COALESCE(sum(t.__w), 0)");
	foreach(lc, build->columns)
	{
		AggregateColumn *column = lfirst(lc);

		appendStringInfo(&sql, ",\n\t%s AS %s", form == GROUP_ROW_DELTAS ? column->row_sql : column->delta_sql, column->state->name);
	}
	foreach(lc, build->columns)
	{
		AggregateColumn *column = lfirst(lc);

		if (column->gone_sql != NULL && form == GROUP_DELTA)
			appendStringInfo(&sql, ",\n\t%s AS %s", column->gone_sql, column->state->delta_gone_name);
	}
	if (form != GROUP_STATE)
		appendStringInfoString(&sql, ", 1 AS " ROWSET_WEIGHT_COLUMN);
	appendStringInfo(&sql, "\nFROM (%s) t", from);
	for (int i = 1; i <= list_length(build->keys) && form != GROUP_ROW_DELTAS; i++)
		appendStringInfo(&sql, "%s t.k%d", i == 1 ? "\nGROUP BY" : ",", i);
	return sql.data;
}

static char *
delta_sql(ProgramStep *step, uint64 nonempty, GroupForm form)
{
	AggregateBuild *build = step->build;

	return group_sql(build, join_delta_sql(build->block, join_changed_inputs(build->block, step, nonempty), build->targets), form);
}

char *
aggregate_print_group_delta(ProgramStep *step, uint64 nonempty)
{
	return delta_sql(step, nonempty, GROUP_DELTA);
}

/* The same without grouping: each row as the delta of its group. */
char *
aggregate_print_row_deltas(ProgramStep *step, uint64 nonempty)
{
	return delta_sql(step, nonempty, GROUP_ROW_DELTAS);
}

bool
aggregate_has_row_deltas(AggregateBuild *build)
{
	ListCell   *lc;

	/* without keys there is a group delta even where there are no rows */
	if (build->keys == NIL)
		return false;
	foreach(lc, build->columns)
	{
		if (((AggregateColumn *) lfirst(lc))->row_sql == NULL)
			return false;
	}
	return true;
}

/* The distinct keys of the delta.  Without keys: one empty row. */
char *
aggregate_print_affected_keys(ProgramStep *step, uint64 nonempty)
{
	AggregateBuild *build = step->build;
	List	   *key_targets = list_copy_head(build->targets, list_length(build->keys));
	char	   *terms = join_delta_sql(build->block, join_changed_inputs(build->block, step, nonempty), key_targets);
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
	return group_sql(build, query_print(restricted_level(build, keys_name, null_keys, targets)), GROUP_STATE);
}

static char *
state_rows_sql(AggregateBuild *build, const char *keys_name, uint64 null_keys)
{
	return build->algebraic ? algebraic_rows_sql(build, keys_name, null_keys)
		: recomputed_rows_sql(build, keys_name, null_keys);
}

char *
aggregate_print_recompute(ProgramStep *step, const char *keys_name, uint64 null_keys)
{
	StringInfoData sql;
	AggregateBuild *build = step->build;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT r.*, 1 AS " ROWSET_WEIGHT_COLUMN " FROM (%s) r",
					 state_rows_sql(build, keys_name, null_keys));
	return sql.data;
}

char *
aggregate_fill_sql(AggregateBuild *build)
{
	return state_rows_sql(build, NULL, 0);
}
