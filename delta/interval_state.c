/*
 * delta/interval_state.c
 *     SQL functions behind sum() and avg() of intervals: a mergeable state and its values.
 *
 * An interval is three integers (months, days, microseconds) that are added one by one, so weighted sums are exact; they are kept in 64 bits and must
 * fit into an interval only when they are shown.  From 17 on an interval can be infinite: these are counted.  As a bytea:
 *
 *     int64 rows, months, days, microseconds, positive infinity, negative infinity
 */
#include "postgres.h"

#include "common/int.h"
#include "compat.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(pgtrickle_interval_state_step);
PG_FUNCTION_INFO_V1(pgtrickle_interval_state_end);
PG_FUNCTION_INFO_V1(pgtrickle_interval_state_merge);
PG_FUNCTION_INFO_V1(pgtrickle_interval_state_sum);
PG_FUNCTION_INFO_V1(pgtrickle_interval_state_avg);

typedef struct IntervalState
{
	int64		rows;
	int64		months;
	int64		days;
	int64		microseconds;
	int64		positive_infinity;
	int64		negative_infinity;
} IntervalState;

static void
out_of_range(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
			 errmsg("interval out of range")));
}

static void
add_weighted(int64 *sum, int64 value, int64 weight)
{
	int64		product;

	if (pg_mul_s64_overflow(value, weight, &product) || pg_add_s64_overflow(*sum, product, sum))
		out_of_range();
}

static void
add_interval(IntervalState *state, Interval *value, int32 weight)
{
	state->rows += weight;
#if PG_VERSION_NUM >= 170000
	if (INTERVAL_NOT_FINITE(value))
	{
		if (INTERVAL_IS_NOEND(value))
			state->positive_infinity += weight;
		else
			state->negative_infinity += weight;
		return;
	}
#endif
	add_weighted(&state->months, value->month, weight);
	add_weighted(&state->days, value->day, weight);
	add_weighted(&state->microseconds, value->time, weight);
}

static IntervalState
state_from_bytea(bytea *packed)
{
	IntervalState state;

	if (VARSIZE_ANY_EXHDR(packed) != sizeof(IntervalState))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("invalid state of a sum of intervals")));
	memcpy(&state, VARDATA_ANY(packed), sizeof(IntervalState));
	return state;
}

static bytea *
state_to_bytea(IntervalState *state)
{
	bytea	   *packed = palloc(VARHDRSZ + sizeof(IntervalState));

	SET_VARSIZE(packed, VARHDRSZ + sizeof(IntervalState));
	memcpy(VARDATA(packed), state, sizeof(IntervalState));
	return packed;
}

/* interval_state_step(internal, interval, integer) */
Datum
pgtrickle_interval_state_step(PG_FUNCTION_ARGS)
{
	MemoryContext aggregate_context;
	IntervalState *state = PG_ARGISNULL(0) ? NULL : (IntervalState *) PG_GETARG_POINTER(0);

	if (!AggCheckCallContext(fcinfo, &aggregate_context))
		elog(ERROR, "interval_state_step called outside of an aggregate");
	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
	{
		if (state == NULL)
			PG_RETURN_NULL();
		PG_RETURN_POINTER(state);
	}
	if (state == NULL)
		state = MemoryContextAllocZero(aggregate_context, sizeof(IntervalState));
	add_interval(state, PG_GETARG_INTERVAL_P(1), PG_GETARG_INT32(2));
	PG_RETURN_POINTER(state);
}

/* interval_state_end(internal): the state as a bytea, NULL when no row had a value. */
Datum
pgtrickle_interval_state_end(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_BYTEA_P(state_to_bytea((IntervalState *) PG_GETARG_POINTER(0)));
}

/* interval_state_merge(bytea, bytea): the state of both bags together. */
Datum
pgtrickle_interval_state_merge(PG_FUNCTION_ARGS)
{
	IntervalState a = state_from_bytea(PG_GETARG_BYTEA_PP(0));
	IntervalState b = state_from_bytea(PG_GETARG_BYTEA_PP(1));

	a.rows += b.rows;
	a.positive_infinity += b.positive_infinity;
	a.negative_infinity += b.negative_infinity;
	add_weighted(&a.months, b.months, 1);
	add_weighted(&a.days, b.days, 1);
	add_weighted(&a.microseconds, b.microseconds, 1);
	PG_RETURN_BYTEA_P(state_to_bytea(&a));
}

static Interval *
state_total(IntervalState *state)
{
	Interval   *total = palloc0(sizeof(Interval));

#if PG_VERSION_NUM >= 170000
	if (state->positive_infinity > 0 && state->negative_infinity > 0)
		out_of_range();
	if (state->positive_infinity > 0)
	{
		INTERVAL_NOEND(total);
		return total;
	}
	if (state->negative_infinity > 0)
	{
		INTERVAL_NOBEGIN(total);
		return total;
	}
#endif
	if (state->months != (int32) state->months || state->days != (int32) state->days)
		out_of_range();
	total->month = (int32) state->months;
	total->day = (int32) state->days;
	total->time = state->microseconds;
	return total;
}

Datum
pgtrickle_interval_state_sum(PG_FUNCTION_ARGS)
{
	IntervalState state = state_from_bytea(PG_GETARG_BYTEA_PP(0));

	if (state.rows == 0)
		PG_RETURN_NULL();
	PG_RETURN_INTERVAL_P(state_total(&state));
}

/* The division that avg() does. */
Datum
pgtrickle_interval_state_avg(PG_FUNCTION_ARGS)
{
	IntervalState state = state_from_bytea(PG_GETARG_BYTEA_PP(0));
	Interval   *total;

	if (state.rows == 0)
		PG_RETURN_NULL();
	total = state_total(&state);
#if PG_VERSION_NUM >= 170000
	if (INTERVAL_NOT_FINITE(total))
		PG_RETURN_INTERVAL_P(total);
#endif
	PG_RETURN_DATUM(DirectFunctionCall2(interval_div, IntervalPGetDatum(total), Float8GetDatum((double) state.rows)));
}
