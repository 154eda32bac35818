/*
 * delta/cron.h
 *     Cron expressions: times of the calendar at which something is to happen.
 */
#ifndef PGTRICKLE_CRON_H
#define PGTRICKLE_CRON_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "pgtime.h"

/* Sets of values as bits: bit i for the value i. */
typedef struct CronExpression
{
	uint64		seconds;
	uint64		minutes;
	uint64		hours;
	uint64		days_of_month;
	uint64		months;
	uint64		days_of_week;	/* 0: Sunday */
	bool		any_hour;
	bool		any_day_of_month;
	bool		any_day_of_week;
	char		time_zone[TZ_STRLEN_MAX + 1];	/* empty: the expression names none */
} CronExpression;

/* Is this text, which need not be right, meant as a cron expression?  No blanks in front. */
extern bool cron_looks_like_it(const char *text);

/*
 * Reads an expression; false with a sentence in `detail` if it is none, or has no time at all.  Raises no error.
 */
extern bool cron_parse(const char *text, CronExpression *cron, char *detail, size_t detail_size);

/* The first time after `after`.  False: there is none within the next years. */
extern bool cron_next(const CronExpression *cron, pg_tz *time_zone, TimestampTz after, TimestampTz *next);

#endif							/* PGTRICKLE_CRON_H */
