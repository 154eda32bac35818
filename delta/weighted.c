/*
 * delta/weighted.c
 *     SQL functions behind the algebraic aggregates: weighted sums, mergeable states, final values.
 *
 * A numeric sum must show the scale that the server's own sum would show: the largest scale among the rows that are there now.
 * So the state of a numeric sum keeps, beside the sum, how many rows have which scale, and how many are NaN or infinite; all of these
 * are plain counts, which weighted deltas keep exactly.  It crosses SQL as a bytea (the columns of a state table):
 *
 *     int64 rows, nan, positive infinity, negative infinity; int32 n; n x (int32 scale, int64 rows); the sum as a numeric
 */
#include "postgres.h"

#include "common/int.h"
#include "compat.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "weighted.h"

PG_FUNCTION_INFO_V1(pgtrickle_weighted_sum_step);
PG_FUNCTION_INFO_V1(pgtrickle_numeric_state_step);
PG_FUNCTION_INFO_V1(pgtrickle_numeric_state_end);
PG_FUNCTION_INFO_V1(pgtrickle_numeric_state_merge);
PG_FUNCTION_INFO_V1(pgtrickle_numeric_state_sum);
PG_FUNCTION_INFO_V1(pgtrickle_numeric_state_avg);
PG_FUNCTION_INFO_V1(pgtrickle_sum_or_null_bigint);
PG_FUNCTION_INFO_V1(pgtrickle_sum_or_null_numeric);
PG_FUNCTION_INFO_V1(pgtrickle_avg_or_null_bigint);
PG_FUNCTION_INFO_V1(pgtrickle_avg_or_null_numeric);
PG_FUNCTION_INFO_V1(pgtrickle_bool_and_of);
PG_FUNCTION_INFO_V1(pgtrickle_bool_or_of);

#define SCALES_MAX 64			/* distinct scales in one sum; more than that is an error */

typedef struct ScaleCount
{
	int32		scale;
	int64		rows;
} ScaleCount;

typedef struct NumericState
{
	int64		rows;			/* not NULL */
	int64		nan;
	int64		positive_infinity;
	int64		negative_infinity;
	int			nscales;
	ScaleCount	scales[SCALES_MAX];
	Numeric		sum;			/* of the finite ones; NULL: zero */
} NumericState;

/* ---- integers ---- */

/* weighted_sum_step(bigint sum, bigint value, integer weight): sum + value * weight; strict. */
Datum
pgtrickle_weighted_sum_step(PG_FUNCTION_ARGS)
{
	int64		sum = PG_GETARG_INT64(0);
	int64		product;

	if (pg_mul_s64_overflow(PG_GETARG_INT64(1), PG_GETARG_INT32(2), &product) ||
		pg_add_s64_overflow(sum, product, &sum))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("bigint out of range")));
	PG_RETURN_INT64(sum);
}

/* sum_or_null(sum, rows): what sum() shows; NULL when no row has a value. */
Datum
pgtrickle_sum_or_null_bigint(PG_FUNCTION_ARGS)
{
	if (PG_GETARG_INT64(1) == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(PG_GETARG_INT64(0));
}

Datum
pgtrickle_sum_or_null_numeric(PG_FUNCTION_ARGS)
{
	if (PG_GETARG_INT64(1) == 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(PG_GETARG_DATUM(0));
}

/* avg_or_null(sum, rows): the division that avg() of an integer type does. */
Datum
pgtrickle_avg_or_null_bigint(PG_FUNCTION_ARGS)
{
	if (PG_GETARG_INT64(1) == 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(DirectFunctionCall2(numeric_div,
										NumericGetDatum(int64_to_numeric(PG_GETARG_INT64(0))),
										NumericGetDatum(int64_to_numeric(PG_GETARG_INT64(1)))));
}

Datum
pgtrickle_avg_or_null_numeric(PG_FUNCTION_ARGS)
{
	if (PG_GETARG_INT64(1) == 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(DirectFunctionCall2(numeric_div, PG_GETARG_DATUM(0),
										NumericGetDatum(int64_to_numeric(PG_GETARG_INT64(1)))));
}

/* ---- booleans ---- */

/* bool_and_of(trues, falses): what bool_and() shows for so many of them. */
Datum
pgtrickle_bool_and_of(PG_FUNCTION_ARGS)
{
	if (PG_GETARG_INT64(0) + PG_GETARG_INT64(1) == 0)
		PG_RETURN_NULL();
	PG_RETURN_BOOL(PG_GETARG_INT64(1) == 0);
}

Datum
pgtrickle_bool_or_of(PG_FUNCTION_ARGS)
{
	if (PG_GETARG_INT64(0) + PG_GETARG_INT64(1) == 0)
		PG_RETURN_NULL();
	PG_RETURN_BOOL(PG_GETARG_INT64(0) > 0);
}

/* ---- numeric ---- */

static Numeric
add_numerics(Numeric a, Numeric b)
{
	if (a == NULL)
		return b;
	if (b == NULL)
		return a;
	return DatumGetNumeric(DirectFunctionCall2(numeric_add, NumericGetDatum(a), NumericGetDatum(b)));
}

static void
add_scale(NumericState *state, int32 scale, int64 rows)
{
	int			i = 0;

	while (i < state->nscales && state->scales[i].scale != scale)
		i++;
	if (i == state->nscales)
	{
		if (i == SCALES_MAX)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("a sum of numeric values with more than %d different scales cannot be maintained",
							SCALES_MAX),
					 errhint("Cast the values to numeric with a fixed scale.")));
		state->scales[i].scale = scale;
		state->scales[i].rows = 0;
		state->nscales++;
	}
	state->scales[i].rows += rows;
	if (state->scales[i].rows == 0)
		state->scales[i] = state->scales[--state->nscales];
}

static NumericState *
state_from_bytea(bytea *packed)
{
	NumericState *state = palloc0(sizeof(NumericState));
	const char *at = VARDATA_ANY(packed);
	Size		left = VARSIZE_ANY_EXHDR(packed);
	int64		counts[4];
	int32		n;
	Size		head = sizeof(counts) + sizeof(n);

	if (left < head)
		goto corrupt;
	memcpy(counts, at, sizeof(counts));
	memcpy(&n, at + sizeof(counts), sizeof(n));
	if (n < 0 || n > SCALES_MAX || left < head + n * (sizeof(int32) + sizeof(int64)))
		goto corrupt;
	state->rows = counts[0];
	state->nan = counts[1];
	state->positive_infinity = counts[2];
	state->negative_infinity = counts[3];
	state->nscales = n;
	at += head;
	left -= head;
	for (int i = 0; i < n; i++)
	{
		memcpy(&state->scales[i].scale, at, sizeof(int32));
		memcpy(&state->scales[i].rows, at + sizeof(int32), sizeof(int64));
		at += sizeof(int32) + sizeof(int64);
		left -= sizeof(int32) + sizeof(int64);
	}
	if (left > 0)
	{
		/* copied for alignment; a numeric's length is in its header */
		char	   *copy = palloc(left);

		memcpy(copy, at, left);
		if (left < VARHDRSZ || VARSIZE(copy) != left)
			goto corrupt;
		state->sum = (Numeric) copy;
	}
	return state;

corrupt:
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("invalid state of a numeric sum")));
	return NULL;
}

static bytea *
state_to_bytea(NumericState *state)
{
	Size		sum_size = state->sum ? VARSIZE(state->sum) : 0;
	Size		size = VARHDRSZ + 4 * sizeof(int64) + sizeof(int32) +
		state->nscales * (sizeof(int32) + sizeof(int64)) + sum_size;
	bytea	   *packed = palloc(size);
	char	   *at = VARDATA(packed);
	int64		counts[4] = {state->rows, state->nan, state->positive_infinity, state->negative_infinity};
	int32		n = state->nscales;

	SET_VARSIZE(packed, size);
	memcpy(at, counts, sizeof(counts));
	memcpy(at + sizeof(counts), &n, sizeof(n));
	at += sizeof(counts) + sizeof(n);
	for (int i = 0; i < n; i++)
	{
		memcpy(at, &state->scales[i].scale, sizeof(int32));
		memcpy(at + sizeof(int32), &state->scales[i].rows, sizeof(int64));
		at += sizeof(int32) + sizeof(int64);
	}
	if (sum_size > 0)
		memcpy(at, state->sum, sum_size);
	return packed;
}

static void
add_special_value(NumericState *state, Numeric value, int32 weight)
{
	if (numeric_is_nan(value))
		state->nan += weight;
	else
	{
		Numeric		zero = int64_to_numeric(0);
		bool		positive = DatumGetBool(DirectFunctionCall2(numeric_gt, NumericGetDatum(value),
																NumericGetDatum(zero)));

		if (positive)
			state->positive_infinity += weight;
		else
			state->negative_infinity += weight;
	}
}

/*
 * numeric_state_step(internal, numeric, integer): the transition function.  Only the sum is replaced from row to row, in the
 * aggregate's own context.
 */
Datum
pgtrickle_numeric_state_step(PG_FUNCTION_ARGS)
{
	MemoryContext aggregate_context;
	MemoryContext oldcontext;
	NumericState *state = PG_ARGISNULL(0) ? NULL : (NumericState *) PG_GETARG_POINTER(0);
	Numeric		value;
	Numeric		sum;
	int32		weight;

	if (!AggCheckCallContext(fcinfo, &aggregate_context))
		elog(ERROR, "numeric_state_step called outside of an aggregate");
	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
	{
		if (state == NULL)
			PG_RETURN_NULL();
		PG_RETURN_POINTER(state);
	}
	if (state == NULL)
		state = MemoryContextAllocZero(aggregate_context, sizeof(NumericState));
	value = PG_GETARG_NUMERIC(1);
	weight = PG_GETARG_INT32(2);
	state->rows += weight;
	if (numeric_is_nan(value) || numeric_is_inf(value))
	{
		add_special_value(state, value, weight);
		PG_RETURN_POINTER(state);
	}
	add_scale(state, DatumGetInt32(DirectFunctionCall1(numeric_scale, NumericGetDatum(value))), weight);
	if (weight == -1)
		value = DatumGetNumeric(DirectFunctionCall1(numeric_uminus, NumericGetDatum(value)));
	else if (weight != 1)
		value = DatumGetNumeric(DirectFunctionCall2(numeric_mul, NumericGetDatum(value),
													NumericGetDatum(int64_to_numeric(weight))));
	sum = add_numerics(state->sum, value);
	oldcontext = MemoryContextSwitchTo(aggregate_context);
	if (state->sum != NULL)
		pfree(state->sum);
	state->sum = DatumGetNumericCopy(NumericGetDatum(sum));
	MemoryContextSwitchTo(oldcontext);
	PG_RETURN_POINTER(state);
}

/* numeric_state_end(internal): the state as a bytea, NULL when no row had a value. */
Datum
pgtrickle_numeric_state_end(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_BYTEA_P(state_to_bytea((NumericState *) PG_GETARG_POINTER(0)));
}

/* numeric_state_merge(bytea, bytea): the state of both bags together. */
Datum
pgtrickle_numeric_state_merge(PG_FUNCTION_ARGS)
{
	NumericState *a = state_from_bytea(PG_GETARG_BYTEA_PP(0));
	NumericState *b = state_from_bytea(PG_GETARG_BYTEA_PP(1));

	a->rows += b->rows;
	a->nan += b->nan;
	a->positive_infinity += b->positive_infinity;
	a->negative_infinity += b->negative_infinity;
	for (int i = 0; i < b->nscales; i++)
		add_scale(a, b->scales[i].scale, b->scales[i].rows);
	a->sum = add_numerics(a->sum, b->sum);
	PG_RETURN_BYTEA_P(state_to_bytea(a));
}

static Numeric
special_numeric(const char *name)
{
	return DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(name),
											   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

/* What sum() shows: NULL, NaN, an infinity, or the sum with the largest scale of the rows that are there. */
static Numeric
state_total(NumericState *state)
{
	int32		scale = 0;

	if (state->rows == 0)
		return NULL;
	if (state->nan > 0 || (state->positive_infinity > 0 && state->negative_infinity > 0))
		return special_numeric("NaN");
	if (state->positive_infinity > 0)
		return special_numeric("Infinity");
	if (state->negative_infinity > 0)
		return special_numeric("-Infinity");
	for (int i = 0; i < state->nscales; i++)
		scale = Max(scale, state->scales[i].scale);
	return DatumGetNumeric(DirectFunctionCall2(numeric_round,
											   NumericGetDatum(state->sum ? state->sum : int64_to_numeric(0)),
											   Int32GetDatum(scale)));
}

Numeric
numeric_state_read(bytea *packed, int64 *rows, bool *is_finite)
{
	NumericState *state = state_from_bytea(packed);

	*rows = state->rows;
	*is_finite = state->nan == 0 && state->positive_infinity == 0 && state->negative_infinity == 0;
	return state_total(state);
}

Datum
pgtrickle_numeric_state_sum(PG_FUNCTION_ARGS)
{
	Numeric		total = state_total(state_from_bytea(PG_GETARG_BYTEA_PP(0)));

	if (total == NULL)
		PG_RETURN_NULL();
	PG_RETURN_NUMERIC(total);
}

Datum
pgtrickle_numeric_state_avg(PG_FUNCTION_ARGS)
{
	NumericState *state = state_from_bytea(PG_GETARG_BYTEA_PP(0));
	Numeric		total = state_total(state);

	if (total == NULL)
		PG_RETURN_NULL();
	if (numeric_is_nan(total) || numeric_is_inf(total))
		PG_RETURN_NUMERIC(total);
	PG_RETURN_DATUM(DirectFunctionCall2(numeric_div, NumericGetDatum(total),
										NumericGetDatum(int64_to_numeric(state->rows))));
}
