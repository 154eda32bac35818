/*
 * applier/log.h
 *     What the applier says, in PostgreSQL's message style, to standard error.
 *
 * One line per event, with DETAIL and HINT on lines of their own, each with time, process id and
 * level.
 */
#ifndef PGTRICKLE_APPLIER_LOG_H
#define PGTRICKLE_APPLIER_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

typedef enum LogLevel
{
	LEVEL_DEBUG,
	LEVEL_LOG, /* life cycle */
	LEVEL_WARNING, /* odd but handled */
	LEVEL_ERROR, /* a promise is broken */
	LEVEL_FATAL /* the process ends */
} LogLevel;

/* Messages below this level are not written. */
extern LogLevel log_level_min;

extern void
log_event(LogLevel level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* An error with its detail and hint. */
extern void log_error(LogLevel level, const Error *error);
extern void log_hint(LogLevel level, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline bool
log_is_wanted(LogLevel level)
{
	return level >= log_level_min;
}

/* Microseconds of a clock that only moves forward; for all deadlines. */
typedef int64_t Micros;

#define MICROS_PER_SECOND INT64_C(1000000)
#define MICROS_NEVER INT64_MAX

extern Micros clock_now(void);

#endif /* PGTRICKLE_APPLIER_LOG_H */
