/*
 * decoder/options.c
 *     The options of the plugin: read, checked, explained when wrong.
 *
 * Errors are welcome here, and only here: the session is just starting and its user reads them.
 * Since any role with REPLICATION may start the plugin with any options, none of them names a file,
 * runs SQL or loads code.
 */
#include "postgres.h"

#include "nodes/value.h"
#include "nodes/parsenodes.h"

#include "options.h"

/* What the option means with this value, or an error. */
typedef struct NumberOption
{
	const char *name;
	int64		min;
	int64		max;
	const char *unit; /* for the hint */
} NumberOption;

static int64
parse_number(const NumberOption *option, const char *text)
{
	int64		number = 0;
	const char *at = text;

	while (*at >= '0' && *at <= '9' && number <= option->max)
		number = number * 10 + (*at++ - '0');
	if (at == text || *at != '\0' || number < option->min || number > option->max)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for output plugin option \"%s\": \"%s\"", option->name, text),
			 errhint("Give a number of %s between " INT64_FORMAT " and " INT64_FORMAT ".",
					 option->unit, option->min, option->max)));
	return number;
}

static int
parse_proto_version(const char *text)
{
	if (strcmp(text, "1") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream version \"%s\" is not supported", text),
				 errdetail("This pgtrickle_decoder speaks version %d.", PROTO_VERSION),
				 errhint("Install the same release of pgtrickle on the source server and where the "
						 "applier runs.")));
	return PROTO_VERSION;
}

static bool
parse_text_types(const char *text)
{
	if (strcmp(text, "user") != 0 && strcmp(text, "none") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for output plugin option \"text_types\": \"%s\"", text),
				 errhint("Give \"user\" when another server reads the stream, else \"none\".")));
	return strcmp(text, "user") == 0;
}

static bool
parse_compression(const char *text)
{
	if (strcmp(text, "zstd") != 0 && strcmp(text, "none") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for output plugin option \"compression\": \"%s\"", text),
				 errhint("Give \"zstd\" or \"none\".")));
	return strcmp(text, "zstd") == 0;
}

static void
parse_option(DecoderOptions *options, const char *name, const char *text)
{
	static const NumberOption batch_bytes = {"batch_bytes", 1, BATCH_BYTES_MAX, "bytes"};
	static const NumberOption value_bytes_max = {"value_bytes_max", 1, VALUE_BYTES_MAX, "bytes"};

	if (strcmp(name, "proto_version") == 0)
		options->proto_version = parse_proto_version(text);
	else if (strcmp(name, "interest") == 0)
		options->interest = text;
	else if (strcmp(name, "encoding") == 0)
		options->encoding = text;
	else if (strcmp(name, "text_types") == 0)
		options->user_types_as_text = parse_text_types(text);
	else if (strcmp(name, "compression") == 0)
		options->is_compressed = parse_compression(text);
	else if (strcmp(name, batch_bytes.name) == 0)
		options->batch_bytes = (Size) parse_number(&batch_bytes, text);
	else if (strcmp(name, value_bytes_max.name) == 0)
		options->value_bytes_max = (Size) parse_number(&value_bytes_max, text);
	else
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("unrecognized output plugin option \"%s\"", name),
				 errhint("Valid options are \"proto_version\", \"interest\", \"text_types\", "
						 "\"encoding\", \"compression\", \"batch_bytes\" and \"value_bytes_max\".")));
}

/* Lists of options are short. */
static void
refuse_duplicate(List *elements, DefElem *element)
{
	ListCell *lc;

	foreach(lc, elements)
	{
		DefElem *earlier = (DefElem *) lfirst(lc);

		if (earlier == element)
			return;
		if (strcmp(earlier->defname, element->defname) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("output plugin option \"%s\" is given twice", element->defname)));
	}
}

DecoderOptions
options_parse(List *elements, bool is_slot_creation)
{
	DecoderOptions options = {
		.batch_bytes = BATCH_BYTES_DEFAULT, .value_bytes_max = VALUE_BYTES_DEFAULT, .interest = ""};
	ListCell *lc;

	foreach(lc, elements)
	{
		DefElem *element = (DefElem *) lfirst(lc);

		if (element->arg == NULL)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("output plugin option \"%s\" needs a value", element->defname)));
		refuse_duplicate(elements, element);
		parse_option(&options, element->defname, strVal(element->arg));
	}

	if (options.proto_version == 0 && !is_slot_creation)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("output plugin option \"proto_version\" is missing"),
						errhint("Give \"proto_version\" '%d'.", PROTO_VERSION)));
	return options;
}
