/*
 * delta/aggregate_rules.c
 *     Which aggregates can be maintained from weighted deltas, and how.
 *
 * An aggregate has a rule when its value follows exactly from sums of weights and of weighted values: counts, sums, averages and variances of
 * exact types, and and or of booleans.  Float sums do not: adding and taking away again is not exact, so their groups are computed again.  min and max
 * follow inserts, and deletes of anything but the extremum; a group that lost it is computed again.
 */
#include "postgres.h"

#include "aggregate_rules.h"
#include "catalog/namespace.h"
#include "catalog/pg_aggregate_d.h"
#include "catalog/pg_namespace_d.h"
#include "catalog/pg_type_d.h"
#include "nodes/nodeFuncs.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

static AggregateRule
sum_rule(Oid type, bool average)
{
	switch (type)
	{
		case INT2OID:
		case INT4OID:
			return average ? AGGREGATE_AVG_INTEGER : AGGREGATE_SUM_INTEGER;
		case INT8OID:
			return average ? AGGREGATE_AVG_BIGINT : AGGREGATE_SUM_BIGINT;
		case NUMERICOID:
			return average ? AGGREGATE_AVG_NUMERIC : AGGREGATE_SUM_NUMERIC;
		case INTERVALOID:
			return average ? AGGREGATE_AVG_INTERVAL : AGGREGATE_SUM_INTERVAL;
		case MONEYOID:
			return average ? AGGREGATE_RECOMPUTE : AGGREGATE_SUM_MONEY;
		default:
			return AGGREGATE_RECOMPUTE;
	}
}

static AggregateRule
variance_rule(const char *name, Oid type)
{
	if (type != INT2OID && type != INT4OID && type != INT8OID && type != NUMERICOID)
		return AGGREGATE_RECOMPUTE;
	if (strcmp(name, "var_pop") == 0)
		return AGGREGATE_VAR_POP;
	if (strcmp(name, "var_samp") == 0 || strcmp(name, "variance") == 0)
		return AGGREGATE_VAR_SAMP;
	if (strcmp(name, "stddev_pop") == 0)
		return AGGREGATE_STDDEV_POP;
	if (strcmp(name, "stddev_samp") == 0 || strcmp(name, "stddev") == 0)
		return AGGREGATE_STDDEV_SAMP;
	return AGGREGATE_RECOMPUTE;
}

static bool
is_of_extension(Aggref *aggref)
{
	return get_func_namespace(aggref->aggfnoid) == get_namespace_oid("pgtrickle", false);
}

/* Those that canonical_image.c puts in place of keys, min() and max(). */
static AggregateRule
extension_rule(Aggref *aggref)
{
	const char *name = get_func_name(aggref->aggfnoid);

	if (strcmp(name, "least_image") == 0)
		return AGGREGATE_LEAST_IMAGE;
	if (strcmp(name, "min_exact") == 0)
		return AGGREGATE_MIN;
	if (strcmp(name, "max_exact") == 0)
		return AGGREGATE_MAX;
	return AGGREGATE_RECOMPUTE;
}

static AggregateRule
builtin_rule(Aggref *aggref)
{
	const char *name;
	Oid			type;

	name = get_func_name(aggref->aggfnoid);
	if (aggref->aggstar)
		return strcmp(name, "count") == 0 ? AGGREGATE_COUNT_ROWS : AGGREGATE_RECOMPUTE;
	if (list_length(aggref->args) != 1)
		return AGGREGATE_RECOMPUTE;
	type = exprType((Node *) linitial_node(TargetEntry, aggref->args)->expr);
	if (strcmp(name, "count") == 0)
		return AGGREGATE_COUNT;
	if (strcmp(name, "sum") == 0)
		return sum_rule(type, false);
	if (strcmp(name, "avg") == 0)
		return sum_rule(type, true);
	if ((strcmp(name, "min") == 0 || strcmp(name, "max") == 0) &&
		OidIsValid(aggregate_compare_function(aggref)))
		return strcmp(name, "min") == 0 ? AGGREGATE_MIN : AGGREGATE_MAX;
	if (strcmp(name, "bool_and") == 0 || strcmp(name, "every") == 0)
		return AGGREGATE_BOOL_AND;
	if (strcmp(name, "bool_or") == 0)
		return AGGREGATE_BOOL_OR;
	return variance_rule(name, type);
}

/* To these it makes no difference whether a value comes once or several times. */
static bool
ignores_distinct(AggregateRule rule)
{
	return rule == AGGREGATE_MIN || rule == AGGREGATE_MAX || rule == AGGREGATE_BOOL_AND || rule == AGGREGATE_BOOL_OR;
}

AggregateRule
aggregate_rule(Aggref *aggref)
{
	AggregateRule rule;

	if (is_of_extension(aggref))
		return extension_rule(aggref);
	if (get_func_namespace(aggref->aggfnoid) != PG_CATALOG_NAMESPACE || aggref->aggkind != AGGKIND_NORMAL ||
		aggref->aggorder != NIL || list_length(aggref->args) > 1)
		return AGGREGATE_RECOMPUTE;
	rule = builtin_rule(aggref);
	return aggref->aggdistinct != NIL && !ignores_distinct(rule) ? AGGREGATE_RECOMPUTE : rule;
}

Oid
aggregate_compare_function(Aggref *aggref)
{
	Oid			type = exprType((Node *) linitial_node(TargetEntry, aggref->args)->expr);
	Oid			any[2] = {ANYELEMENTOID, ANYELEMENTOID};

	if (is_of_extension(aggref))
		return LookupFuncName(list_make2(makeString("pgtrickle"), makeString("compare_exact")), 2, any, false);
	return lookup_type_cache(type, TYPECACHE_CMP_PROC)->cmp_proc;
}
