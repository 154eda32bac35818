/*
 * delta/schedule.h
 *     Schedules of stream tables, as text and as numbers.
 */
#ifndef PGTRICKLE_SCHEDULE_H
#define PGTRICKLE_SCHEDULE_H

#include "postgres.h"

#include "cron.h"

typedef enum ScheduleKind
{
	SCHEDULE_CONTINUOUS, /* as soon as changes arrive */
	SCHEDULE_INTERVAL, /* never staler than interval_ms */
	SCHEDULE_CALCULATED, /* as its consumers need it */
	SCHEDULE_MANUAL, /* only when somebody asks */
	SCHEDULE_CRON /* at times of the calendar */
} ScheduleKind;

typedef struct Schedule
{
	ScheduleKind kind;
	int64		 interval_ms; /* SCHEDULE_INTERVAL, else 0 */
	CronExpression cron; /* SCHEDULE_CRON */
} Schedule;

#define SCHEDULE_INTERVAL_MS_MIN INT64CONST(100)
#define SCHEDULE_INTERVAL_MS_MAX (INT64CONST(366) * 24 * 60 * 60 * 1000)

/* Why a text is no schedule: a sentence. */
typedef struct ScheduleError
{
	char detail[160];
} ScheduleError;

/* Reads a schedule; raises no error, so that a setting's check hook can use it. */
extern bool schedule_parse(const char *text, Schedule *schedule, ScheduleError *error);

#endif /* PGTRICKLE_SCHEDULE_H */
