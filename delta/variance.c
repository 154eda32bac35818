/*
 * delta/variance.c
 *     SQL functions that yield variances and standard deviations from weighted sums: of integers and numeric, digit by digit what
 *     the server shows.
 *
 * The server computes (N * sum(x^2) - sum(x)^2) / (N * (N - 1)), or / N^2 for a population, in exact arithmetic up to the division, whose
 * scale follows from its operands; both sums are kept exactly with their scale (weighted.c), so the same operations give the same digits.
 * A deviation is the root of the variance in the variance's scale; the server's sqrt() may choose a larger one, which is rounded
 * back, and compared with the exact square because rounding twice can go wrong.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/numeric.h"
#include "weighted.h"

PG_FUNCTION_INFO_V1(pgtrickle_numeric_state_var_pop);
PG_FUNCTION_INFO_V1(pgtrickle_numeric_state_var_samp);
PG_FUNCTION_INFO_V1(pgtrickle_numeric_state_stddev_pop);
PG_FUNCTION_INFO_V1(pgtrickle_numeric_state_stddev_samp);

static Datum
call2(PGFunction function, Datum a, Datum b)
{
	return DirectFunctionCall2(function, a, b);
}

static Datum
integer_numeric(int64 value)
{
	return NumericGetDatum(int64_to_numeric(value));
}

/* 0.5 in the last place of this scale. */
static Datum
half_unit(int32 scale)
{
	char	   *text = psprintf("5e%d", -scale - 1);

	return DirectFunctionCall3(numeric_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
}

/* The root, correctly rounded to the scale that its square is shown in. */
static Datum
root_in_scale(Datum value)
{
	int32		scale = DatumGetInt32(DirectFunctionCall1(numeric_scale, value));
	Datum		root = call2(numeric_round, DirectFunctionCall1(numeric_sqrt, value), Int32GetDatum(scale));
	Datum		half = half_unit(scale);
	Datum		unit = call2(numeric_add, half, half);
	Datum		low = call2(numeric_sub, root, half);
	Datum		high = call2(numeric_add, root, half);

	if (DatumGetBool(call2(numeric_gt, low, integer_numeric(0))) &&
		DatumGetBool(call2(numeric_lt, value, call2(numeric_mul, low, low))))
		root = call2(numeric_sub, root, unit);
	else if (DatumGetBool(call2(numeric_ge, value, call2(numeric_mul, high, high))))
		root = call2(numeric_add, root, unit);
	return call2(numeric_round, root, Int32GetDatum(scale));
}

static Datum
variance(FunctionCallInfo fcinfo, bool sample, bool root)
{
	int64		rows;
	int64		same_rows;
	bool		is_finite;
	bool		squares_finite;
	Numeric		sum = numeric_state_read(PG_GETARG_BYTEA_PP(0), &rows, &is_finite);
	Numeric		squares = numeric_state_read(PG_GETARG_BYTEA_PP(1), &same_rows, &squares_finite);
	Datum		numerator;
	Datum		denominator;
	Datum		result;

	if (rows == 0 || (sample && rows == 1))
		PG_RETURN_NULL();
	if (!is_finite)
		PG_RETURN_DATUM(DirectFunctionCall3(numeric_in, CStringGetDatum("NaN"), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	numerator = call2(numeric_sub, call2(numeric_mul, integer_numeric(rows), NumericGetDatum(squares)),
					  call2(numeric_mul, NumericGetDatum(sum), NumericGetDatum(sum)));
	if (!DatumGetBool(call2(numeric_gt, numerator, integer_numeric(0))))
		PG_RETURN_DATUM(integer_numeric(0));
	denominator = call2(numeric_mul, integer_numeric(rows), integer_numeric(sample ? rows - 1 : rows));
	result = call2(numeric_div, numerator, denominator);
	PG_RETURN_DATUM(root ? root_in_scale(result) : result);
}

/* Each takes the states of the sum and of the sum of squares. */
Datum
pgtrickle_numeric_state_var_pop(PG_FUNCTION_ARGS)
{
	return variance(fcinfo, false, false);
}

Datum
pgtrickle_numeric_state_var_samp(PG_FUNCTION_ARGS)
{
	return variance(fcinfo, true, false);
}

Datum
pgtrickle_numeric_state_stddev_pop(PG_FUNCTION_ARGS)
{
	return variance(fcinfo, false, true);
}

Datum
pgtrickle_numeric_state_stddev_samp(PG_FUNCTION_ARGS)
{
	return variance(fcinfo, true, true);
}
