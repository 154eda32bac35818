/*
 * delta/run_owner.c
 *     Acting as a stream table's owner, and stopping to.
 *
 * A defining query may call functions that the owner wrote.  They run with the owner's rights and never with those of whoever
 * drives the refresh, and they cannot leave anything behind in the session.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/value.h"
#include "run_owner.h"
#include "utils/guc.h"

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
		List	   *pair = lfirst(lc);

		set_unless_equal(strVal(linitial(pair)), strVal(lsecond(pair)));
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
