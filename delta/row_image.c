/*
 * delta/row_image.c
 *     Equality and hash of rows by their bytes, and SQL's pgtrickle.row_hash(record).
 *
 * Image equality is the identity of rows in deltas (DESIGN section 6): it needs nothing from the types,
 * distinguishes 1.0 from 1.00, and takes NULL as equal to NULL.  "The same bytes" means after detoasting:
 * how a value happens to be stored (compressed, out of line, with a short header) does not count.
 * Values passed in a Datum are compared in the bytes their type has, since the upper ones may differ.
 * Composite values are compared column by column: a row of a table may leave out columns that were added
 * later, and carry some that were dropped.
 *
 * The hash is on disk, in the indexes of stream tables without a key.  So it must not change: a new hash
 * is a new SQL function.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "common/hashfn.h"
#include "compat.h"
#include "consolidate.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

/* Any odd constants with well spread bits do; these are from the golden ratio and from murmur's finalizer. */
#define HASH_SEED UINT64CONST(0x9E3779B97F4A7C15)
#define HASH_NULL UINT64CONST(0xD6E8FEB86659FD93)
#define HASH_STEP UINT64CONST(0xFF51AFD7ED558CCD)
#define HASH_LAST UINT64CONST(0xC4CEB9FE1A85EC53)

static inline uint64
mix_word(uint64 hash, uint64 word)
{
	hash = (hash ^ word) * HASH_STEP;
	return hash ^ (hash >> 32);
}

/* The bytes of a pass-by-value type, as a number; the rest of the Datum is not part of the value. */
static inline uint64
by_value_image(Datum value, int16 length)
{
	switch (length)
	{
		case 1:
			return (uint8) value;
		case 2:
			return (uint16) value;
		case 4:
			return (uint32) value;
		default:
			return (uint64) value;
	}
}

/* Where the bytes of a pass-by-reference value are; *to_free when they had to be fetched. */
static inline const unsigned char *
reference_image(Datum value, int16 length, Size *image_length, void **to_free)
{
	*to_free = NULL;
	if (length == -1)
	{
		struct varlena *stored = (struct varlena *) DatumGetPointer(value);
		struct varlena *plain = pg_detoast_datum_packed(stored);

		if (plain != stored)
			*to_free = plain;
		*image_length = VARSIZE_ANY_EXHDR(plain);
		return (const unsigned char *) VARDATA_ANY(plain);
	}
	*image_length = length == -2 ? strlen(DatumGetCString(value)) : (Size) length;
	return (const unsigned char *) DatumGetPointer(value);
}

static uint64
hash_reference(Datum value, int16 length, uint64 hash)
{
	Size				 image_length;
	void				*to_free;
	const unsigned char *image = reference_image(value, length, &image_length, &to_free);

	hash = mix_word(hash_bytes_extended(image, (int) image_length, hash), image_length);
	if (to_free != NULL)
		pfree(to_free);
	return hash;
}

/* ------------------------------------------------------------------------------------------------
 * Composite values
 */

typedef struct CompositeValue
{
	TupleDesc tupdesc;
	Datum	 *values;
	bool	 *nulls;
} CompositeValue;

/* Only composites need a look into the catalog: they all are varlenas with the alignment of a double. */
static inline bool
is_composite(Form_pg_attribute att)
{
	return att->attlen == -1 && att->attalign == TYPALIGN_DOUBLE && type_is_rowtype(att->atttypid);
}

static CompositeValue
composite_open(Datum value)
{
	HeapTupleHeader record = DatumGetHeapTupleHeader(value);
	HeapTupleData	tuple = {.t_len = HeapTupleHeaderGetDatumLength(record), .t_data = record};
	CompositeValue	composite;

	check_stack_depth();
	composite.tupdesc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(record), HeapTupleHeaderGetTypMod(record));
	composite.values = palloc(Max(composite.tupdesc->natts, 1) * sizeof(Datum));
	composite.nulls = palloc(Max(composite.tupdesc->natts, 1) * sizeof(bool));
	heap_deform_tuple(&tuple, composite.tupdesc, composite.values, composite.nulls);
	return composite;
}

static void
composite_close(CompositeValue *composite)
{
	ReleaseTupleDesc(composite->tupdesc);
	pfree(composite->values);
	pfree(composite->nulls);
}

static uint64
hash_composite(Datum value, uint64 hash)
{
	CompositeValue composite = composite_open(value);

	hash = mix_word(hash, row_image_hash(composite.tupdesc, composite.tupdesc->natts, composite.values, composite.nulls));
	composite_close(&composite);
	return hash;
}

static bool
composites_equal(Datum value1, Datum value2)
{
	CompositeValue a = composite_open(value1);
	CompositeValue b = composite_open(value2);
	bool result = a.tupdesc->tdtypeid == b.tupdesc->tdtypeid && a.tupdesc->tdtypmod == b.tupdesc->tdtypmod &&
		row_image_equal(a.tupdesc, a.tupdesc->natts, a.values, a.nulls, b.values, b.nulls);

	composite_close(&a);
	composite_close(&b);
	return result;
}

/* ------------------------------------------------------------------------------------------------
 * Rows
 */

uint64
row_image_hash(TupleDesc tupdesc, int natts, const Datum *values, const bool *nulls)
{
	uint64 hash = HASH_SEED;

	for (int i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);

		if (att->attisdropped) /* the same row before and after the drop */
			continue;
		if (nulls[i])
			hash = mix_word(hash, HASH_NULL);
		else if (att->attbyval)
			hash = mix_word(hash, by_value_image(values[i], att->attlen));
		else if (is_composite(att))
			hash = hash_composite(values[i], hash);
		else
			hash = hash_reference(values[i], att->attlen, hash);
	}
	hash *= HASH_LAST;
	return hash ^ (hash >> 29);
}

/* How long a varlena is once it is plain, without fetching it. */
static inline Size
plain_length(Datum value)
{
	struct varlena *stored = (struct varlena *) DatumGetPointer(value);

	if (VARATT_IS_EXTERNAL(stored) || VARATT_IS_COMPRESSED(stored))
		return toast_raw_datum_size(value) - VARHDRSZ;
	return VARSIZE_ANY_EXHDR(stored);
}

static bool
references_equal(Datum value1, Datum value2, int16 length)
{
	Size  length1;
	Size  length2;
	void *to_free1;
	void *to_free2;

	if (DatumGetPointer(value1) == DatumGetPointer(value2))
		return true;
	if (length == -1 && plain_length(value1) != plain_length(value2))
		return false;

	const unsigned char *image1 = reference_image(value1, length, &length1, &to_free1);
	const unsigned char *image2 = reference_image(value2, length, &length2, &to_free2);
	bool				 result = length1 == length2 && memcmp(image1, image2, length1) == 0;

	if (to_free1 != NULL)
		pfree(to_free1);
	if (to_free2 != NULL)
		pfree(to_free2);
	return result;
}

bool
value_image_equal(Form_pg_attribute att, Datum value1, bool null1, Datum value2, bool null2)
{
	if (null1 || null2)
		return null1 && null2;
	if (att->attbyval)
		return by_value_image(value1, att->attlen) == by_value_image(value2, att->attlen);
	if (is_composite(att))
		return composites_equal(value1, value2);
	return references_equal(value1, value2, att->attlen);
}

bool
row_image_equal(TupleDesc tupdesc, int natts, const Datum *values1, const bool *nulls1,
				const Datum *values2, const bool *nulls2)
{
	for (int i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);

		if (!att->attisdropped &&
			!value_image_equal(att, values1[i], nulls1[i], values2[i], nulls2[i]))
			return false;
	}
	return true;
}

/*
 * pgtrickle.row_hash(record) returns bigint: the hash of a row's columns, for indexes.
 */
PG_FUNCTION_INFO_V1(pgtrickle_row_hash);

Datum
pgtrickle_row_hash(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();

	HeapTupleHeader record = PG_GETARG_HEAPTUPLEHEADER(0);
	TupleDesc		tupdesc =
		lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(record), HeapTupleHeaderGetTypMod(record));
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(record), .t_data = record};
	Datum		 *values = palloc(tupdesc->natts * sizeof(Datum));
	bool		 *nulls = palloc(tupdesc->natts * sizeof(bool));

	heap_deform_tuple(&tuple, tupdesc, values, nulls);

	uint64 hash = row_image_hash(tupdesc, tupdesc->natts, values, nulls);

	ReleaseTupleDesc(tupdesc);
	pfree(values);
	pfree(nulls);
	PG_FREE_IF_COPY(record, 0);
	PG_RETURN_INT64((int64) hash);
}
