/*
 * applier/plan.c
 *     What a tick is going to do, once its snapshot is known and the stream has reached it.
 */
#include "plan.h"

#include <assert.h>
#include <stdio.h>

#include "memory.h"

/* ------------------------------------------------------------------------------------------------
 * Who takes part
 */

static size_t
count_visible(const StreamTable *table, const Snapshot *snapshot)
{
	size_t count = 0;

	for (size_t i = 0; i < table->run.pending.count; i++)
		count += snapshot_sees(snapshot, table->run.pending.items[i]->xid);
	return count;
}

static bool
some_upstream(const StreamTable *table, bool (*test)(const StreamTable *))
{
	for (size_t i = 0; i < table->upstream_count; i++)
	{
		if (test(table->upstream[i]))
			return true;
	}
	return false;
}

static bool
is_blocked(const StreamTable *table)
{
	return table->is_blocked;
}

static bool
takes_part(const StreamTable *table)
{
	return table->takes_part;
}

/*
 * Upstream first.  A stream table takes part when something in it changes, or when somebody asked;
 * one whose sources did not change stays out, since its rows equal its query at this snapshot as
 * well, unless it is the clock's turn to change it.  It is blocked when it should take part but must not yet, and then whatever reads it has to
 * wait with it.
 */
static void
decide_part(const Schedule *schedule, StreamTable *table, const Snapshot *snapshot, Micros now)
{
	bool needs_full = schedule_refill_reason(schedule, table) != NULL;
	bool has_changes = needs_full || table->spooled != NULL || count_visible(table, snapshot) > 0 ||
					   some_upstream(table, takes_part);
	bool may = table->is_active && table->run.retry_at <= now;

	/* A copy takes part when the transactions that are taken from its remote touch it; consumers need its rows. */
	if (stream_table_is_copy(table))
	{
		table->takes_part = table->copy.in_prefix;
		table->is_blocked = !table->is_active;
		return;
	}

	/*
	 * A full refresh has to see everything that the stream will not bring: nothing from before the
	 * slot could be relied on may still be running.
	 */
	if (needs_full && snapshot->xmin < schedule->valid_xid)
		may = false;

	table->is_blocked =
		!table->is_active || (has_changes && !may) || some_upstream(table, is_blocked);
	table->takes_part =
		!table->is_blocked && may && (has_changes || table->moves_by_clock || schedule_is_requested(schedule, table));
}

static void
decide_parts(const Schedule *schedule, const Catalog *catalog, const Snapshot *snapshot, Micros now)
{
	for (size_t i = 0; i < catalog->count; i++)
	{
		StreamTable *table = catalog->tables[i];

		table->takes_part = false;
		table->is_blocked = false;
		if (table->in_tick && table->spools)
			table->takes_part = count_visible(table, snapshot) > 0;
		else if (table->in_tick)
			decide_part(schedule, table, snapshot, now);
	}
}

bool
plan_is_worth_it(const Schedule *schedule, const Catalog *catalog, const Snapshot *snapshot)
{
	decide_parts(schedule, catalog, snapshot, clock_now());
	for (size_t i = 0; i < catalog->count; i++)
	{
		if (catalog->tables[i]->takes_part)
			return true;
	}
	return false;
}

/* ------------------------------------------------------------------------------------------------
 * What each one does
 */

/* A source that changed its shape in a transaction that belongs to this tick; NULL: none. */
static const char *
changed_source(const StreamTable *table, const Snapshot *snapshot)
{
	for (size_t i = 0; i < table->run.pending.count; i++)
	{
		const Transaction *transaction = table->run.pending.items[i];
		size_t			   first = 0;

		if (transaction->ddl_count == 0 || !snapshot_sees(snapshot, transaction->xid))
			continue;
		if (stream_table_is_at_fill(table) && transaction->xid == table->filled_xid)
		{
			const FillMarker *marker = transaction_marker(transaction, table->pgt_id);

			first = marker != NULL ? marker->ddl_count : 0;
		}
		for (size_t j = first; j < transaction->ddl_count; j++)
		{
			if (stream_table_reads(table, transaction->ddl_relids[j]))
				return stream_table_source_name(table, transaction->ddl_relids[j]);
		}
	}
	return NULL;
}

/* Why a delta would not do, in the words of the history; NULL: it does. */
static const char *
table_full_reason(const Schedule *schedule, const StreamTable *table, const Snapshot *snapshot)
{
	const char *reason = schedule_refill_reason(schedule, table);

	if (reason != NULL)
		return reason;
	return changed_source(table, snapshot) != NULL ? "a source changed" : NULL;
}

/* How old is the oldest change, and does a full refresh have to follow anyway? */
static void
choose_to_spool(PlannedTable *planned, const char *full_reason, Micros now)
{
	Text   action = {0};
	Micros age = now - planned->table->run.pending.items[0]->committed_at;

	text_append_format(&action, "spool:%lld%s%s", (long long) (age / 1000),
					   full_reason != NULL ? ":" : "", full_reason != NULL ? full_reason : "");
	planned->is_full = full_reason != NULL;
	planned->action = action.data;
}

static void
choose_action(const Schedule *schedule, PlannedTable *planned, const Snapshot *snapshot)
{
	const char	  *refill_reason = schedule_refill_reason(schedule, planned->table);
	const char	  *source = changed_source(planned->table, snapshot);
	const Request *verification = schedule_verification(schedule, planned->table);
	Text		   action = {0};

	if (refill_reason != NULL)
		text_append_format(&action, "full:%s", refill_reason);
	else if (source != NULL)
		text_append_format(&action, "full:source %s changed", source);
	else
		text_append(&action, "delta");
	planned->is_full = refill_reason != NULL || source != NULL;
	if (planned->table->spooled != NULL)
		text_append(&action, "+spooled");
	if (verification != NULL)
		text_append_format(&action, "+verify:%s", verification->nonce);
	planned->action = action.data;
}

/* ------------------------------------------------------------------------------------------------
 * Change sets
 */

/*
 * Was it filled inside a transaction that belongs to this tick?  Then only the records behind its
 * marker count, which is so for no other stream table.  And what it has in the spool is laid before the set.
 */
static bool
needs_exclusive_set(const StreamTable *table)
{
	if (table->spooled != NULL && !table->spools)
		return true;
	if (!stream_table_is_at_fill(table))
		return false;
	for (size_t i = 0; i < table->run.pending.count; i++)
	{
		if (table->run.pending.items[i]->xid == table->filled_xid)
			return true;
	}
	return false;
}

static ChangeSet *
find_set(Plan *plan, const StreamTable *table, bool exclusive)
{
	for (size_t i = 0; i < plan->set_count; i++)
	{
		const StreamTable *first = plan->sets[i].first;

		if (!exclusive && !plan->sets[i].is_exclusive && first->own_xid == table->own_xid &&
			snapshot_equals(stream_table_received(first), stream_table_received(table)))
			return &plan->sets[i];
	}
	return NULL;
}

ChangeSet *
plan_add_set(Plan *plan)
{
	ChangeSet *set;

	plan->sets = memory_resize(plan->sets, (plan->set_count + 1) * sizeof(ChangeSet));
	set = &plan->sets[plan->set_count++];
	memset(set, 0, sizeof(*set));
	set->number = (int) plan->set_count;
	return set;
}

static ChangeSet *
set_for(Plan *plan, const Intake *intake, const StreamTable *table)
{
	bool	   exclusive = needs_exclusive_set(table);
	ChangeSet *set = find_set(plan, table, exclusive);

	if (set != NULL)
		return set;
	set = plan_add_set(plan);
	set->buffer = intake->buffer;
	set->first = table;
	set->is_exclusive = exclusive;
	return set;
}

static bool
set_wants(const ChangeSet *set, Oid relid)
{
	for (size_t i = 0; i < set->wanted_count; i++)
	{
		if (set->wanted[i] == relid)
			return true;
	}
	return false;
}

static void
add_to_set(ChangeSet *set, const StreamTable *table, const Snapshot *snapshot)
{
	for (size_t i = 0; i < table->source_count; i++)
	{
		if (set_wants(set, table->sources[i]))
			continue;
		set->wanted =
			memory_grow_array(set->wanted, set->wanted_count, &set->wanted_capacity, sizeof(Oid));
		set->wanted[set->wanted_count++] = table->sources[i];
	}
	for (size_t i = 0; i < table->run.pending.count; i++)
	{
		Transaction *transaction = table->run.pending.items[i];

		/*
		 * The rule: visible in S, not in the frontier (or it would not be pending), not its own
		 * refresh.
		 */
		if (!snapshot_sees(snapshot, transaction->xid) ||
			transaction->set_mark == (size_t) set->number)
			continue;
		transaction->set_mark = (size_t) set->number;
		set->transactions = memory_grow_array(set->transactions, set->transaction_count,
											  &set->transaction_capacity, sizeof(Transaction *));
		set->transactions[set->transaction_count++] = transaction;
	}
}

/*
 * set_mark tells within one set that a transaction is in it already.  The stream tables of one set
 * need not be neighbours in the plan, so sets are filled one after the other, and old marks are
 * wiped first.
 */
static void
fill_sets(Plan *plan)
{
	for (size_t i = 0; i < plan->table_count; i++)
	{
		PendingList *pending = &plan->tables[i].table->run.pending;

		for (size_t j = 0; j < pending->count; j++)
			pending->items[j]->set_mark = 0;
	}
	for (size_t s = 0; s < plan->set_count; s++)
	{
		for (size_t i = 0; i < plan->table_count; i++)
		{
			/* Who is refreshed in full asks for no records. */
			if (plan->tables[i].set == plan->sets[s].number && !plan->tables[i].is_full)
				add_to_set(&plan->sets[s], plan->tables[i].table, plan->snapshot);
		}
	}
}

/* Counts for each transaction how many of those who need it consume it in this tick. */
static void
count_consumers(Plan *plan, uint64_t tick_number)
{
	for (size_t i = 0; i < plan->table_count; i++)
	{
		PendingList *pending = &plan->tables[i].table->run.pending;

		for (size_t j = 0; j < pending->count; j++)
		{
			Transaction *transaction = pending->items[j];

			if (transaction->tick_number != tick_number)
			{
				transaction->tick_number = tick_number;
				transaction->consumed_by = 0;
			}
			if (snapshot_sees(plan->snapshot, transaction->xid))
				transaction->consumed_by++;
		}
	}
}

Plan *
plan_create(Intake *intake, Snapshot *snapshot, uint64_t tick_number, Micros now)
{
	Plan		  *plan = memory_take_zeroed(sizeof(Plan));
	const Catalog *catalog = intake->catalog;

	plan->snapshot = snapshot_share(snapshot);
	plan->tick_number = tick_number;
	plan->tables = memory_take(catalog->count * sizeof(PlannedTable));
	decide_parts(intake->schedule, catalog, snapshot, now);
	for (size_t i = 0; i < catalog->count; i++)
	{
		PlannedTable *planned;

		if (!catalog->tables[i]->takes_part)
			continue;
		planned = &plan->tables[plan->table_count++];
		memset(planned, 0, sizeof(*planned));
		planned->table = catalog->tables[i];
		if (stream_table_is_copy(planned->table))
		{
			planned->action = memory_copy_text("copy"); /* its set is made by remotes_add_sets() */
			continue;
		}
		planned->spools = planned->table->spools;
		planned->set = set_for(plan, intake, planned->table)->number;
		if (planned->table->spools)
			choose_to_spool(planned, table_full_reason(intake->schedule, planned->table, snapshot), now);
		else
			choose_action(intake->schedule, planned, snapshot);
	}
	fill_sets(plan);
	count_consumers(plan, tick_number);
	plan->stream_lsn = intake->stream_lsn;
	plan->ack_lsn = plan_ack_lsn(plan, intake);
	return plan;
}

void
plan_free(Plan *plan)
{
	if (plan == NULL)
		return;
	for (size_t i = 0; i < plan->table_count; i++)
		free(plan->tables[i].action);
	for (size_t i = 0; i < plan->set_count; i++)
	{
		free(plan->sets[i].wanted);
		free(plan->sets[i].transactions);
	}
	free(plan->tables);
	free(plan->sets);
	snapshot_release(plan->snapshot);
	free(plan);
}

/* ------------------------------------------------------------------------------------------------
 * Afterwards
 */

static bool
is_still_wanted(const Transaction *transaction, const void *context)
{
	return stream_table_wants(context, transaction->xid);
}

/* What was pending is in the spool; what was missed is made up for by the full refresh that was noted there. */
static void
spooled(const PlannedTable *planned, const Plan *plan, Intake *intake)
{
	StreamTable *table = planned->table;

	if (table->spooled == NULL)
		table->spooled_since = table->run.pending.items[0]->committed_at;
	snapshot_release(table->spooled);
	table->spooled = snapshot_share(plan->snapshot);
	if (planned->is_full)
	{
		table->run.missed_changes = false;
		table->run.missed_lsn = LSN_MAX;
		intake_check_missed(intake, table);
	}
	pending_keep(intake->buffer, &table->run.pending, is_still_wanted, table);
}

static void
copied(StreamTable *table, const Plan *plan, Xid own_xid)
{
	snapshot_release(table->frontier);
	table->frontier = snapshot_share(plan->snapshot);
	table->own_xid = own_xid;
	table->run.failures = 0;
	table->run.retry_at = 0;
}

void
plan_committed(const Plan *plan, Intake *intake, Xid own_xid)
{
	for (size_t i = 0; i < plan->table_count; i++)
	{
		StreamTable *table = plan->tables[i].table;

		if (stream_table_is_copy(table))
		{
			copied(table, plan, own_xid);
			continue;
		}
		if (plan->tables[i].spools)
		{
			spooled(&plan->tables[i], plan, intake);
			continue;
		}

		/*
		 * A transaction that the old frontier sees must be seen by the new one, or it would come
		 * twice.
		 */
		assert(plan->tables[i].is_full ||
			   plan->snapshot->xmin >= stream_table_received(table)->xmin);
		snapshot_release(table->frontier);
		snapshot_release(table->spooled);
		table->spooled = NULL;
		table->frontier = snapshot_share(plan->snapshot);
		table->frontier_lsn = plan->stream_lsn;
		table->own_xid = own_xid;
		table->run.failures = 0;
		table->run.soft_failures = 0;
		table->run.retry_at = 0;
		table->run.goes_alone = false;
		if (plan->tables[i].is_full)
		{
			table->needs_refill = false;
			table->run.missed_changes = false;
			table->run.missed_lsn = LSN_MAX;
			intake_check_missed(intake, table);
		}
		pending_keep(intake->buffer, &table->run.pending, is_still_wanted, table);
	}
}

/* ------------------------------------------------------------------------------------------------
 * How far the slot may go
 */

/* Commit order, so the first one that stays decides. */
static Lsn
first_staying_lsn(const Plan *plan, const Buffer *buffer)
{
	for (const Transaction *transaction = buffer->first; transaction != NULL;
		 transaction = transaction->next)
	{
		int needed_by = transaction->needed_by;

		if (plan != NULL && transaction->tick_number == plan->tick_number)
			needed_by -= transaction->consumed_by;
		assert(needed_by >= 0);
		if (needed_by > 0 || !transaction->is_settled ||
			(buffer->is_pinned != NULL &&
			 buffer->is_pinned(buffer, transaction, buffer->pin_context)))
			return transaction->commit_lsn;
	}
	return buffer->open != NULL ? buffer->open->commit_lsn : LSN_MAX;
}

static const PlannedTable *
find_planned(const Plan *plan, const StreamTable *table)
{
	for (size_t i = 0; plan != NULL && i < plan->table_count; i++)
	{
		if (plan->tables[i].table == table)
			return &plan->tables[i];
	}
	return NULL;
}

/* Changes that did not reach us hold the slot until a full refresh has made up for them. */
static Lsn
missed_lsn(const Plan *plan, const Intake *intake)
{
	Lsn needed = LSN_MAX;

	for (size_t i = 0; intake->catalog != NULL && i < intake->catalog->count; i++)
	{
		const StreamTable  *table = intake->catalog->tables[i];
		const PlannedTable *planned;

		if (!table->run.missed_changes || !table->is_active)
			continue;
		planned = find_planned(plan, table);
		if (planned == NULL || !planned->is_full)
			needed = lsn_min(needed, table->run.missed_lsn);
		else
		{
			for (size_t j = 0; j < table->source_count; j++)
				needed = lsn_min(needed, settle_first_missed(intake->settle, table->sources[j],
															 plan->snapshot, XID_NONE));
		}
	}
	return needed;
}

static Lsn
requests_lsn(const Plan *plan, const Intake *intake)
{
	const Schedule *schedule = intake->schedule;
	Lsn				needed = LSN_MAX;

	for (size_t i = 0; i < schedule->request_count; i++)
	{
		const Request *request = &schedule->requests[i];

		if (plan == NULL || !request_is_answered(request, intake->catalog))
			needed = lsn_min(needed, request->hold_lsn);
	}
	return needed;
}

Lsn
plan_ack_lsn(const Plan *plan, const Intake *intake)
{
	Lsn ack_lsn = intake->stream_lsn;

	ack_lsn = lsn_min(ack_lsn, first_staying_lsn(plan, intake->buffer));
	ack_lsn = lsn_min(ack_lsn, settle_needed_lsn(intake->settle));
	ack_lsn = lsn_min(ack_lsn, missed_lsn(plan, intake));
	ack_lsn = lsn_min(ack_lsn, requests_lsn(plan, intake));
	for (size_t i = 0; i < intake->catalog_change_count; i++)
		ack_lsn = lsn_min(ack_lsn, intake->catalog_changes[i].commit_lsn);
	return ack_lsn;
}
