/*
 * delta/run_owner.c
 *     Acting as a stream table's owner, and stopping to.
 *
 * A defining query may call functions that the owner wrote.  They run with the owner's rights and never with those of whoever
 * drives the refresh, and they cannot leave anything behind in the session.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "compat.h"
#include "run_owner.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"

static void
name_stream_table(void *arg)
{
	LoadedTable *table = arg;

	errcontext("refresh of stream table \"%s\"", table->qualified_name);
}

static void
set_unless_equal(const char *name, const char *value)
{
	const char *current = GetConfigOption(name, true, false);

	if (current == NULL || strcmp(current, value) != 0)
		(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

/* Most settings are what they were when somebody looked last, and refreshes may be short. */
static bool
still_has_value(PinnedSetting *setting)
{
	if (setting->variable == NULL)
		return false;
	switch (setting->variable->vartype)
	{
		case PGC_STRING:
			{
				const char *current = *((struct config_string *) setting->variable)->variable;

				return current != NULL && strcmp(current, setting->value) == 0;
			}
		case PGC_INT:
			return setting->number_is_known && *((struct config_int *) setting->variable)->variable == setting->number;
		case PGC_ENUM:
			return setting->number_is_known && *((struct config_enum *) setting->variable)->variable == setting->number;
		case PGC_BOOL:
			return setting->number_is_known && (int) *((struct config_bool *) setting->variable)->variable == setting->number;
		default:
			return false;
	}
}

static void
pin(PinnedSetting *setting)
{
	set_unless_equal(setting->name, setting->value);
	setting->variable = compat_find_setting(setting->name);
	setting->number_is_known = setting->variable != NULL;
	if (setting->variable == NULL)
		return;
	if (setting->variable->vartype == PGC_INT)
		setting->number = *((struct config_int *) setting->variable)->variable;
	else if (setting->variable->vartype == PGC_ENUM)
		setting->number = *((struct config_enum *) setting->variable)->variable;
	else if (setting->variable->vartype == PGC_BOOL)
		setting->number = (int) *((struct config_bool *) setting->variable)->variable;
}

void
owner_scope_enter(OwnerScope *scope, LoadedTable *table)
{
	ListCell   *lc;

	GetUserIdAndSecContext(&scope->saved_user, &scope->saved_context);
	SetUserIdAndSecContext(table->owner, scope->saved_context | SECURITY_RESTRICTED_OPERATION);
	scope->guc_nest_level = NewGUCNestLevel();
	set_unless_equal("search_path", "pg_catalog, pg_temp");
	foreach(lc, table->settings)
	{
		if (!still_has_value(lfirst(lc)))
			pin(lfirst(lc));
	}
	scope->error_context.callback = name_stream_table;
	scope->error_context.arg = table;
	scope->error_context.previous = error_context_stack;
	error_context_stack = &scope->error_context;
}

void
owner_scope_leave(OwnerScope *scope)
{
	error_context_stack = scope->error_context.previous;
	AtEOXact_GUC(false, scope->guc_nest_level);
	SetUserIdAndSecContext(scope->saved_user, scope->saved_context);
}
