/*
 * delta/schedule.c
 *     Reads the schedules of stream tables: 'continuous', '5s', '1h30m', 'calculated', 'manual'.
 *
 * Only what the text says.  What 'calculated' comes to depends on the consumers and is worked out in SQL
 * (applier_catalog in sql/).
 *
 *     duration := (digits unit)+      unit := ms | s | m | h | d | w      blanks may stand between
 */
#include "postgres.h"

#include <ctype.h>

#include "common/int.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "schedule.h"

PG_FUNCTION_INFO_V1(pgtrickle_check_schedule);
PG_FUNCTION_INFO_V1(pgtrickle_schedule_kind);
PG_FUNCTION_INFO_V1(pgtrickle_schedule_ms);
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
	"Use a duration such as '500ms', '5s', '1m' or '1h30m', or 'continuous', 'calculated' or 'manual'."

static const char *
skip_blanks(const char *text)
{
	while (isspace((unsigned char) *text))
		text++;
	return text;
}

/* A field of a cron expression: digits, stars and their punctuation, or a name such as MON. */
static bool
looks_like_cron_field(const char *field, size_t length)
{
	bool has_value = false;

	for (size_t i = 0; i < length; i++)
	{
		if (isdigit((unsigned char) field[i]) || strchr("*?", field[i]) != NULL)
			has_value = true;
		else if (!isalpha((unsigned char) field[i]) && strchr("/,-#", field[i]) == NULL)
			return false;
	}
	return has_value || length == 3;
}

/* '@daily', or five or six fields apart by blanks. */
static bool
looks_like_cron(const char *text)
{
	int fields = 0;

	if (*text == '@')
		return true;
	for (text = skip_blanks(text); *text != '\0'; text = skip_blanks(text))
	{
		size_t length = strcspn(text, " \t\n\r");

		if (!looks_like_cron_field(text, length))
			return false;
		fields++;
		text += length;
	}
	return fields == 5 || fields == 6;
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
	if (looks_like_cron(word))
	{
		schedule->kind = SCHEDULE_CRON;
		return true;
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

/*
 * pgtrickle.check_schedule(text) returns text: the schedule as the catalog holds it, lower case and without
 * blanks around it; an error when it is none, or none that is supported.
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
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cron expressions are not supported as schedules"),
			 errdetail("The schedule is \"%s\".", given),
			 errhint(
				 "Use schedule => 'manual' and call pgtrickle.refresh_stream_table() from a job at these times, or a duration such as '1h'.")));
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
