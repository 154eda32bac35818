/*
 * delta/schedule.c
 *     Reads the schedules of stream tables: 'continuous', '5s', '1h30m', 'calculated', 'manual', '0 6 * * mon-fri'.
 *
 * Only what the text says.  What 'calculated' comes to depends on the consumers and is worked out in SQL
 * (applier_catalog in sql/).
 *
 *     duration := (digits unit)+      unit := ms | s | m | h | d | w      blanks may stand between
 *
 * cron.c reads cron expressions.
 */
#include "postgres.h"

#include <ctype.h>

#include "common/int.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "schedule.h"

PG_FUNCTION_INFO_V1(pgtrickle_check_schedule);
PG_FUNCTION_INFO_V1(pgtrickle_schedule_kind);
PG_FUNCTION_INFO_V1(pgtrickle_schedule_ms);
PG_FUNCTION_INFO_V1(pgtrickle_next_cron_time);
PG_FUNCTION_INFO_V1(pgtrickle_parse_duration_seconds);

static const struct
{
	const char	*name;
	ScheduleKind kind;
} schedule_words[] = {
	{"continuous", SCHEDULE_CONTINUOUS},
	{"calculated", SCHEDULE_CALCULATED},
	{"manual", SCHEDULE_MANUAL},
};

static const struct
{
	const char *name;
	int64		milliseconds;
} duration_units[] = {
	{"ms", 1},
	{"s", 1000},
	{"m", 60 * 1000},
	{"h", 60 * 60 * 1000},
	{"d", INT64CONST(24) * 60 * 60 * 1000},
	{"w", INT64CONST(7) * 24 * 60 * 60 * 1000},
};

static const char *const kind_names[] = {
	[SCHEDULE_CONTINUOUS] = "continuous",
	[SCHEDULE_INTERVAL] = "interval",
	[SCHEDULE_CALCULATED] = "calculated",
	[SCHEDULE_MANUAL] = "manual",
	[SCHEDULE_CRON] = "cron",
};

#define DURATION_HINT                                                                              \
	"Use a duration such as '500ms', '5s', '1m' or '1h30m', a cron expression such as '*/5 * * * *', or 'continuous', 'calculated' or 'manual'."

static const char *
skip_blanks(const char *text)
{
	while (isspace((unsigned char) *text))
		text++;
	return text;
}

/* Reads one "digits unit", advances *text past it. */
static bool
parse_duration_part(const char **text, int64 *total_ms, ScheduleError *error)
{
	const char *digits = *text;
	size_t		ndigits = strspn(digits, "0123456789");
	const char *unit = skip_blanks(digits + ndigits);
	size_t		unit_length = 0;
	int64		value = 0;

	while (isalpha((unsigned char) unit[unit_length]))
		unit_length++;
	if (ndigits == 0 || unit_length == 0)
	{
		snprintf(error->detail, sizeof(error->detail),
				 "A number and a unit are expected at \"%.40s\".", digits);
		return false;
	}
	for (size_t i = 0; i < ndigits; i++)
	{
		if (pg_mul_s64_overflow(value, 10, &value) ||
			pg_add_s64_overflow(value, digits[i] - '0', &value))
		{
			snprintf(error->detail, sizeof(error->detail),
					 "The number at \"%.40s\" is out of range.", digits);
			return false;
		}
	}
	for (size_t i = 0; i < lengthof(duration_units); i++)
	{
		int64 part_ms;

		if (strlen(duration_units[i].name) != unit_length ||
			pg_strncasecmp(unit, duration_units[i].name, unit_length) != 0)
			continue;
		if (pg_mul_s64_overflow(value, duration_units[i].milliseconds, &part_ms) ||
			pg_add_s64_overflow(*total_ms, part_ms, total_ms))
		{
			snprintf(error->detail, sizeof(error->detail), "The duration is out of range.");
			return false;
		}
		*text = skip_blanks(unit + unit_length);
		return true;
	}
	snprintf(error->detail, sizeof(error->detail), "Unit \"%.*s\" is none of ms, s, m, h, d, w.",
			 (int) Min(unit_length, 20), unit);
	return false;
}

/* Reads a duration of any length, in milliseconds. */
static bool
duration_parse(const char *text, int64 *total_ms, ScheduleError *error)
{
	*total_ms = 0;
	text = skip_blanks(text);
	do
	{
		if (!parse_duration_part(&text, total_ms, error))
			return false;
	} while (*text != '\0');
	return true;
}

bool
schedule_parse(const char *text, Schedule *schedule, ScheduleError *error)
{
	const char *word = skip_blanks(text);
	size_t		length = strlen(word);

	schedule->interval_ms = 0;
	while (length > 0 && isspace((unsigned char) word[length - 1]))
		length--;
	if (length == 0)
	{
		snprintf(error->detail, sizeof(error->detail), "The schedule is empty.");
		return false;
	}
	for (size_t i = 0; i < lengthof(schedule_words); i++)
	{
		if (strlen(schedule_words[i].name) == length &&
			pg_strncasecmp(word, schedule_words[i].name, length) == 0)
		{
			schedule->kind = schedule_words[i].kind;
			return true;
		}
	}
	if (cron_looks_like_it(word))
	{
		schedule->kind = SCHEDULE_CRON;
		return cron_parse(word, &schedule->cron, error->detail, sizeof(error->detail));
	}

	schedule->kind = SCHEDULE_INTERVAL;
	if (!duration_parse(word, &schedule->interval_ms, error))
		return false;
	if (schedule->interval_ms < SCHEDULE_INTERVAL_MS_MIN)
	{
		snprintf(error->detail, sizeof(error->detail),
				 "The shortest duration is %dms; 'continuous' is faster.",
				 (int) SCHEDULE_INTERVAL_MS_MIN);
		return false;
	}
	if (schedule->interval_ms > SCHEDULE_INTERVAL_MS_MAX)
	{
		snprintf(error->detail, sizeof(error->detail), "The longest duration is 366d.");
		return false;
	}
	return true;
}

static Schedule
schedule_from_text(const char *text)
{
	Schedule	  schedule;
	ScheduleError error;

	if (!schedule_parse(text, &schedule, &error))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid schedule \"%s\"", text),
				 errdetail("%s", error.detail), errhint(DURATION_HINT)));
	return schedule;
}

/* One blank between fields, none around, names in lower case; the name of a time zone stays as it is. */
static char *
normal_cron(char *given)
{
	char *normal = given;
	bool  in_time_zone = false;

	for (const char *from = skip_blanks(given); *from != '\0'; from++)
	{
		if (isspace((unsigned char) *from))
		{
			in_time_zone = false;
			if (*skip_blanks(from) != '\0' && normal[-1] != ' ')
				*normal++ = ' ';
			continue;
		}
		in_time_zone |= *from == '=';
		*normal++ = in_time_zone ? *from : pg_tolower((unsigned char) *from);
	}
	*normal = '\0';
	if (strncmp(given, "cron_tz=", 8) == 0)
		memcpy(given, "CRON_TZ=", 8);
	return given;
}

/*
 * pgtrickle.check_schedule(text) returns text: the schedule as the catalog holds it, lower case and without
 * blanks around it; an error when it is none.
 */
Datum
pgtrickle_check_schedule(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		ereport(
			ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("schedule must not be null"),
			 errhint(
				 "Use 'calculated' for a schedule that follows the stream tables which read this one.")));

	char	*given = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Schedule schedule = schedule_from_text(given);

	if (schedule.kind == SCHEDULE_CRON)
		PG_RETURN_TEXT_P(cstring_to_text(normal_cron(given)));
	if (schedule.kind != SCHEDULE_INTERVAL)
		PG_RETURN_TEXT_P(cstring_to_text(kind_names[schedule.kind]));

	char *normal = given;

	for (char *from = given; *from != '\0'; from++)
	{
		if (!isspace((unsigned char) *from))
			*normal++ = pg_tolower((unsigned char) *from);
	}
	*normal = '\0';
	PG_RETURN_TEXT_P(cstring_to_text(given));
}

/* pgtrickle.schedule_kind(text) returns text: continuous, interval, calculated, manual or cron. */
Datum
pgtrickle_schedule_kind(PG_FUNCTION_ARGS)
{
	Schedule schedule = schedule_from_text(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	PG_RETURN_TEXT_P(cstring_to_text(kind_names[schedule.kind]));
}

/* pgtrickle.schedule_ms(text) returns bigint: the duration, 0 for continuous, NULL for the others. */
Datum
pgtrickle_schedule_ms(PG_FUNCTION_ARGS)
{
	Schedule schedule = schedule_from_text(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (schedule.kind != SCHEDULE_INTERVAL && schedule.kind != SCHEDULE_CONTINUOUS)
		PG_RETURN_NULL();
	PG_RETURN_INT64(schedule.interval_ms);
}

/*
 * pgtrickle.next_cron_time(schedule text, after timestamptz, time_zone text) returns timestamptz: the first of its times after a moment, NULL
 * for schedules that are no cron expressions.  The time zone is for expressions that name none.
 */
Datum
pgtrickle_next_cron_time(PG_FUNCTION_ARGS)
{
	Schedule	schedule = schedule_from_text(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(2));
	pg_tz	   *time_zone;
	TimestampTz next;

	if (schedule.kind != SCHEDULE_CRON)
		PG_RETURN_NULL();
	if (schedule.cron.time_zone[0] != '\0')
		name = schedule.cron.time_zone;
	time_zone = pg_tzset(name);
	if (time_zone == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("time zone \"%s\" not recognized", name)));
	if (!cron_next(&schedule.cron, time_zone, PG_GETARG_TIMESTAMPTZ(1), &next))
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(next);
}

/* pgtrickle.parse_duration_seconds(text) returns bigint: a duration in seconds, rounded down. */
Datum
pgtrickle_parse_duration_seconds(PG_FUNCTION_ARGS)
{
	char		 *given = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int64		  total_ms;
	ScheduleError error;

	if (!duration_parse(given, &total_ms, &error))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid duration \"%s\"", given), errdetail("%s", error.detail)));
	PG_RETURN_INT64(total_ms / 1000);
}
