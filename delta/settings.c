/*
 * delta/settings.c
 *     Defines the extension's settings when the library is loaded.
 *
 * The library needs no preloading: whichever of its functions is called first loads it.  A function written
 * in SQL must therefore not use current_setting(), which fails until then, but pgtrickle.setting().
 */
#include "postgres.h"

#include <limits.h>

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "immediate_merge.h"
#include "schedule.h"
#include "settings.h"

PG_MODULE_MAGIC;

int	  pgtrickle_refresh_timeout_ms = 60 * 1000;
char *pgtrickle_default_schedule = NULL;
int	  pgtrickle_max_consecutive_errors = 5;
int	  pgtrickle_replica_identity = REPLICA_IDENTITY_AUTO;
int	  pgtrickle_replica_identity_lock_timeout_ms = 5 * 1000;
int	  pgtrickle_history_retention_s = 7 * 24 * 60 * 60;
bool  pgtrickle_paranoid_verify = false;
bool  pgtrickle_cost_based = true;
bool  pgtrickle_trust_foreign_keys = true;
int	  pgtrickle_flat_join_inputs_max = -1;
int	  pgtrickle_near_rows_min_pages = 64;
int	  pgtrickle_immediate_keys_max = 64;

static const struct config_enum_entry replica_identity_policies[] = {
	{"auto", REPLICA_IDENTITY_AUTO, false},
	{"require", REPLICA_IDENTITY_REQUIRE, false},
	{"off", REPLICA_IDENTITY_OFF, false},
	{NULL, 0, false}};

static bool check_default_schedule(char **newval, void **extra, GucSource source);

PGDLLEXPORT void _PG_init(void);
PG_FUNCTION_INFO_V1(pgtrickle_setting);

void
_PG_init(void)
{
	DefineCustomIntVariable("pgtrickle.refresh_timeout",
							"How long refresh_stream_table() and verify() wait for the applier.",
							"Zero waits for ever.", &pgtrickle_refresh_timeout_ms, 60 * 1000, 0,
							INT_MAX, PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomStringVariable(
		"pgtrickle.default_schedule",
		"Schedule of stream tables whose schedule is \"calculated\" and which no other stream table reads.",
		NULL, &pgtrickle_default_schedule, "continuous", PGC_SUSET, 0, check_default_schedule, NULL,
		NULL);

	DefineCustomIntVariable("pgtrickle.max_consecutive_errors",
							"A stream table whose refresh fails this often in a row is suspended.",
							"Zero never suspends.", &pgtrickle_max_consecutive_errors, 5, 0,
							INT_MAX, PGC_SUSET, 0, NULL, NULL, NULL);

	DefineCustomEnumVariable(
		"pgtrickle.replica_identity",
		"What creating a stream table does about the replica identity of its sources.", NULL,
		&pgtrickle_replica_identity, REPLICA_IDENTITY_AUTO, replica_identity_policies, PGC_USERSET,
		0, NULL, NULL, NULL);

	DefineCustomIntVariable(
		"pgtrickle.replica_identity_lock_timeout",
		"How long creating a stream table waits for the lock that setting a replica identity needs.",
		"Zero waits for ever.", &pgtrickle_replica_identity_lock_timeout_ms, 5 * 1000, 0, INT_MAX,
		PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("pgtrickle.history_retention",
							"How long the history of refreshes is kept.", "-1 keeps it for ever.",
							&pgtrickle_history_retention_s, 7 * 24 * 60 * 60, -1, INT_MAX,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);

	DefineCustomBoolVariable(
		"pgtrickle.paranoid_verify",
		"Compares every refreshed stream table with its defining query, and fails the refresh on a difference.",
		NULL, &pgtrickle_paranoid_verify, false, PGC_SUSET, 0, NULL, NULL, NULL);

	DefineCustomBoolVariable(
		"pgtrickle.cost_based",
		"In refresh mode AUTO, refreshes in full whenever that is expected to cost less than the delta.",
		NULL, &pgtrickle_cost_based, true, PGC_SUSET, 0, NULL, NULL, NULL);

	DefineCustomIntVariable(
		"pgtrickle.flat_join_inputs_max",
		"Up to how many changed inputs of a join the terms of its delta are one for each combination of them.",
		"With more, there is one term for each, which reads the old rows of the others, too.  -1 chooses.", &pgtrickle_flat_join_inputs_max, -1, -1,
		10, PGC_USERSET, 0, NULL, NULL, NULL);

	DefineCustomIntVariable(
		"pgtrickle.near_rows_min_pages",
		"How large a joined table must be for the rows near a change to be looked up in one scan.",
		"Takes effect where a query is compiled: in the applier's sessions, and anew after a change of a source.",
		&pgtrickle_near_rows_min_pages, 64, 0, INT_MAX, PGC_USERSET, GUC_UNIT_BLOCKS, NULL, NULL, NULL);

	DefineCustomIntVariable(
		"pgtrickle.immediate_keys_max",
		"How many rows a writer may change, or groups it may touch, before it locks all of an IMMEDIATE stream table or all its groups.",
		NULL, &pgtrickle_immediate_keys_max, 64, 1,
		100000, PGC_SUSET, 0, NULL, NULL, NULL);

	DefineCustomBoolVariable(
		"pgtrickle.trust_foreign_keys",
		"Leaves out what cannot join because of a foreign key.",
		"Switch it off where rows that break foreign keys are loaded with session_replication_role = replica.",
		&pgtrickle_trust_foreign_keys, true, PGC_SUSET, 0, NULL, NULL, NULL);

	MarkGUCPrefixReserved("pgtrickle");
	immediate_merge_init();
}

static bool
check_default_schedule(char **newval, void **extra, GucSource source)
{
	Schedule	  schedule;
	ScheduleError error;

	if (!schedule_parse(*newval, &schedule, &error))
	{
		GUC_check_errdetail("%s", error.detail);
		return false;
	}
	if (schedule.kind != SCHEDULE_CONTINUOUS && schedule.kind != SCHEDULE_INTERVAL &&
		schedule.kind != SCHEDULE_MANUAL)
	{
		GUC_check_errdetail("It must be \"continuous\", \"manual\" or a duration such as \"5s\".");
		return false;
	}
	return true;
}

/* pgtrickle.setting(name text) returns text: the value of pgtrickle.<name>, as SHOW prints it. */
Datum
pgtrickle_setting(PG_FUNCTION_ARGS)
{
	char *name = psprintf("pgtrickle.%s", text_to_cstring(PG_GETARG_TEXT_PP(0)));

	PG_RETURN_TEXT_P(cstring_to_text(GetConfigOptionByName(name, NULL, false)));
}
