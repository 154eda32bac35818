/*
 * delta/cron.c
 *     Cron expressions: reading them, and the next time after a moment.
 *
 *     expression := [CRON_TZ=zone] ([second] minute hour day-of-month month day-of-week | @hourly | @daily ...)
 *     field      := part {, part}        part := (* | ? | value [- value]) [/ step]        value := number | name of a month or day
 *
 * As in every cron: when both the day of the month and the day of the week are restricted, one of them is enough; 7 is Sunday, too.
 *
 * Days with 23 and 25 hours.  An expression for every hour goes by elapsed time: it neither pauses nor repeats anything.  One for certain
 * hours means what clocks on the wall show: it happens once a day also if the clock shows its time twice, and if the clock
 * leaves its time out, by as much later as was left out.  This is what the widespread crons do.
 *
 * No library does this in C that is packaged with a licence that fits (docs/adr/0007-own-cron.md).
 */
#include "postgres.h"

#include <ctype.h>

#include "cron.h"
#include "port/pg_bitutils.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#define SECONDS_PER_LOCAL_DAY (24 * 60 * 60)
#define SEARCH_DAYS_MAX (9 * 366)	/* 29 February may be eight years away */
#define CLOCK_CHANGE_SECONDS_MAX (3 * 60 * 60)	/* by how much clocks are put on or back at once, generously */

typedef struct CronField
{
	const char *name;
	int			min;
	int			max;
	const char *value_names;	/* three letters each, from min on; NULL: none */
} CronField;

static const CronField fields[] = {
	{"second", 0, 59, NULL},
	{"minute", 0, 59, NULL},
	{"hour", 0, 23, NULL},
	{"day of the month", 1, 31, NULL},
	{"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec"},
	{"day of the week", 0, 7, "sunmontuewedthufrisat"},
};

static const char *const nicknames[][2] = {
	{"@hourly", "0 * * * *"},
	{"@daily", "0 0 * * *"},
	{"@midnight", "0 0 * * *"},
	{"@weekly", "0 0 * * 0"},
	{"@monthly", "0 0 1 * *"},
	{"@yearly", "0 0 1 1 *"},
	{"@annually", "0 0 1 1 *"},
};

#define TIME_ZONE_PREFIX "CRON_TZ="

/* ---- reading ---- */

typedef struct CronReader
{
	const char *at;
	const CronField *field;
	char	   *detail;
	size_t		detail_size;
} CronReader;

static bool
fail(CronReader *reader, const char *format,...) pg_attribute_printf(2, 3);

static bool
fail(CronReader *reader, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vsnprintf(reader->detail, reader->detail_size, format, args);
	va_end(args);
	return false;
}

static bool
read_name(CronReader *reader, int *value)
{
	const char *names = reader->field->value_names;

	for (int i = 0; names != NULL && names[3 * i] != '\0'; i++)
	{
		if (pg_strncasecmp(reader->at, names + 3 * i, 3) == 0)
		{
			*value = reader->field->min + i;
			reader->at += 3;
			return true;
		}
	}
	return fail(reader, "A value of the field \"%s\" is expected at \"%.20s\".", reader->field->name, reader->at);
}

static bool
read_number(CronReader *reader, int *value)
{
	const char *start = reader->at;

	if (!isdigit((unsigned char) *reader->at))
		return read_name(reader, value);
	*value = 0;
	while (isdigit((unsigned char) *reader->at) && reader->at - start < 4)
		*value = *value * 10 + (*reader->at++ - '0');
	return true;
}

static bool
read_value(CronReader *reader, int *value)
{
	if (!read_number(reader, value))
		return false;
	if (*value < reader->field->min || *value > reader->field->max)
		return fail(reader, "%d is no value of the field \"%s\", which goes from %d to %d.", *value,
					reader->field->name, reader->field->min, reader->field->max);
	return true;
}

static bool
read_step(CronReader *reader, int *step)
{
	*step = 1;
	if (*reader->at != '/')
		return true;
	reader->at++;
	if (!isdigit((unsigned char) *reader->at))
		return fail(reader, "A step is expected after \"/\" in the field \"%s\".", reader->field->name);
	if (!read_number(reader, step))
		return false;
	if (*step < 1 || *step > reader->field->max)
		return fail(reader, "%d is no step for the field \"%s\".", *step, reader->field->name);
	return true;
}

/* "*", "5", "1-5", each with "/2" or without. */
static bool
read_part(CronReader *reader, uint64 *values, bool *is_any)
{
	int			first = reader->field->min;
	int			last = reader->field->max;
	int			step;

	if (*reader->at == '*' || (*reader->at == '?' && strncmp(reader->field->name, "day", 3) == 0))
	{
		*is_any |= reader->at[1] != '/';
		reader->at++;
	}
	else
	{
		if (!read_value(reader, &first))
			return false;
		if (*reader->at == '-')
		{
			reader->at++;
			if (!read_value(reader, &last))
				return false;
		}
		else if (*reader->at != '/')
			last = first;
	}
	if (last < first)
		return fail(reader, "The range %d-%d in the field \"%s\" runs backwards.", first, last, reader->field->name);
	if (!read_step(reader, &step))
		return false;
	for (int value = first; value <= last; value += step)
		*values |= UINT64CONST(1) << value;
	return true;
}

static bool
read_field(CronReader *reader, const CronField *field, uint64 *values, bool *is_any)
{
	*values = 0;
	*is_any = false;
	reader->field = field;
	for (;;)
	{
		if (!read_part(reader, values, is_any))
			return false;
		if (*reader->at != ',')
			break;
		reader->at++;
	}
	if (*reader->at != '\0' && !isspace((unsigned char) *reader->at))
		return fail(reader, "\"%.20s\" is not understood in the field \"%s\".", reader->at, field->name);
	while (isspace((unsigned char) *reader->at))
		reader->at++;
	return true;
}

static int
count_fields(const char *text)
{
	int			count = 0;

	while (*text != '\0')
	{
		count++;
		while (*text != '\0' && !isspace((unsigned char) *text))
			text++;
		while (isspace((unsigned char) *text))
			text++;
	}
	return count;
}

static bool
read_time_zone(CronReader *reader, CronExpression *cron)
{
	const char *name = reader->at + strlen(TIME_ZONE_PREFIX);
	size_t		length = strcspn(name, " \t\n\r");

	if (length == 0 || length >= sizeof(cron->time_zone))
		return fail(reader, "A time zone is expected after " TIME_ZONE_PREFIX ".");
	memcpy(cron->time_zone, name, length);
	cron->time_zone[length] = '\0';
	if (pg_tzset(cron->time_zone) == NULL)
		return fail(reader, "Time zone \"%.60s\" is not recognized.", cron->time_zone);
	reader->at = name + length;
	while (isspace((unsigned char) *reader->at))
		reader->at++;
	return true;
}

static bool
replace_nickname(CronReader *reader)
{
	size_t		length = strcspn(reader->at, " \t\n\r");

	if (*reader->at != '@')
		return true;
	for (size_t i = 0; i < lengthof(nicknames); i++)
	{
		if (strlen(nicknames[i][0]) == length && pg_strncasecmp(reader->at, nicknames[i][0], length) == 0)
		{
			if (reader->at[length + strspn(reader->at + length, " \t\n\r")] != '\0')
				return fail(reader, "Nothing may follow \"%s\".", nicknames[i][0]);
			reader->at = nicknames[i][1];
			return true;
		}
	}
	return fail(reader, "\"%.20s\" is none of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually.", reader->at);
}

static bool
read_expression(CronReader *reader, CronExpression *cron)
{
	int			count;
	bool		ignored;

	if (pg_strncasecmp(reader->at, TIME_ZONE_PREFIX, strlen(TIME_ZONE_PREFIX)) == 0 && !read_time_zone(reader, cron))
		return false;
	if (!replace_nickname(reader))
		return false;
	count = count_fields(reader->at);
	if (count != 5 && count != 6)
		return fail(reader, "A cron expression has five fields, or six with seconds in front; this one has %d.", count);
	cron->seconds = 1;
	if ((count == 6 && !read_field(reader, &fields[0], &cron->seconds, &ignored)) ||
		!read_field(reader, &fields[1], &cron->minutes, &ignored) ||
		!read_field(reader, &fields[2], &cron->hours, &cron->any_hour) ||
		!read_field(reader, &fields[3], &cron->days_of_month, &cron->any_day_of_month) ||
		!read_field(reader, &fields[4], &cron->months, &ignored) ||
		!read_field(reader, &fields[5], &cron->days_of_week, &cron->any_day_of_week))
		return false;
	if ((cron->days_of_week & (1 << 7)) != 0)
		cron->days_of_week |= 1;
	return true;
}

bool
cron_parse(const char *text, CronExpression *cron, char *detail, size_t detail_size)
{
	CronReader	reader = {text, NULL, detail, detail_size};
	TimestampTz next;

	memset(cron, 0, sizeof(*cron));
	if (!read_expression(&reader, cron))
		return false;
	/* 30 February: from any moment on there is none */
	if (!cron_next(cron, pg_tzset("GMT"), 0, &next))
		return fail(&reader, "There is no such day.");
	return true;
}

bool
cron_looks_like_it(const char *text)
{
	return *text == '@' || strchr(text, '*') != NULL || strchr(text, '?') != NULL ||
		pg_strncasecmp(text, TIME_ZONE_PREFIX, strlen(TIME_ZONE_PREFIX)) == 0;
}

/* ---- the next time ---- */

static bool
is_in(uint64 values, int value)
{
	return (values & (UINT64CONST(1) << value)) != 0;
}

/* The smallest value >= `from`; -1: none. */
static int
next_in(uint64 values, int from)
{
	uint64		rest = from >= 64 ? 0 : values & (~UINT64CONST(0) << from);

	return rest == 0 ? -1 : pg_rightmost_one_pos64(rest);
}

static bool
day_matches(const CronExpression *cron, int julian_day)
{
	int			year;
	int			month;
	int			day;
	bool		by_month;
	bool		by_week;

	j2date(julian_day, &year, &month, &day);
	by_month = is_in(cron->days_of_month, day);
	by_week = is_in(cron->days_of_week, j2day(julian_day));
	if (!is_in(cron->months, month))
		return false;
	if (!cron->any_day_of_month && !cron->any_day_of_week)
		return by_month || by_week;
	return by_month && by_week;
}

/* The first second of the day >= `from` at which a clock on the wall shows a wanted time; -1: none. */
static int
next_in_day(const CronExpression *cron, int from)
{
	int			hour = from / 3600;
	int			minute = from / 60 % 60;
	int			second = next_in(cron->seconds, from % 60);

	if (second < 0)
	{
		second = next_in(cron->seconds, 0);
		minute++;
	}
	if (!is_in(cron->hours, hour) || (minute = next_in(cron->minutes, minute)) < 0)
	{
		hour = next_in(cron->hours, is_in(cron->hours, hour) ? hour + 1 : hour);
		minute = next_in(cron->minutes, 0);
		second = next_in(cron->seconds, 0);
	}
	else if (minute != from / 60 % 60)
		second = next_in(cron->seconds, 0);
	return hour < 0 || hour > 23 ? -1 : hour * 3600 + minute * 60 + second;
}

/* A moment as a clock on the wall shows it: the day, and the second in it. */
static void
to_local(TimestampTz moment, pg_tz *time_zone, int *day, int *second)
{
	struct pg_tm tm;
	fsec_t		fraction;
	int			offset;

	if (timestamp2tm(moment, &offset, &tm, &fraction, NULL, time_zone) != 0)
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	*day = date2j(tm.tm_year, tm.tm_mon, tm.tm_mday);
	*second = (tm.tm_hour * 60 + tm.tm_min) * 60 + tm.tm_sec;
}

/* One that is shown twice is the later; one that is left out, as much later as was left out. */
static TimestampTz
from_local(int day, int second, pg_tz *time_zone)
{
	struct pg_tm tm = {0};
	TimestampTz moment;
	int			offset;

	j2date(day, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
	tm.tm_hour = second / 3600;
	tm.tm_min = second / 60 % 60;
	tm.tm_sec = second % 60;
	offset = DetermineTimeZoneOffset(&tm, time_zone);
	if (tm2timestamp(&tm, 0, &offset, &moment) != 0)
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	return moment;
}

/* By what clocks on the wall show; from some hours before, since clocks may have been put back meanwhile. */
static bool
next_by_clock(const CronExpression *cron, pg_tz *time_zone, TimestampTz after, TimestampTz *next)
{
	int			first_day;
	int			from;

	to_local(after - CLOCK_CHANGE_SECONDS_MAX * USECS_PER_SEC, time_zone, &first_day, &from);
	for (int day = first_day; day < first_day + SEARCH_DAYS_MAX; day++, from = 0)
	{
		if (!day_matches(cron, day))
			continue;
		while (from < SECONDS_PER_LOCAL_DAY && (from = next_in_day(cron, from)) >= 0)
		{
			*next = from_local(day, from, time_zone);
			if (*next > after)
				return true;
			from++;
		}
	}
	return false;
}

/* By elapsed time, within the days that match. */
static bool
next_by_elapsed_time(const CronExpression *cron, pg_tz *time_zone, TimestampTz after, TimestampTz *next)
{
	int			day;
	int			second;
	int			first_day;

	after += USECS_PER_SEC - (after % USECS_PER_SEC + USECS_PER_SEC) % USECS_PER_SEC;
	to_local(after, time_zone, &first_day, &second);
	for (day = first_day; day < first_day + SEARCH_DAYS_MAX;)
	{
		int			wanted;

		to_local(after, time_zone, &day, &second);
		if (!day_matches(cron, day))
		{
			after = from_local(day + 1, 0, time_zone);
			continue;
		}
		wanted = next_in_day(cron, second);
		if (wanted == second)
		{
			*next = after;
			return true;
		}
		/* at most to the end of this hour at once: the clock may be changed then */
		if (wanted < 0 || wanted / 3600 > second / 3600)
			wanted = (second / 3600 + 1) * 3600;
		after += (wanted - second) * USECS_PER_SEC;
	}
	return false;
}

bool
cron_next(const CronExpression *cron, pg_tz *time_zone, TimestampTz after, TimestampTz *next)
{
	return cron->any_hour ? next_by_elapsed_time(cron, time_zone, after, next)
		: next_by_clock(cron, time_zone, after, next);
}
