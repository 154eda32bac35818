/*
 * delta/exact_image.c
 *     SQL functions that choose among equal values: least_image, min_exact, max_exact, and the states behind them.
 *
 * Types have values that are equal and yet differ: 1.0 and 1.00, '1 day' and '24:00:00', 'a' and 'A' under some collations.  Grouping takes
 * them together, and which of them a group shows is an accident of the plan.  canonical_image.c makes it the one whose bytes come first, by
 * putting these aggregates into the query.  (Which one that is means nothing; it is the same whatever happened before.)
 *
 *     least_image(x)       of values that are equal: the one whose image comes first
 *     min_exact, max_exact by value, and among equal ones by image
 *     image_counts(x, w)   a mergeable state: how often each image occurs, weights added; its least image is image_counts_least
 *
 * An image is compared as unsigned bytes, a shorter one first.  The state crosses SQL as a bytea, sorted by image:
 *
 *     n x (int64 rows, int32 length, the bytes)
 */
#include "postgres.h"

#include "compat.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(pgtrickle_lesser_image);
PG_FUNCTION_INFO_V1(pgtrickle_compare_exact);
PG_FUNCTION_INFO_V1(pgtrickle_lesser_exact);
PG_FUNCTION_INFO_V1(pgtrickle_greater_exact);
PG_FUNCTION_INFO_V1(pgtrickle_image_counts_step);
PG_FUNCTION_INFO_V1(pgtrickle_image_counts_end);
PG_FUNCTION_INFO_V1(pgtrickle_image_counts_merge);
PG_FUNCTION_INFO_V1(pgtrickle_image_counts_least);

/* ---- images ---- */

typedef struct Image
{
	const char *bytes;
	int32		length;
} Image;

/* What calls of one place in a statement share. */
typedef struct TypeOfCall
{
	Oid			type;
	int16		length;
	bool		by_value;
	char		align;
	FmgrInfo   *compare;		/* of the default btree order; NULL: not asked for */
} TypeOfCall;

static TypeOfCall *
type_of_call(FunctionCallInfo fcinfo, int argument)
{
	TypeOfCall *cache = fcinfo->flinfo->fn_extra;

	if (cache != NULL)
		return cache;
	cache = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(TypeOfCall));
	cache->type = get_fn_expr_argtype(fcinfo->flinfo, argument);
	if (!OidIsValid(cache->type))
		ereport(ERROR,
				(errcode(ERRCODE_INDETERMINATE_DATATYPE),
				 errmsg("could not determine the type of a value to compare")));
	get_typlenbyvalalign(cache->type, &cache->length, &cache->by_value, &cache->align);
	fcinfo->flinfo->fn_extra = cache;
	return cache;
}

/* The bytes of a value, detoasted in the current context; `word` holds those of a value that is passed in its Datum. */
static Image
image_of(TypeOfCall *type, Datum *value, uint64 *word)
{
	Image		image;

	if (type->by_value)
	{
		/* highest byte first, so that comparing bytes compares numbers */
		uint64		bits = (uint64) *value;

		if (type->length < 8)
			bits &= (UINT64CONST(1) << (type->length * 8)) - 1;
		for (int i = 0; i < 8; i++)
			((unsigned char *) word)[i] = (unsigned char) (bits >> (56 - 8 * i));
		image.bytes = (const char *) word;
		image.length = 8;
	}
	else if (type->length == -1)
	{
		struct varlena *plain = PG_DETOAST_DATUM_PACKED(*value);

		image.bytes = VARDATA_ANY(plain);
		image.length = VARSIZE_ANY_EXHDR(plain);
	}
	else
	{
		image.bytes = DatumGetPointer(*value);
		image.length = type->length == -2 ? (int32) strlen(image.bytes) + 1 : type->length;
	}
	return image;
}

static Datum
value_of(TypeOfCall *type, Image image)
{
	char	   *copy;

	if (type->by_value)
	{
		uint64		bits = 0;

		for (int i = 0; i < 8; i++)
			bits = bits << 8 | (unsigned char) image.bytes[i];
		return (Datum) bits;
	}
	if (type->length == -1)
	{
		copy = palloc(image.length + VARHDRSZ);
		SET_VARSIZE(copy, image.length + VARHDRSZ);
		memcpy(VARDATA(copy), image.bytes, image.length);
	}
	else
	{
		copy = palloc(image.length);
		memcpy(copy, image.bytes, image.length);
	}
	return PointerGetDatum(copy);
}

static int
compare_images(Image a, Image b)
{
	int			order = memcmp(a.bytes, b.bytes, Min(a.length, b.length));

	if (order != 0)
		return order;
	return a.length < b.length ? -1 : a.length > b.length ? 1 : 0;
}

static int
compare_by_image(TypeOfCall *type, Datum a, Datum b)
{
	uint64		words[2];

	return compare_images(image_of(type, &a, &words[0]), image_of(type, &b, &words[1]));
}

/* ---- choosing one of two values ---- */

static int
compare_exact(FunctionCallInfo fcinfo, TypeOfCall *type)
{
	int			order;

	if (type->compare == NULL)
	{
		TypeCacheEntry *entry = lookup_type_cache(type->type, TYPECACHE_CMP_PROC_FINFO);

		if (!OidIsValid(entry->cmp_proc))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("could not identify a comparison function for type %s", format_type_be(type->type))));
		type->compare = &entry->cmp_proc_finfo;
	}
	order = DatumGetInt32(FunctionCall2Coll(type->compare, PG_GET_COLLATION(), PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)));
	return order != 0 ? order : compare_by_image(type, PG_GETARG_DATUM(0), PG_GETARG_DATUM(1));
}

/* lesser_image(a, b): the one whose image comes first; strict. */
Datum
pgtrickle_lesser_image(PG_FUNCTION_ARGS)
{
	TypeOfCall *type = type_of_call(fcinfo, 0);

	PG_RETURN_DATUM(PG_GETARG_DATUM(compare_by_image(type, PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)) <= 0 ? 0 : 1));
}

/* compare_exact(a, b): below, at or above 0; by value, then by image. */
Datum
pgtrickle_compare_exact(PG_FUNCTION_ARGS)
{
	int			order = compare_exact(fcinfo, type_of_call(fcinfo, 0));

	PG_RETURN_INT32(order < 0 ? -1 : order > 0 ? 1 : 0);
}

Datum
pgtrickle_lesser_exact(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(PG_GETARG_DATUM(compare_exact(fcinfo, type_of_call(fcinfo, 0)) <= 0 ? 0 : 1));
}

Datum
pgtrickle_greater_exact(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(PG_GETARG_DATUM(compare_exact(fcinfo, type_of_call(fcinfo, 0)) >= 0 ? 0 : 1));
}

/* ---- how often each image occurs ---- */

typedef struct ImageCount
{
	int64		rows;
	Image		image;
} ImageCount;

typedef struct ImageCounts
{
	int			n;
	int			allocated;
	int			last;			/* where the last value was: the next one is often the same */
	ImageCount *counts;			/* by image */
} ImageCounts;

/* Where the image is, or where it belongs. */
static int
find_image(ImageCounts *state, Image image, bool *found)
{
	int			low = 0;
	int			high = state->n;

	*found = true;
	if (state->last < state->n && compare_images(image, state->counts[state->last].image) == 0)
		return state->last;
	while (low < high)
	{
		int			middle = (low + high) / 2;
		int			order = compare_images(image, state->counts[middle].image);

		if (order == 0)
			return state->last = middle;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	*found = false;
	return low;
}

/* Adds to the image's count; the image is copied into the current context when it is new. */
static void
count_image(ImageCounts *state, Image image, int64 rows)
{
	bool		found;
	int			at = find_image(state, image, &found);
	char	   *copy;

	if (found)
	{
		state->counts[at].rows += rows;
		return;
	}
	if (state->n == state->allocated)
	{
		state->allocated = Max(4, state->allocated * 2);
		state->counts = state->counts == NULL ? palloc(state->allocated * sizeof(ImageCount))
			: repalloc(state->counts, state->allocated * sizeof(ImageCount));
	}
	memmove(&state->counts[at + 1], &state->counts[at], (state->n - at) * sizeof(ImageCount));
	copy = palloc(Max(image.length, 1));
	memcpy(copy, image.bytes, image.length);
	state->counts[at].rows = rows;
	state->counts[at].image.bytes = copy;
	state->counts[at].image.length = image.length;
	state->last = at;
	state->n++;
}

#define IMAGE_HEADER (sizeof(int64) + sizeof(int32))

static bytea *
counts_to_bytea(ImageCounts *state)
{
	Size		size = VARHDRSZ;
	bytea	   *packed;
	char	   *at;

	for (int i = 0; i < state->n; i++)
		size += state->counts[i].rows == 0 ? 0 : IMAGE_HEADER + state->counts[i].image.length;
	packed = palloc(size);
	SET_VARSIZE(packed, size);
	at = VARDATA(packed);
	for (int i = 0; i < state->n; i++)
	{
		ImageCount *count = &state->counts[i];

		if (count->rows == 0)
			continue;
		memcpy(at, &count->rows, sizeof(int64));
		memcpy(at + sizeof(int64), &count->image.length, sizeof(int32));
		memcpy(at + IMAGE_HEADER, count->image.bytes, count->image.length);
		at += IMAGE_HEADER + count->image.length;
	}
	return packed;
}

/* Takes the next entry off a packed state; false at its end. */
static bool
next_count(const char **at, Size *left, ImageCount *count)
{
	if (*left == 0)
		return false;
	if (*left >= IMAGE_HEADER)
	{
		memcpy(&count->rows, *at, sizeof(int64));
		memcpy(&count->image.length, *at + sizeof(int64), sizeof(int32));
		if (count->image.length >= 0 && *left - IMAGE_HEADER >= (Size) count->image.length)
		{
			count->image.bytes = *at + IMAGE_HEADER;
			*at += IMAGE_HEADER + count->image.length;
			*left -= IMAGE_HEADER + count->image.length;
			return true;
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("invalid state of images")));
	return false;
}

/* image_counts_step(internal, anyelement, integer) */
Datum
pgtrickle_image_counts_step(PG_FUNCTION_ARGS)
{
	MemoryContext aggregate_context;
	MemoryContext oldcontext;
	ImageCounts *state = PG_ARGISNULL(0) ? NULL : (ImageCounts *) PG_GETARG_POINTER(0);
	TypeOfCall *type;
	Datum		value;
	uint64		word;
	Image		image;

	if (!AggCheckCallContext(fcinfo, &aggregate_context))
		elog(ERROR, "image_counts_step called outside of an aggregate");
	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
	{
		if (state == NULL)
			PG_RETURN_NULL();
		PG_RETURN_POINTER(state);
	}
	type = type_of_call(fcinfo, 1);
	value = PG_GETARG_DATUM(1);
	image = image_of(type, &value, &word);
	oldcontext = MemoryContextSwitchTo(aggregate_context);
	if (state == NULL)
		state = palloc0(sizeof(ImageCounts));
	count_image(state, image, PG_GETARG_INT32(2));
	MemoryContextSwitchTo(oldcontext);
	PG_RETURN_POINTER(state);
}

/* image_counts_end(internal): the state as a bytea, NULL when no row had a value. */
Datum
pgtrickle_image_counts_end(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_BYTEA_P(counts_to_bytea((ImageCounts *) PG_GETARG_POINTER(0)));
}

/* image_counts_merge(bytea, bytea): the state of both bags together. */
Datum
pgtrickle_image_counts_merge(PG_FUNCTION_ARGS)
{
	ImageCounts state = {0};

	for (int argument = 0; argument < 2; argument++)
	{
		bytea	   *packed = PG_GETARG_BYTEA_PP(argument);
		const char *at = VARDATA_ANY(packed);
		Size		left = VARSIZE_ANY_EXHDR(packed);
		ImageCount	count;

		while (next_count(&at, &left, &count))
			count_image(&state, count.image, count.rows);
	}
	PG_RETURN_BYTEA_P(counts_to_bytea(&state));
}

/* image_counts_least(bytea, anyelement): the first image that occurs, as a value of the second argument's type; NULL: none does. */
Datum
pgtrickle_image_counts_least(PG_FUNCTION_ARGS)
{
	TypeOfCall *type = type_of_call(fcinfo, 1);
	bytea	   *packed;
	const char *at;
	Size		left;
	ImageCount	count;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	packed = PG_GETARG_BYTEA_PP(0);
	at = VARDATA_ANY(packed);
	left = VARSIZE_ANY_EXHDR(packed);
	while (next_count(&at, &left, &count))
	{
		if (count.rows > 0)
			PG_RETURN_DATUM(value_of(type, count.image));
	}
	PG_RETURN_NULL();
}
