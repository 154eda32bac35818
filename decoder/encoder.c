/*
 * decoder/encoder.c
 *     How the values of one column become bytes of the stream.
 *
 * The format is that of the type's send function, so that the reader can hand the bytes to the
 * receive function of the same type.  For common types we do what the send function would do,
 * without calling it and without a copy.  A type (or a type inside it) without send or receive
 * function is sent as text.
 *
 * So is, for a reader on another server, every type whose binary form could hold an OID that means
 * something else there: types made after initdb's bootstrap (arrays, ranges and rows of them are
 * such types too), and references to objects such as regclass.
 *
 * Text is sent in the encoding that the session set (conversion.c); by default as it is stored.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "encoder.h"

/*
 * Values longer than this are sent under guard even by the server's own functions: they may double.
 */
#define TRUSTED_BYTES_MAX (32 * 1024 * 1024)

/* ------------------------------------------------------------------------------------------------
 * Choosing
 */

/* Does a type, with all types inside it, have a binary form, and who wrote the code? */
typedef enum BinaryForm
{
	BINARY_NONE,
	BINARY_FOREIGN, /* some of it comes from outside of the server */
	BINARY_BUILTIN
} BinaryForm;

static BinaryForm binary_form(Oid type_oid);

/* The binary form of a row type: the weakest among its columns. */
static BinaryForm
binary_form_of_columns(Oid type_oid)
{
	TupleDesc  tupdesc = lookup_rowtype_tupdesc(type_oid, -1);
	BinaryForm form = BINARY_BUILTIN;

	for (int i = 0; i < tupdesc->natts; i++)
	{
		if (!TupleDescAttr(tupdesc, i)->attisdropped)
			form = Min(form, binary_form(TupleDescAttr(tupdesc, i)->atttypid));
	}
	ReleaseTupleDesc(tupdesc);
	return form;
}

/* The binary form of what a type consists of. */
static BinaryForm
binary_form_of_parts(Oid type_oid, Form_pg_type type)
{
	if (type->typtype == TYPTYPE_DOMAIN)
		return binary_form(type->typbasetype);
	if (type->typtype == TYPTYPE_RANGE)
		return binary_form(get_range_subtype(type_oid));
	if (type->typtype == TYPTYPE_MULTIRANGE)
		return binary_form(get_multirange_range(type_oid));
	if (type->typtype == TYPTYPE_COMPOSITE)
		return binary_form_of_columns(type_oid);
	if (type->typsend == F_ARRAY_SEND)
		return binary_form(type->typelem);
	return BINARY_BUILTIN;
}

static BinaryForm
binary_form(Oid type_oid)
{
	HeapTuple  tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type_oid));
	BinaryForm form = BINARY_BUILTIN;

	check_stack_depth();
	if (!HeapTupleIsValid(tuple))
		return BINARY_NONE;

	Form_pg_type type = (Form_pg_type) GETSTRUCT(tuple);

	if (!OidIsValid(type->typsend) || !OidIsValid(type->typreceive))
		form = BINARY_NONE;
	else if (type->typsend >= FirstNormalObjectId || type->typoutput >= FirstNormalObjectId)
		form = BINARY_FOREIGN;
	if (form != BINARY_NONE)
		form = Min(form, binary_form_of_parts(type_oid, type));
	ReleaseSysCache(tuple);
	return form;
}

/*
 * The encoder that does the same as a send function, for values of the given length.  By address,
 * not by OID: extensions such as citext use the server's functions under names of their own.
 */
static EncoderKind
kind_for_function(PGFunction function, int16 type_length)
{
	static const struct
	{
		PGFunction	function;
		int16		type_length;
		EncoderKind kind;
	} known[] = {
		{boolsend, 1, ENCODE_BYTE},			  {charsend, 1, ENCODE_BYTE},
		{int2send, 2, ENCODE_INT16},		  {int4send, 4, ENCODE_INT32},
		{oidsend, 4, ENCODE_INT32},			  {float4send, 4, ENCODE_INT32},
		{date_send, 4, ENCODE_INT32},		  {xidsend, 4, ENCODE_INT32},
		{cidsend, 4, ENCODE_INT32},			  {regclasssend, 4, ENCODE_INT32},
		{regtypesend, 4, ENCODE_INT32},		  {int8send, 8, ENCODE_INT64},
		{float8send, 8, ENCODE_INT64},		  {timestamp_send, 8, ENCODE_INT64},
		{timestamptz_send, 8, ENCODE_INT64},  {time_send, 8, ENCODE_INT64},
		{cash_send, 8, ENCODE_INT64},		  {xid8send, 8, ENCODE_INT64},
		{pg_lsn_send, 8, ENCODE_INT64},		  {uuid_send, 16, ENCODE_IMAGE},
		{namesend, NAMEDATALEN, ENCODE_NAME}, {textsend, -1, ENCODE_PAYLOAD},
		{varcharsend, -1, ENCODE_PAYLOAD},	  {bpcharsend, -1, ENCODE_PAYLOAD},
		{byteasend, -1, ENCODE_PAYLOAD},	  {json_send, -1, ENCODE_PAYLOAD},
	};

	for (size_t i = 0; i < lengthof(known); i++)
	{
		if (known[i].function == function && known[i].type_length == type_length)
			return known[i].kind;
	}
	return ENCODE_SEND;
}

/* The same for an output function. */
static EncoderKind
kind_for_output_function(PGFunction function, int16 type_length)
{
	bool is_payload = function == textout || function == varcharout || function == bpcharout ||
					  function == json_out;

	return is_payload && type_length == -1 ? ENCODE_PAYLOAD : ENCODE_TEXT;
}

/* Is this type, under this OID, on every server, and a new one for each that makes it? */
static bool
has_lasting_oid(Oid type_oid)
{
	return type_oid < FirstGenbkiObjectId;
}

/* A type of the server whose values are OIDs of objects, or an array of such. */
static bool
refers_to_objects(Oid type_oid)
{
	Oid element = get_element_type(type_oid);

	switch (OidIsValid(element) ? element : type_oid)
	{
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGCOLLATIONOID:
		case REGTYPEOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
			return true;
		default:
			return false;
	}
}

/* May a value hold text that the other encoding cannot express? */
static bool
may_hold_text(const ColumnEncoder *encoder, Oid type_oid)
{
	char category;
	bool is_preferred;

	if (encoder->function.fn_addr == byteasend || encoder->function.fn_addr == byteaout)
		return false;
	get_type_category_preferred(type_oid, &category, &is_preferred);
	return strchr("BDGINTV", category) == NULL; /* no numbers, times, addresses, shapes, bits */
}

/* Text that we do not leave to a send function is converted by us; a send function may fail. */
static void
choose_conversion(ColumnEncoder *encoder, Oid type_oid, const Conversion *conversion)
{
	encoder->conversion = NULL;
	if (!conversion_is_active(conversion) || !may_hold_text(encoder, type_oid))
		return;
	if (encoder->kind == ENCODE_SEND)
		encoder->is_guarded = true;
	else
		encoder->conversion = conversion;
}

void
encoder_choose(ColumnEncoder *encoder, Form_pg_attribute attribute, const ValueFormat *format,
			   MemoryContext context)
{
	Oid		   type_oid = attribute->atttypid;
	BinaryForm form = binary_form(type_oid);
	Oid		   function_oid;
	bool	   is_varlena;
	bool	   is_text =
		form == BINARY_NONE ||
		(format->user_types_as_text && (!has_lasting_oid(type_oid) || refers_to_objects(type_oid)));

	encoder->attnum = attribute->attnum;
	encoder->type_length = attribute->attlen;
	encoder->is_guarded = form != BINARY_BUILTIN;
	encoder->encoding = is_text ? ENCODING_TEXT : ENCODING_BINARY;
	if (is_text)
		getTypeOutputInfo(type_oid, &function_oid, &is_varlena);
	else
		getTypeBinaryOutputInfo(type_oid, &function_oid, &is_varlena);
	fmgr_info_cxt(function_oid, &encoder->function, context);
	encoder->kind = is_text ? kind_for_output_function(encoder->function.fn_addr, attribute->attlen)
							: kind_for_function(encoder->function.fn_addr, attribute->attlen);
	choose_conversion(encoder, type_oid, format->conversion);
}

const char *
encoder_type_name(Oid type_oid, const ValueFormat *format)
{
	if (!format->user_types_as_text || has_lasting_oid(type_oid))
		return NULL;
	return format_type_extended(type_oid, -1,
								FORMAT_TYPE_FORCE_QUALIFY | FORMAT_TYPE_ALLOW_INVALID);
}

/* ------------------------------------------------------------------------------------------------
 * Preparing
 */

static void
set_bytes(Cell *cell, const char *bytes, Size length, Size length_max, uint32 *flaws)
{
	if (length > length_max)
	{
		cell->kind = VALUE_NOT_LOGGED;
		*flaws |= FLAW_VALUE_TOO_LARGE;
		return;
	}
	cell->kind = VALUE_PRESENT;
	cell->bytes = bytes;
	cell->length = (uint32) length;
}

/* The same for text, which may have to be converted first. */
static void
set_text(const ColumnEncoder *encoder, Cell *cell, const char *text, Size length, Size length_max,
		 uint32 *flaws)
{
	if (encoder->conversion != NULL && !conversion_text(encoder->conversion, &text, &length))
	{
		cell->kind = VALUE_NOT_LOGGED;
		*flaws |= FLAW_VALUE_UNSENDABLE;
		return;
	}
	set_bytes(cell, text, length, length_max, flaws);
}

/* Calls the send or output function. */
static void
call_function(ColumnEncoder *encoder, Datum value, Size length_max, Cell *cell, uint32 *flaws)
{
	if (encoder->kind == ENCODE_SEND)
	{
		bytea *sent = SendFunctionCall(&encoder->function, value);

		set_bytes(cell, VARDATA_ANY(sent), VARSIZE_ANY_EXHDR(sent), length_max, flaws);
	}
	else
	{
		char *text = OutputFunctionCall(&encoder->function, value);

		set_text(encoder, cell, text, strlen(text), length_max, flaws);
	}
}

/*
 * The same in a subtransaction, so that an error stays with this value.  An error that left the
 * plugin would come again at every attempt to read past this change, and hold back WAL for ever.
 */
static void
call_function_guarded(ColumnEncoder *encoder, Datum value, Size length_max, Cell *cell,
					  uint32 *flaws)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		call_function(encoder, value, length_max, cell, flaws);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		ErrorData *error = CopyErrorData();

		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		ereport(LOG, (errcode(error->sqlerrcode), errmsg("could not send a value of column %d: %s",
														 encoder->attnum, error->message)));
		cell->kind = VALUE_NOT_LOGGED;
		*flaws |= FLAW_VALUE_UNSENDABLE;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}

/*
 * Looks at a varlena before anything is done with it.  False when that settled the cell: the value
 * is not in the WAL, or too long.  *size is its length without compression.
 */
static bool
inspect_varlena(struct varlena *value, Size length_max, Size *size, Cell *cell, uint32 *flaws)
{
	if (likely(!VARATT_IS_EXTERNAL(value) && !VARATT_IS_COMPRESSED(value)))
		*size = VARSIZE_ANY_EXHDR(value);
	else if (VARATT_IS_EXTERNAL_ONDISK(value))
	{
		cell->kind = VALUE_UNCHANGED;
		return false;
	}
	else
		*size = toast_raw_datum_size(PointerGetDatum(value)) - VARHDRSZ;

	set_bytes(cell, NULL, *size, length_max, flaws);
	return cell->kind == VALUE_PRESENT;
}

static void
prepare_payload(const ColumnEncoder *encoder, Datum value, Size length_max, Cell *cell,
				uint32 *flaws)
{
	struct varlena *varlena = (struct varlena *) DatumGetPointer(value);
	Size			size;

	if (!inspect_varlena(varlena, length_max, &size, cell, flaws))
		return;
	if (VARATT_IS_EXTERNAL(varlena) || VARATT_IS_COMPRESSED(varlena))
		varlena = pg_detoast_datum_packed(varlena);
	set_text(encoder, cell, VARDATA_ANY(varlena), VARSIZE_ANY_EXHDR(varlena), length_max, flaws);
}

static void
prepare_by_function(ColumnEncoder *encoder, Datum value, Size length_max, Cell *cell, uint32 *flaws)
{
	Size size = 0;

	if (encoder->type_length == -1 &&
		!inspect_varlena((struct varlena *) DatumGetPointer(value), length_max, &size, cell, flaws))
		return;
	if (encoder->is_guarded || size > TRUSTED_BYTES_MAX)
		call_function_guarded(encoder, value, length_max, cell, flaws);
	else
		call_function(encoder, value, length_max, cell, flaws);
}

static inline void
set_datum(Cell *cell, Datum value, uint32 length)
{
	cell->kind = VALUE_PRESENT;
	cell->datum = value;
	cell->length = length;
}

void
encoder_prepare(ColumnEncoder *encoder, Datum value, Size length_max, Cell *cell, uint32 *flaws)
{
	const char *bytes = DatumGetPointer(value);

	switch (encoder->kind)
	{
		case ENCODE_BYTE:
			set_datum(cell, value, 1);
			break;
		case ENCODE_INT16:
			set_datum(cell, value, 2);
			break;
		case ENCODE_INT32:
			set_datum(cell, value, 4);
			break;
		case ENCODE_INT64:
			set_datum(cell, value, 8);
			break;
		case ENCODE_IMAGE:
			set_bytes(cell, bytes, (Size) encoder->type_length, length_max, flaws);
			break;
		case ENCODE_NAME:
			set_text(encoder, cell, bytes, strnlen(bytes, NAMEDATALEN), length_max, flaws);
			break;
		case ENCODE_PAYLOAD:
			prepare_payload(encoder, value, length_max, cell, flaws);
			break;
		case ENCODE_SEND:
		case ENCODE_TEXT:
			prepare_by_function(encoder, value, length_max, cell, flaws);
			break;
	}
}

/* ------------------------------------------------------------------------------------------------
 * Storing
 */

uint8 *
encoder_store(const ColumnEncoder *encoder, const Cell *cell, uint8 *at)
{
	uint16 two_bytes;
	uint32 four_bytes;
	uint64 eight_bytes;

	switch (encoder->kind)
	{
		case ENCODE_BYTE:
			*at = (uint8) DatumGetChar(cell->datum);
			return at + 1;
		case ENCODE_INT16:
			two_bytes = pg_hton16((uint16) DatumGetInt16(cell->datum));
			memcpy(at, &two_bytes, sizeof(two_bytes));
			return at + sizeof(two_bytes);
		case ENCODE_INT32:
			four_bytes = pg_hton32((uint32) DatumGetInt32(cell->datum));
			memcpy(at, &four_bytes, sizeof(four_bytes));
			return at + sizeof(four_bytes);
		case ENCODE_INT64:
			eight_bytes = pg_hton64((uint64) DatumGetInt64(cell->datum));
			memcpy(at, &eight_bytes, sizeof(eight_bytes));
			return at + sizeof(eight_bytes);
		default:
			memcpy(at, cell->bytes, cell->length);
			return at + cell->length;
	}
}
