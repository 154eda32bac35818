/*
 * decoder/conversion.c
 *     Text in the encoding of the reader's database, when that is another one than ours.
 *
 * Send functions convert by themselves to the encoding of the "client", so that is set too; they
 * raise an error about a character that cannot be expressed, hence encoder.c guards them.  What we
 * send without them (payloads, output functions, names) is converted here, by the server's
 * conversion functions in the mode that reports failure instead of raising it.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "conversion.h"

Conversion
conversion_create(const char *encoding_name)
{
	Conversion conversion = {.encoding = GetDatabaseEncoding()};

	if (encoding_name != NULL)
		conversion.encoding = pg_valid_server_encoding(encoding_name);
	if (conversion.encoding < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for output plugin option \"encoding\": \"%s\"", encoding_name),
				 errhint("Give the encoding of a database, such as UTF8.")));
	return conversion;
}

void
conversion_prepare(Conversion *conversion)
{
	int database_encoding = GetDatabaseEncoding();

	if (conversion->is_ready || conversion->encoding == database_encoding ||
		conversion->encoding == PG_SQL_ASCII)
		return;
	if (database_encoding != PG_SQL_ASCII)
		conversion->function = FindDefaultConversionProc(database_encoding, conversion->encoding);
	if ((database_encoding != PG_SQL_ASCII && !OidIsValid(conversion->function)) ||
		PrepareClientEncoding(conversion->encoding) < 0 ||
		SetClientEncoding(conversion->encoding) < 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("default conversion function for encoding \"%s\" to \"%s\" does not exist",
							   pg_encoding_to_char(database_encoding),
							   pg_encoding_to_char(conversion->encoding))));
	conversion->is_ready = true;
}

/* Every encoding of a database has ASCII in it. */
static bool
is_ascii(const char *text, Size length)
{
	for (Size i = 0; i < length; i++)
	{
		if (IS_HIGHBIT_SET(text[i]))
			return false;
	}
	return true;
}

/* The server's function counts bytes as int, and takes as many as surely fit the room it is given. */
static bool
call_conversion(const Conversion *conversion, const char **text, Size *length)
{
	Size  capacity = *length * MAX_CONVERSION_GROWTH + 1;
	char *converted = MemoryContextAllocHuge(CurrentMemoryContext, capacity);
	Size  taken = 0;
	Size  written = 0;

	while (taken < *length)
	{
		int count = pg_do_encoding_conversion_buf(
			conversion->function, GetDatabaseEncoding(), conversion->encoding,
			(unsigned char *) unconstify(char *, *text) + taken, (int) (*length - taken),
			(unsigned char *) converted + written, (int) Min(capacity - written, PG_INT32_MAX),
			true);

		if (count <= 0)
			return false;
		taken += (Size) count;
		written += strlen(converted + written);
	}
	*text = converted;
	*length = written;
	return true;
}

/*
 * With a part of the text taken, the function may have stopped because of the room or because of a
 * character; called again at the character, it takes nothing.
 */
bool
conversion_text(const Conversion *conversion, const char **text, Size *length)
{
	if (!conversion_is_active(conversion) || is_ascii(*text, *length))
		return true;
	if (!OidIsValid(conversion->function)) /* from SQL_ASCII: it may be what it should be */
		return pg_verify_mbstr(conversion->encoding, *text, (int) *length, true);
	return call_conversion(conversion, text, length);
}
