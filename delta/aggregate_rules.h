/*
 * delta/aggregate_rules.h
 *     Which aggregates can be maintained from weighted deltas, and how.
 */
#ifndef PGTRICKLE_AGGREGATE_RULES_H
#define PGTRICKLE_AGGREGATE_RULES_H

#include "postgres.h"

#include "nodes/primnodes.h"

typedef enum AggregateRule
{
	AGGREGATE_RECOMPUTE,		/* no rule: the affected groups are computed again */
	AGGREGATE_COUNT_ROWS,		/* count(*) */
	AGGREGATE_COUNT,			/* count(x) */
	AGGREGATE_SUM_INTEGER,		/* sum(smallint or integer), result bigint */
	AGGREGATE_SUM_BIGINT,		/* sum(bigint), result numeric */
	AGGREGATE_AVG_INTEGER,		/* avg(smallint or integer) */
	AGGREGATE_AVG_BIGINT,		/* avg(bigint) */
	AGGREGATE_SUM_NUMERIC,
	AGGREGATE_AVG_NUMERIC,
	AGGREGATE_SUM_MONEY,
	AGGREGATE_SUM_INTERVAL,
	AGGREGATE_AVG_INTERVAL,
	AGGREGATE_VAR_POP,			/* the next four of integers and numeric */
	AGGREGATE_VAR_SAMP,
	AGGREGATE_STDDEV_POP,
	AGGREGATE_STDDEV_SAMP,
	AGGREGATE_BOOL_AND,
	AGGREGATE_BOOL_OR,
	AGGREGATE_MIN,
	AGGREGATE_MAX,
	AGGREGATE_LEAST_IMAGE		/* pgtrickle.least_image(): one of several equal values */
} AggregateRule;

/* The rule for a call; FILTER does not matter, DISTINCT and ORDER BY inside mean AGGREGATE_RECOMPUTE. */
extern AggregateRule aggregate_rule(Aggref *aggref);

/*
 * For min and max: the three-way comparison function of the type's default btree order; that of min_exact and max_exact is polymorphic
 * and also looks at images.
 */
extern Oid	aggregate_compare_function(Aggref *aggref);

#endif							/* PGTRICKLE_AGGREGATE_RULES_H */
