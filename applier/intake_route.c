/*
 * applier/intake_route.c
 *     Whom the changes of a transaction concern: the pending lists of those who read its relations, and what they miss.
 */
#include "intake_parts.h"

#include "memory.h"

void
miss_changes(Intake *intake, StreamTable *table, Lsn commit_lsn, const char *reason)
{
	if (!table->run.missed_changes)
	{
		table->run.missed_reason = reason;
		log_event(LEVEL_WARNING, "stream table \"%s\" will be refreshed in full: %s (first at %s)",
				  table->name, reason, lsn_text(commit_lsn).text);
	}
	intake->schedule->is_dirty = true;
	table->run.missed_changes = true;
	table->run.missed_lsn = lsn_min(table->run.missed_lsn, commit_lsn);
}

bool
record_missed(Intake *intake, Xid xid, Oid relid, Lsn commit_lsn, const char *reason)
{
	size_t		  count = 0;
	const Reader *readers = NULL;
	bool		  was_wanted = false;

	settle_add_skipped(intake->settle, xid, relid, commit_lsn);
	if (intake->catalog != NULL)
		readers = catalog_readers(intake->catalog, relid, &count);
	for (size_t i = 0; i < count; i++)
	{
		if (!stream_table_wants(readers[i].table, xid))
			continue;
		miss_changes(intake, readers[i].table, commit_lsn, reason);
		was_wanted = true;
	}
	return was_wanted;
}

static bool
stream_carries(const Intake *intake, Oid relid)
{
	for (size_t i = 0; i < intake->carried_count; i++)
	{
		if (intake->carried[i] == relid)
			return true;
	}
	return false;
}

void
intake_note_carried(Intake *intake, const Oid *relids, size_t count)
{
	for (size_t i = 0; i < count; i++)
	{
		if (stream_carries(intake, relids[i]))
			continue;
		intake->carried = memory_grow_array(intake->carried, intake->carried_count,
											&intake->carried_capacity, sizeof(Oid));
		intake->carried[intake->carried_count++] = relids[i];
	}
}

void
take_skipped(Intake *intake, const Transaction *open, Oid relid)
{
	if (record_missed(intake, open->xid, relid, open->commit_lsn, MISSED_SKIPPED) &&
		!stream_carries(intake, relid))
		intake->stream_lacks_relations = true;
}

/* Puts the transaction on the pending list of a stream table, once. */
static void
add_pending(Intake *intake, StreamTable *table, Transaction *transaction)
{
	PendingList *pending = &table->run.pending;

	if (pending->count > 0 && pending->items[pending->count - 1] == transaction)
		return;
	pending_append(intake->buffer, pending, transaction);
	table->run.has_news = true;
	table->run.deferred_until = 0;
	intake->schedule->is_dirty = true;
}

/*
 * A stream table that was filled inside this transaction has in it what came before its marker.
 * `length_before` is what the marker knew of the chunk (or list) in question.
 */
static bool
is_news_for(const StreamTable *table, const Transaction *transaction, size_t chunk_index,
			uint64_t length)
{
	const FillMarker *marker;

	if (!stream_table_is_at_fill(table) || transaction->xid != table->filled_xid)
		return true;
	marker = transaction_marker(transaction, table->pgt_id);
	return marker == NULL || chunk_index >= marker->chunk_count ||
		   length > marker->chunk_lengths[chunk_index];
}

static void
route_chunk(Intake *intake, Transaction *transaction, size_t chunk_index, Oid relid)
{
	size_t		  count;
	const Reader *readers = catalog_readers(intake->catalog, relid, &count);

	for (size_t i = 0; i < count; i++)
	{
		StreamTable *table = readers[i].table;

		if (stream_table_wants(table, transaction->xid) &&
			is_news_for(table, transaction, chunk_index, transaction->chunks[chunk_index].length))
			add_pending(intake, table, transaction);
	}
}

static void
route_ddl(Intake *intake, Transaction *transaction, size_t ddl_index)
{
	size_t		  count;
	const Reader *readers =
		catalog_readers(intake->catalog, transaction->ddl_relids[ddl_index], &count);

	for (size_t i = 0; i < count; i++)
	{
		StreamTable		 *table = readers[i].table;
		const FillMarker *marker = NULL;

		if (stream_table_is_at_fill(table) && transaction->xid == table->filled_xid)
			marker = transaction_marker(transaction, table->pgt_id);
		if (stream_table_wants(table, transaction->xid) &&
			(marker == NULL || ddl_index >= marker->ddl_count))
			add_pending(intake, table, transaction);
	}
}

void
route_transaction(Intake *intake, Transaction *transaction)
{
	if (intake->catalog == NULL)
		return;
	for (size_t i = 0; i < transaction->chunk_count; i++)
	{
		const Relation *relation =
			relations_find(intake->buffer->relations, transaction->chunks[i].relation);

		if (relation != NULL)
		{
			for (size_t j = 0; j < relation->publish_as_count; j++)
				route_chunk(intake, transaction, i, relation->publish_as[j]);
			continue;
		}
		for (size_t j = 0; j < transaction->truncated_count; j++)
			route_chunk(intake, transaction, i, transaction->truncated[j]);
	}
	for (size_t i = 0; i < transaction->ddl_count; i++)
		route_ddl(intake, transaction, i);
}
