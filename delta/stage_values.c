/*
 * delta/stage_values.c
 *     From the bytes of one value in the change stream to a datum.
 *
 * A type's receive function decides what is acceptable.  For common types there are short cuts, which accept only what is
 * plainly right, in the form that the receive function would have given it; everything else, and so every
 * error, goes to the function.  Texts are in the database's encoding, as the stream has them (stage.c sees to it that the
 * receive functions know).
 */
#include "stage_values.h"

#include "catalog/pg_type.h"
#include "compat.h"
#include "datatype/timestamp.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "port/pg_bswap.h"
#include "utils/date.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* ------------------------------------------------------------------------------------------------
 * Choosing
 */

static ValueShortCut
choose_short_cut(Oid type, int32 typmod, int *length)
{
	/* Full precision needs no rounding; a lower one is left to the receive function. */
	bool full_precision = typmod < 0 || typmod >= MAX_TIMESTAMP_PRECISION;

	*length = 0;
	switch (type)
	{
		case BOOLOID:
			return VALUE_BOOL;
		case INT2OID:
			return VALUE_INT16;
		case INT4OID:
		case OIDOID:
		case FLOAT4OID:
			return VALUE_INT32;
#ifdef USE_FLOAT8_BYVAL
		case INT8OID:
		case FLOAT8OID:
		case CASHOID:
			return VALUE_INT64;
		case TIMEOID:
			return full_precision ? VALUE_TIME : VALUE_RECEIVE;
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return full_precision ? VALUE_TIMESTAMP : VALUE_RECEIVE;
#endif
		case DATEOID:
			return VALUE_DATE;
		case UUIDOID:
			*length = UUID_LEN;
			return VALUE_FIXED_BYTES;
		case BYTEAOID:
			return VALUE_BYTES;
		case TEXTOID:
			return VALUE_TEXT;
		case VARCHAROID:
			*length = typmod >= VARHDRSZ ? typmod - VARHDRSZ : 0;
			return VALUE_TEXT;
		case BPCHAROID:
			*length = typmod >= VARHDRSZ ? typmod - VARHDRSZ : 0;
			return *length > 0 ? VALUE_PADDED_TEXT : VALUE_TEXT;
		default:
			return VALUE_RECEIVE;
	}
}

void
value_decoder_init(ValueDecoder *decoder, Oid type, int32 typmod, ValueEncoding encoding,
				   MemoryContext context)
{
	Oid function;

	type = getBaseTypeAndTypmod(type, &typmod);
	decoder->typmod = typmod;
	decoder->encoding = GetDatabaseEncoding();
	if (encoding == ENCODING_BINARY)
	{
		getTypeBinaryInputInfo(type, &function, &decoder->io_parameter);
		decoder->short_cut = choose_short_cut(type, typmod, &decoder->length);
	}
	else
	{
		getTypeInputInfo(type, &function, &decoder->io_parameter);
		decoder->short_cut = VALUE_INPUT;
	}
	fmgr_info_cxt(function, &decoder->function, context);
}

/* ------------------------------------------------------------------------------------------------
 * The type's own functions
 */

static Datum
receive(ValueDecoder *decoder, ByteRange bytes, StringInfo scratch)
{
	/* Receive functions up to 16 rely on a zero byte after the value, so it has to be copied. */
	resetStringInfo(scratch);
	appendBinaryStringInfo(scratch, (const char *) bytes.data, (int) bytes.length);

	Datum value =
		ReceiveFunctionCall(&decoder->function, scratch, decoder->io_parameter, decoder->typmod);

	if (scratch->cursor != scratch->len)
		ereport(ERROR, (errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
						errmsg("incorrect binary data format: %d of %d bytes were used",
							   scratch->cursor, scratch->len)));
	return value;
}

static Datum
input(ValueDecoder *decoder, ByteRange bytes, StringInfo scratch)
{
	pg_verify_mbstr(decoder->encoding, (const char *) bytes.data, (int) bytes.length, false);
	resetStringInfo(scratch);
	appendBinaryStringInfo(scratch, (const char *) bytes.data, (int) bytes.length);
	return InputFunctionCall(&decoder->function, scratch->data, decoder->io_parameter,
							 decoder->typmod);
}

/* ------------------------------------------------------------------------------------------------
 * Short cuts
 */

static inline uint16
read_uint16(ByteRange bytes)
{
	uint16 value;

	memcpy(&value, bytes.data, sizeof(value));
	return pg_ntoh16(value);
}

static inline uint32
read_uint32(ByteRange bytes)
{
	uint32 value;

	memcpy(&value, bytes.data, sizeof(value));
	return pg_ntoh32(value);
}

static inline uint64
read_uint64(ByteRange bytes)
{
	uint64 value;

	memcpy(&value, bytes.data, sizeof(value));
	return pg_ntoh64(value);
}

static inline Datum
make_varlena(ByteRange bytes)
{
	struct varlena *result = palloc(VARHDRSZ + bytes.length);

	SET_VARSIZE(result, VARHDRSZ + bytes.length);
	if (bytes.length > 0)
		memcpy(VARDATA(result), bytes.data, bytes.length);
	return PointerGetDatum(result);
}

/* The text is valid and has the right number of characters. */
static bool
text_is_acceptable(ValueDecoder *decoder, ByteRange bytes)
{
	const char *text = (const char *) bytes.data;

	if (!pg_verify_mbstr(decoder->encoding, text, (int) bytes.length, true))
		return false;
	if (decoder->short_cut == VALUE_PADDED_TEXT)
		return pg_mbstrlen_with_len(text, (int) bytes.length) == decoder->length;
	return decoder->length == 0 || bytes.length <= (size_t) decoder->length ||
		   pg_mbstrlen_with_len(text, (int) bytes.length) <= decoder->length;
}

/* False: let the receive function decide. */
static bool
decode_by_short_cut(ValueDecoder *decoder, ByteRange bytes, Datum *value)
{
	switch (decoder->short_cut)
	{
		case VALUE_BOOL:
			if (bytes.length != 1)
				return false;
			*value = BoolGetDatum(bytes.data[0] != 0);
			return true;
		case VALUE_INT16:
			if (bytes.length != 2)
				return false;
			*value = Int16GetDatum((int16) read_uint16(bytes));
			return true;
		case VALUE_INT32:
			if (bytes.length != 4)
				return false;
			*value = Int32GetDatum((int32) read_uint32(bytes));
			return true;
		case VALUE_INT64:
			if (bytes.length != 8)
				return false;
			*value = Int64GetDatum((int64) read_uint64(bytes));
			return true;
		case VALUE_DATE:
		{
			if (bytes.length != 4)
				return false;

			DateADT date = (DateADT) read_uint32(bytes);

			*value = DateADTGetDatum(date);
			return DATE_NOT_FINITE(date) || IS_VALID_DATE(date);
		}
		case VALUE_TIME:
		{
			if (bytes.length != 8)
				return false;

			TimeADT time = (TimeADT) read_uint64(bytes);

			*value = TimeADTGetDatum(time);
			return time >= 0 && time <= USECS_PER_DAY;
		}
		case VALUE_TIMESTAMP:
		{
			if (bytes.length != 8)
				return false;

			Timestamp timestamp = (Timestamp) read_uint64(bytes);

			*value = TimestampGetDatum(timestamp);
			return TIMESTAMP_NOT_FINITE(timestamp) || IS_VALID_TIMESTAMP(timestamp);
		}
		case VALUE_FIXED_BYTES:
			if (bytes.length != (size_t) decoder->length)
				return false;
			*value = PointerGetDatum(memcpy(palloc(bytes.length), bytes.data, bytes.length));
			return true;
		case VALUE_BYTES:
			*value = make_varlena(bytes);
			return true;
		case VALUE_TEXT:
		case VALUE_PADDED_TEXT:
			if (!text_is_acceptable(decoder, bytes))
				return false;
			*value = make_varlena(bytes);
			return true;
		default:
			return false;
	}
}

Datum
value_decode(ValueDecoder *decoder, ByteRange bytes, StringInfo scratch)
{
	Datum value;

	if (bytes.length >= MaxAllocSize - VARHDRSZ)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("value of %zu bytes is too large", bytes.length)));
	if (decode_by_short_cut(decoder, bytes, &value))
		return value;
	if (decoder->short_cut == VALUE_INPUT)
		return input(decoder, bytes, scratch);
	return receive(decoder, bytes, scratch);
}
