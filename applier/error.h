/*
 * applier/error.h
 *     How functions fail.
 *
 * A function that can fail returns bool, takes `Error *error` last and is marked MUST_CHECK.
 * Whoever detects the failure fills it once; callers may add context in front; only the main loop
 * (or a subcommand's top) logs it and decides what to do.
 */
#ifndef PGTRICKLE_APPLIER_ERROR_H
#define PGTRICKLE_APPLIER_ERROR_H

#include <stdbool.h>

#include <libpq-fe.h>

#define MUST_CHECK __attribute__((warn_unused_result))

/* What the main loop should do about it. */
typedef enum FailKind
{
	FAIL_NONE,
	FAIL_RETRY, /* connect again after a while */
	FAIL_STOP, /* somebody asked us to leave */
	FAIL_FATAL /* trying again cannot help: say so and leave */
} FailKind;

typedef struct Error
{
	FailKind kind;
	char	 sqlstate[6]; /* of a server error, else empty */
	char	 message[1024];
	char	 detail[1024];
	char	 hint[1024];
} Error;

/* Fill an error; both return false, for `return error_set(...)`. */
extern bool error_set(Error *error, FailKind kind, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
extern bool error_set_sqlstate(Error *error, FailKind kind, const char *sqlstate,
							   const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Puts "context: " in front of the message.  Returns false. */
extern bool
error_context(Error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Full sentences that go with the message. */
extern void
error_detail(Error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
extern void error_hint(Error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Takes message, detail, hint and SQLSTATE from a failed result; `what` says what could not be done
 * and may be NULL.  Does not clear the result.  Returns false.
 */
extern bool
error_from_result(Error *error, FailKind kind, const PGresult *result, const char *what);

/* The same from a connection's last error. */
extern bool
error_from_connection(Error *error, FailKind kind, const PGconn *conn, const char *what);

extern bool error_is(const Error *error, const char *sqlstate);

#endif /* PGTRICKLE_APPLIER_ERROR_H */
