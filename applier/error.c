/*
 * applier/error.c
 *     Filling and extending errors.
 */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void
error_reset(Error *error, FailKind kind, const char *sqlstate)
{
	memset(error, 0, sizeof(*error));
	error->kind = kind;
	if (sqlstate != NULL)
		snprintf(error->sqlstate, sizeof(error->sqlstate), "%s", sqlstate);
}

bool
error_set(Error *error, FailKind kind, const char *format, ...)
{
	va_list arguments;

	error_reset(error, kind, NULL);
	va_start(arguments, format);
	vsnprintf(error->message, sizeof(error->message), format, arguments);
	va_end(arguments);
	return false;
}

bool
error_set_sqlstate(Error *error, FailKind kind, const char *sqlstate, const char *format, ...)
{
	va_list arguments;

	error_reset(error, kind, sqlstate);
	va_start(arguments, format);
	vsnprintf(error->message, sizeof(error->message), format, arguments);
	va_end(arguments);
	return false;
}

bool
error_context(Error *error, const char *format, ...)
{
	char	context[512];
	char	message[sizeof(error->message)];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(context, sizeof(context), format, arguments);
	va_end(arguments);
	memcpy(message, error->message, sizeof(message));
	snprintf(error->message, sizeof(error->message), "%s: %.500s", context, message);
	return false;
}

void
error_detail(Error *error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(error->detail, sizeof(error->detail), format, arguments);
	va_end(arguments);
}

void
error_hint(Error *error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(error->hint, sizeof(error->hint), format, arguments);
	va_end(arguments);
}

/* Copies text of several lines into one, and drops blanks at its end. */
static void
copy_line(char *target, size_t size, const char *source)
{
	size_t length;

	snprintf(target, size, "%s", source);
	for (length = strlen(target); length > 0; length--)
	{
		if (target[length - 1] != '\n' && target[length - 1] != ' ')
			break;
		target[length - 1] = '\0';
	}
	for (char *c = target; *c != '\0'; c++)
	{
		if (*c == '\n' || *c == '\t')
			*c = ' ';
	}
}

bool
error_from_result(Error *error, FailKind kind, const PGresult *result, const char *what)
{
	const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
	const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);

	error_reset(error, kind, PQresultErrorField(result, PG_DIAG_SQLSTATE));
	copy_line(error->message, sizeof(error->message),
			  primary != NULL ? primary : PQresultErrorMessage(result));
	if (error->message[0] == '\0')
		snprintf(error->message, sizeof(error->message), "unexpected result \"%s\"",
				 PQresStatus(PQresultStatus(result)));
	if (detail != NULL)
		copy_line(error->detail, sizeof(error->detail), detail);
	if (hint != NULL)
		copy_line(error->hint, sizeof(error->hint), hint);
	return what != NULL ? error_context(error, "%s", what) : false;
}

bool
error_from_connection(Error *error, FailKind kind, const PGconn *conn, const char *what)
{
	const char *message = conn != NULL ? PQerrorMessage(conn) : "out of memory";

	error_reset(error, kind, NULL);
	copy_line(error->message, sizeof(error->message),
			  message[0] != '\0' ? message : "connection lost");
	return what != NULL ? error_context(error, "%s", what) : false;
}

bool
error_is(const Error *error, const char *sqlstate)
{
	return strcmp(error->sqlstate, sqlstate) == 0;
}
