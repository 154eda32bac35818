/*
 * delta/tick_plan.c
 *     tick_plan: which stream tables take part in a tick, how each is refreshed, and which changes it will need.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "clock.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "sources.h"
#include "spool.h"
#include "storage/lmgr.h"
#include "tick_state.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(pgtrickle_tick_plan);

/* Cuts "+word" or "+word:argument" off the end of an action; NULL: it is not there. */
static char *
cut_suffix(char *action, const char *suffix)
{
	char	   *found = strstr(action, suffix);
	size_t		length = strlen(suffix);

	if (found == NULL)
		return NULL;
	*found = '\0';
	return found[length] == ':' ? found + length + 1 : found + length;
}

/* "spool:<age of the oldest change in ms>", or the same followed by ":<reason>" for a full refresh later on. */
static void
parse_spool_action(TickEntry *entry, const char *arguments)
{
	char	   *end;
	int64		age_ms = strtoll(arguments, &end, 10);

	entry->spools = true;
	entry->spooled_since = GetCurrentTimestamp() - age_ms * 1000;
	entry->full_reason = *end == ':' ? pstrdup(end + 1) : NULL;
}

/*
 * "delta", "full:<reason>", either followed by "+spooled", by "+verify" or "+verify:<nonce>", in this order; or "spool:...".
 */
static void
parse_action(TickEntry *entry, const char *action)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(current_tick->context);
	char	   *head = pstrdup(action);

	entry->verify_nonce = cut_suffix(head, "+verify");
	entry->is_spooled = cut_suffix(head, "+spooled") != NULL;
	if (strncmp(head, "spool:", 6) == 0)
		parse_spool_action(entry, head + 6);
	else if (strncmp(head, "full", 4) == 0)
		entry->full_reason = pstrdup(head[4] == ':' ? head + 5 : "requested");
	else if (strcmp(head, "delta") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown action \"%s\" in a tick", action)));
	MemoryContextSwitchTo(oldcontext);
}

/*
 * The stream table is locked before its states, as by everybody who changes its query.  One that was changed while we waited, or is new to
 * this session, may have a definition that is younger than our snapshot; then the frontier, which whoever gave it another query or
 * dropped it has moved, cannot be locked at our snapshot: a serialization failure, and the tick is tried again.
 */
static LoadedTable *
load_locked(int64 pgt_id)
{
	LoadedTable *table = table_load(pgt_id);

	if (table != NULL)
		LockRelationOid(table->relid, RowExclusiveLock);
	if (table != NULL && table->valid && table->is_known)
		return table;
	if (SPI_execute(psprintf("SELECT FROM pgtrickle.pgt_frontiers WHERE pgt_id = " INT64_FORMAT " FOR UPDATE", pgt_id),
					false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not lock the frontier of stream table " INT64_FORMAT, pgt_id);
	table = table_load(pgt_id);
	if (table != NULL)
		table->is_known = true;
	return table;
}

/*
 * DDL binds a stream table anew when a name in its query has got another meaning.  Where it could not, for a lock that somebody else held, say, we
 * do.  The rows are right now; but the stream may have left out changes of the new source that this tick does not see either, so another
 * full refresh has to follow.
 */
static void
bind_sources(TickEntry *entry)
{
	LoadedTable *table = entry->table;

	if (table->sources_bound || (table->sources_bound = sources_are_bound(entry->pgt_id, table->program)))
		return;
	sources_bind(table);
	entry->bound_anew = true;
	entry->full_reason = "a name in its query means another relation";
}

static bool
takes_part(int64 pgt_id)
{
	TickEntry  *entry = tick_entry(pgt_id);

	return entry != NULL && !entry->spools;
}

static void
add_entry(int64 pgt_id, int set, const char *action)
{
	TickEntry  *entry;

	if (strcmp(action, "copy") == 0)
	{
		copy_tick_add(current_tick->copies, pgt_id, set);
		return;
	}
	entry = palloc0(sizeof(TickEntry));
	tick_failed_id = pgt_id;
	entry->pgt_id = pgt_id;
	entry->set = set;
	parse_action(entry, action);
	if (current_tick->entries != NIL && current_tick->spools != entry->spools)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a tick cannot both refresh and spool")));
	current_tick->spools = entry->spools;
	if (entry->spools)
	{
		/* its query may be whatever it wants to be meanwhile */
		current_tick->entries = lappend(current_tick->entries, entry);
		tick_failed_id = 0;
		return;
	}
	entry->table = load_locked(pgt_id);
	if (entry->table == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stream table " INT64_FORMAT " does not exist", pgt_id)));
	if (!table_states_fit(entry->table))
	{
		entry->table = table_rebuild_states(entry->table);
		if (entry->full_reason == NULL)
			entry->full_reason = "a source changed what the query means";
	}
	bind_sources(entry);
	clock_record_reason(entry->table);
	/* every call of SPI leaves its own context behind */
	MemoryContextSwitchTo(current_tick->context);
	if (entry->full_reason == NULL)
	{
		if (entry->table->program->full_reason != NULL)
			entry->full_reason = entry->table->program->full_reason;
		else if (!entry->table->is_populated)
			entry->full_reason = pstrdup("not filled yet");
	}
	current_tick->entries = lappend(current_tick->entries, entry);
	tick_failed_id = 0;
}

static ProgramSource *
program_source(DeltaProgram *program, Oid relid)
{
	ListCell   *lc;

	foreach(lc, program->sources)
	{
		if (((ProgramSource *) lfirst(lc))->relid == relid)
			return lfirst(lc);
	}
	elog(ERROR, "relation %u is not a source of its program", relid);
	return NULL;
}

static void
expect_sources(TickEntry *entry)
{
	ListCell   *lc;

	foreach(lc, entry->table->program->sources)
	{
		ProgramSource *source = lfirst(lc);

		stage_expect(current_tick->stage, entry->set, source->relid, false, source->used_attnos);
	}
	foreach(lc, entry->table->program->rowsets)
	{
		ProgramRowset *rowset = lfirst(lc);

		if (rowset->source_only)
			stage_expect(current_tick->stage, entry->set, rowset->source_relid, true,
						 program_source(entry->table->program, rowset->source_relid)->used_attnos);
	}
}

/* What came earlier is laid before what tick_stage is going to bring. */
static void
take_from_spool(TickEntry *entry)
{
	if (!entry->is_spooled || entry->full_reason != NULL)
		return;
	tick_failed_id = entry->pgt_id;
	entry->full_reason = spool_take(current_tick->stage, entry->set, entry->pgt_id);
	tick_failed_id = 0;
}

Datum
pgtrickle_tick_plan(PG_FUNCTION_ARGS)
{
	Datum	   *ids;
	Datum	   *sets;
	Datum	   *actions;
	int			nids;
	int			nsets;
	int			nactions;
	MemoryContext oldcontext;
	ListCell   *lc;

	if (!IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("a tick needs a REPEATABLE READ transaction")));
	tick_begin();
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT8OID, 8, true, TYPALIGN_DOUBLE, &ids, NULL, &nids);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), INT4OID, 4, true, TYPALIGN_INT, &sets, NULL, &nsets);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), TEXTOID, -1, false, TYPALIGN_INT, &actions, NULL, &nactions);
	if (nids != nsets || nids != nactions)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("a tick's arrays must have the same length")));

	SPI_connect();
	oldcontext = MemoryContextSwitchTo(current_tick->context);
	current_tick->stage = stage_create();
	current_tick->copies = copy_tick_create(&tick_failed_id, takes_part);
	for (int i = 0; i < nids; i++)
		add_entry(DatumGetInt64(ids[i]), DatumGetInt32(sets[i]), TextDatumGetCString(actions[i]));
	MemoryContextSwitchTo(current_tick->context);
	copy_tick_planned(current_tick->copies);
	foreach(lc, current_tick->entries)
	{
		if (!current_tick->spools)
			expect_sources(lfirst(lc));
	}
	foreach(lc, current_tick->entries)
		take_from_spool(lfirst(lc));
	MemoryContextSwitchTo(oldcontext);
	SPI_finish();
	PG_RETURN_VOID();
}
