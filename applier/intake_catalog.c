/*
 * applier/intake_catalog.c
 *     What was received, against a catalog that was loaded, a snapshot that was taken, and the room that there is.
 */
#include "intake_parts.h"

#include <assert.h>

bool
intake_catalog_is_current(const Intake *intake, const Snapshot *snapshot)
{
	for (size_t i = 0; i < intake->catalog_change_count; i++)
	{
		if (snapshot_sees(snapshot, intake->catalog_changes[i].xid))
			return false;
	}
	return true;
}

/* Changes that the loaded catalog contains need not be waited for. */
static void
forget_loaded_changes(Intake *intake)
{
	size_t kept = 0;

	for (size_t i = 0; i < intake->catalog_change_count; i++)
	{
		if (!snapshot_sees(intake->catalog->snapshot, intake->catalog_changes[i].xid))
			intake->catalog_changes[kept++] = intake->catalog_changes[i];
	}
	intake->catalog_change_count = kept;
}

/*
 * What a tick writes into an upstream stream table or a copy comes back when somebody else still needs it; those that were refreshed in
 * the same tick have it, although their frontier's snapshot does not see that transaction.
 */
void
intake_check_missed(Intake *intake, StreamTable *table)
{
	Xid own_xid = stream_table_is_at_fill(table) ? XID_NONE : table->own_xid;
	Lsn first = LSN_MAX;

	/* Never filled: the first fill will be asked the same question. */
	if (table->frontier == NULL || !table->is_active)
		return;
	for (size_t i = 0; i < table->source_count; i++)
		first = lsn_min(first, settle_first_missed(intake->settle, table->sources[i],
												   stream_table_received(table), own_xid));
	if (first != LSN_MAX)
		miss_changes(intake, table, first, MISSED_SKIPPED);
}

/*
 * The server does not send a refresh's changes when every consumer that it knows takes part in the
 * tick.  A stream table that was being created meanwhile is not among them; its first snapshot may
 * be older than such a refresh.  From its appearance in the catalog on it is known.
 */
static void
check_unsent_refreshes(StreamTable *table, const Catalog *old)
{
	const StreamTable *before = old != NULL ? catalog_find(old, table->pgt_id) : NULL;

	if (!table->is_active || !stream_table_is_at_fill(table) ||
		(before != NULL && before->filled_xid == table->filled_xid))
		return;
	for (size_t i = 0; i < table->upstream_count; i++)
	{
		const StreamTable *upstream = table->upstream[i];

		if (upstream->own_xid != table->own_xid && upstream->own_xid != XID_NONE &&
			!snapshot_sees(table->frontier, upstream->own_xid))
		{
			table->run.missed_changes = true;
			table->run.missed_reason = "an upstream stream table was refreshed while it was filled";
		}
	}
}

void
intake_use_catalog(Intake *intake, Catalog *catalog, const Catalog *old)
{
	intake->catalog = catalog;
	intake->schedule->is_dirty = true;
	for (Transaction *transaction = intake->buffer->first; transaction != NULL;
		 transaction = transaction->next)
	{
		assert(transaction->needed_by == 0);
		route_transaction(intake, transaction);
	}
	for (size_t i = 0; i < catalog->count; i++)
	{
		intake_check_missed(intake, catalog->tables[i]);
		check_unsent_refreshes(catalog->tables[i], old);
	}
	forget_loaded_changes(intake);
	buffer_sweep(intake->buffer);
}

void
intake_see_snapshot(Intake *intake, const Snapshot *snapshot)
{
	bool pins_went =
		settle_see(intake->settle, snapshot, intake_catalog_is_current(intake, snapshot));

	buffer_settle(intake->buffer, snapshot);
	if (pins_went)
		buffer_sweep(intake->buffer);
}

/* Everything pending for it is forgotten; a full refresh will make up for it. */
static void
give_up_pending(Intake *intake, StreamTable *table)
{
	PendingList *pending = &table->run.pending;

	for (size_t i = 0; i < pending->count; i++)
	{
		Transaction *transaction = pending->items[i];

		miss_changes(intake, table, transaction->commit_lsn, MISSED_TOO_LARGE);
		/* No snapshot has seen it: the full refresh might not see it either. */
		if (!transaction->is_settled)
		{
			for (size_t j = 0; j < table->source_count; j++)
			{
				if (transaction_touches(intake->buffer, transaction, table->sources[j]))
					settle_add_skipped(intake->settle, transaction->xid, table->sources[j],
									   transaction->commit_lsn);
			}
		}
	}
	pending_clear(intake->buffer, pending);
}

void
intake_relieve_pressure(Intake *intake)
{
	StreamTable *largest = NULL;

	/*
	 * The open transaction alone is more than we may keep: from here on only its relations are
	 * noted.
	 */
	if (intake->buffer->open != NULL && !intake->buffer->open->data_is_dropped &&
		intake->buffer->count == 0)
	{
		log_event(LEVEL_WARNING,
				  "transaction %llu is larger than --spill-mb allows: its changes will not be kept",
				  (unsigned long long) intake->buffer->open->xid);
		buffer_drop_data(intake->buffer, intake->buffer->open);
		return;
	}
	for (size_t i = 0; intake->catalog != NULL && i < intake->catalog->count; i++)
	{
		StreamTable *table = intake->catalog->tables[i];

		if (!table->in_tick &&
			(largest == NULL || table->run.pending.count > largest->run.pending.count))
			largest = table;
	}
	if (largest != NULL && largest->run.pending.count > 0)
		give_up_pending(intake, largest);
	else if (intake->buffer->open != NULL && !intake->buffer->open->data_is_dropped)
		buffer_drop_data(intake->buffer, intake->buffer->open);
}
