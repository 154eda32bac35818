/*
 * delta/row_text.c
 *     Rows and keys as text for messages, cut to a bearable length.
 */
#include "row_text.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/lsyscache.h"

#define VALUE_BYTES_MAX 64
#define ROW_BYTES_MAX 1024

static void
append_value(StringInfo text, Form_pg_attribute att, Datum value, bool isnull)
{
	Oid	 output_function;
	bool is_varlena;

	if (isnull)
	{
		appendStringInfoString(text, "null");
		return;
	}
	getTypeOutputInfo(att->atttypid, &output_function, &is_varlena);

	char *value_text = OidOutputFunctionCall(output_function, value);
	int	  length = (int) strlen(value_text);
	int	  kept =
		  length <= VALUE_BYTES_MAX ? length : pg_mbcliplen(value_text, length, VALUE_BYTES_MAX);

	appendBinaryStringInfo(text, value_text, kept);
	if (kept < length)
		appendStringInfoString(text, "...");
}

char *
row_text_key(TupleDesc tupdesc, int nkeys, const AttrNumber *attnos, const Datum *keys,
			 const bool *nulls)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoChar(&text, '(');
	for (int i = 0; i < nkeys; i++)
	{
		if (i > 0)
			appendStringInfoString(&text, ", ");
		appendStringInfoString(&text, NameStr(TupleDescAttr(tupdesc, attnos[i] - 1)->attname));
	}
	appendStringInfoString(&text, ")=(");
	for (int i = 0; i < nkeys; i++)
	{
		if (i > 0)
			appendStringInfoString(&text, ", ");
		append_value(&text, TupleDescAttr(tupdesc, attnos[i] - 1), keys[i], nulls[i]);
	}
	appendStringInfoChar(&text, ')');
	return text.data;
}

char *
row_text_row(TupleDesc tupdesc, int natts, const Datum *values, const bool *nulls)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoChar(&text, '(');
	for (int i = 0; i < natts; i++)
	{
		if (i > 0)
			appendStringInfoString(&text, ", ");
		if (text.len > ROW_BYTES_MAX)
		{
			appendStringInfoString(&text, "...");
			break;
		}
		append_value(&text, TupleDescAttr(tupdesc, i), values[i], nulls[i]);
	}
	appendStringInfoChar(&text, ')');
	return text.data;
}
