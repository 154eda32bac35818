/*
 * applier/log.c
 *     What the applier says, and the clock it goes by.
 */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

LogLevel log_level_min = LEVEL_LOG;

static const char *const level_names[] = {"DEBUG", "LOG", "WARNING", "ERROR", "FATAL"};

/* One line, written at once so that lines of several processes do not mix. */
static void
log_line(const char *label, const char *message)
{
	struct timespec now;
	struct tm		broken_down;
	char			when[32];
	char			line[4096];
	int				length;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &broken_down);
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &broken_down);
	length = snprintf(line, sizeof(line), "%s.%03ld UTC [%d] %s:  %s\n", when,
					  now.tv_nsec / 1000000, (int) getpid(), label, message);
	if (length >= (int) sizeof(line))
	{
		length = (int) sizeof(line) - 1;
		line[length - 1] = '\n';
	}
	if (write(STDERR_FILENO, line, (size_t) length) < 0)
		return; /* nobody to tell */
}

void
log_event(LogLevel level, const char *format, ...)
{
	char	message[2048];
	va_list arguments;

	if (!log_is_wanted(level))
		return;
	va_start(arguments, format);
	vsnprintf(message, sizeof(message), format, arguments);
	va_end(arguments);
	log_line(level_names[level], message);
}

void
log_hint(LogLevel level, const char *format, ...)
{
	char	message[2048];
	va_list arguments;

	if (!log_is_wanted(level))
		return;
	va_start(arguments, format);
	vsnprintf(message, sizeof(message), format, arguments);
	va_end(arguments);
	log_line("HINT", message);
}

void
log_error(LogLevel level, const Error *error)
{
	if (!log_is_wanted(level))
		return;
	log_line(level_names[level], error->message);
	if (error->detail[0] != '\0')
		log_line("DETAIL", error->detail);
	if (error->hint[0] != '\0')
		log_line("HINT", error->hint);
}

Micros
clock_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (Micros) now.tv_sec * MICROS_PER_SECOND + now.tv_nsec / 1000;
}
