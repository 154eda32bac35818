/*
 * applier/intake.c
 *     From the records of the stream to the change buffer, the settle list and the requests.
 */
#include "intake.h"

#include <assert.h>
#include <stdio.h>

#include "memory.h"
#include "receiver.h"

#define MESSAGE_WORDS_MAX 3
#define MISSED_SKIPPED "changes were not received"
#define MISSED_TOO_LARGE "more changes than the applier may keep"

/* Is one of its relations about to be read by somebody?  The buffer asks before it lets go. */
typedef struct PinSearch
{
	const Settle *settle;
	bool		  found;
} PinSearch;

static void
search_pin(Oid relid, void *context)
{
	PinSearch *search = context;

	if (!search->found)
		search->found = settle_is_pinned(search->settle, relid);
}

static bool
transaction_is_pinned(const Buffer *buffer, const Transaction *transaction, const void *context)
{
	PinSearch search = {context, false};

	if (search.settle->pin_count > 0)
		transaction_visit_relids(buffer, transaction, search_pin, &search);
	return search.found;
}

Intake *
intake_create(Buffer *buffer, Settle *settle, Schedule *schedule)
{
	Intake *intake = memory_take_zeroed(sizeof(Intake));

	intake->buffer = buffer;
	intake->settle = settle;
	intake->schedule = schedule;
	buffer->is_pinned = transaction_is_pinned;
	buffer->pin_context = settle;
	return intake;
}

void
intake_free(Intake *intake)
{
	free(intake->catalog_changes);
	free(intake->carried);
	free(intake);
}

/* ------------------------------------------------------------------------------------------------
 * Routing
 */

static void
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

/*
 * Rows of this relation did not come, or could not be kept: whoever reads it cannot go on by delta.
 * Does anybody?
 */
static bool
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

/* The plugin left out rows of a relation.  Should it have been told that somebody reads it? */
static void
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

static void
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

/* ------------------------------------------------------------------------------------------------
 * Messages
 */

typedef struct MessageWords
{
	char *text;
	char *words[MESSAGE_WORDS_MAX];
	int	  count;
} MessageWords;

/* Cuts the payload at its blanks; the last word keeps the rest.  The caller frees the text. */
static void
split_message(const MessageView *message, MessageWords *words)
{
	char *at = memory_take(message->payload.length + 1);

	memcpy(at, message->payload.data, message->payload.length);
	at[message->payload.length] = '\0';
	words->text = at;
	words->count = 0;
	while (words->count < MESSAGE_WORDS_MAX)
	{
		words->words[words->count++] = at;
		if (words->count == MESSAGE_WORDS_MAX)
			break;
		at = strchr(at, ' ');
		if (at == NULL)
			break;
		*at++ = '\0';
	}
}

/* The next number of a comma-separated list; false at its end. */
static bool
next_relid(char **at, Oid *relid)
{
	if (**at < '0' || **at > '9')
		return false;
	*relid = (Oid) strtoul(*at, at, 10);
	if (**at == ',')
		(*at)++;
	return true;
}

static Oid *
parse_relids(char *list, size_t *count)
{
	Oid	  *relids = NULL;
	size_t capacity = 0;
	Oid	   relid;

	*count = 0;
	while (next_relid(&list, &relid))
	{
		relids = memory_grow_array(relids, *count, &capacity, sizeof(Oid));
		relids[(*count)++] = relid;
	}
	return relids;
}

static void
take_interest(Intake *intake, const MessageWords *words)
{
	size_t count;
	Oid	  *relids = parse_relids(words->words[2], &count);

	/*
	 * The position before the message, so that the plugin sees it again after a reconnect: only
	 * then does it know of this interest while the transaction is still running.
	 */
	intake_note_carried(intake, relids, count);
	settle_add_pin(intake->settle, strtoull(words->words[1], NULL, 10), relids, count,
				   intake->stream_lsn);
	free(relids);
}

static void
take_ddl(Intake *intake, char *list)
{
	Oid relid;

	intake->ddl_count++;
	while (next_relid(&list, &relid))
		buffer_append_ddl(intake->buffer, relid);
}

static bool
take_transactional_message(Intake *intake, const MessageWords *words)
{
	Transaction *open = intake->buffer->open;

	if (open == NULL)
		return false;
	if (strcmp(words->words[0], "catalog") == 0)
		open->changes_catalog = true;
	else if (strcmp(words->words[0], "filled") == 0 && words->count > 1)
		buffer_mark_filled(intake->buffer, strtoll(words->words[1], NULL, 10));
	else if (strcmp(words->words[0], "ddl") == 0 && words->count > 1)
		take_ddl(intake, words->words[1]);
	else
		return false;
	return true;
}

static bool
take_message_at_once(Intake *intake, const MessageWords *words)
{
	const char *first = words->words[0];

	/*
	 * A fence does its work by its position, which moves the stream position like that of any
	 * message.
	 */
	if (strcmp(first, "fence") == 0)
		return true;
	if (strcmp(first, "interest") == 0 && words->count == 3)
		take_interest(intake, words);
	else if (strcmp(first, "refresh") == 0 && words->count == 3)
		schedule_request(intake->schedule, strtoll(words->words[1], NULL, 10), NULL,
						 intake->stream_lsn);
	else if (strcmp(first, "verify") == 0 && words->count == 3)
		schedule_request(intake->schedule, strtoll(words->words[1], NULL, 10), words->words[2],
						 intake->stream_lsn);
	else
		return false;
	return true;
}

static void
take_message(Intake *intake, const MessageView *message)
{
	MessageWords words;
	bool		 understood;

	split_message(message, &words);
	understood = message->transactional ? take_transactional_message(intake, &words)
										: take_message_at_once(intake, &words);
	free(words.text);

	/*
	 * A newer extension may say more than we know; what must not be missed changes proto_version.
	 */
	if (!understood)
		log_event(LEVEL_WARNING, "ignoring unknown message \"%.*s\" at %s",
				  (int) (message->payload.length < 100 ? message->payload.length : 100),
				  (const char *) message->payload.data, lsn_text(message->lsn).text);
	intake->stream_lsn = lsn_max(intake->stream_lsn, message->lsn);
}

/* ------------------------------------------------------------------------------------------------
 * Commit
 */

typedef struct Missing
{
	Intake	   *intake;
	Xid			xid;
	Lsn			commit_lsn;
	const char *reason;
} Missing;

static void
visit_missed(Oid relid, void *context)
{
	Missing *missing = context;

	(void) record_missed(missing->intake, missing->xid, relid, missing->commit_lsn,
						 missing->reason);
}

/*
 * Only the fact remains that these relations changed, as if the rows had been skipped by the
 * plugin.
 */
static void
reduce_to_skipped(Intake *intake, Transaction *transaction, const char *reason)
{
	Missing missing = {intake, transaction->xid, transaction->commit_lsn, reason};

	transaction_visit_relids(intake->buffer, transaction, visit_missed, &missing);
	buffer_release(intake->buffer, transaction);
}

static void
remember_catalog_change(Intake *intake, const Transaction *transaction)
{
	CatalogChange *change;

	intake->catalog_changes =
		memory_grow_array(intake->catalog_changes, intake->catalog_change_count,
						  &intake->catalog_change_capacity, sizeof(CatalogChange));
	change = &intake->catalog_changes[intake->catalog_change_count++];
	change->xid = transaction->xid;
	change->commit_lsn = transaction->commit_lsn;
}

static bool
take_commit(Intake *intake, const CommitView *commit, Error *error)
{
	Transaction *transaction =
		buffer_commit(intake->buffer, commit->commit_lsn, commit->end_lsn, error);

	if (transaction == NULL)
		return false;
	intake->stream_lsn = lsn_max(intake->stream_lsn, commit->end_lsn);
	if (transaction->changes_catalog)
		remember_catalog_change(intake, transaction);

	if (transaction->data_is_dropped)
	{
		reduce_to_skipped(intake, transaction, MISSED_TOO_LARGE);
		return true;
	}
	route_transaction(intake, transaction);

	/*
	 * Nobody reads it, and nobody has said that he is going to.  Should somebody turn up whose fill
	 * did not see it, he is filled again.  A transaction with fills inside is kept: its fills
	 * contain it.
	 */
	if (transaction->needed_by == 0 && transaction->marker_count == 0 &&
		!transaction_is_pinned(intake->buffer, transaction, intake->settle))
		reduce_to_skipped(intake, transaction, MISSED_SKIPPED);
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * Batches
 */

static bool
take_record(void *stream, const RecordView *record, int64_t server_time, Error *error)
{
	Intake			  *intake = stream;
	const Transaction *open = intake->buffer->open;
	bool			   needs_open = record->kind == KIND_TRUNCATE || record->kind == KIND_SKIPPED;

	if (needs_open && open == NULL)
		return error_set(error, FAIL_RETRY, "record of kind %d outside of a transaction",
						 (int) record->kind);
	switch (record->kind)
	{
		case KIND_BEGIN:
			return receiver_begin(intake->buffer, &record->begin, server_time, error);
		case KIND_RELATION:
			return relations_add(intake->buffer->relations, record, error);
		case KIND_TRUNCATE:
			buffer_append_truncate(intake->buffer, record);
			return true;
		case KIND_MESSAGE:
			take_message(intake, &record->message);
			return true;
		case KIND_SKIPPED:
			take_skipped(intake, open, record->skipped_relid);
			return true;
		case KIND_COMMIT:
			return take_commit(intake, &record->commit, error);
		default:
			return error_set(error, FAIL_RETRY, "unexpected record of kind %d", (int) record->kind);
	}
}

/* Those of one relation together: change sets are made of such chunks. */
static bool
choose_chunk(void *stream, const Relation *relation, uint32_t *chunk)
{
	(void) stream;
	*chunk = relation->number;
	return true;
}

bool
intake_batch(Intake *intake, const void *data, size_t length, int64_t server_time, Error *error)
{
	static const Receiver receiver = {choose_chunk, take_record};

	return receiver_take_batch(&receiver, intake, intake->buffer, &intake->stream_lsn,
							   byte_range(data, length), server_time, error);
}

void
intake_keepalive(Intake *intake, Lsn wal_end)
{
	intake->stream_lsn = lsn_max(intake->stream_lsn, wal_end);
}

/* ------------------------------------------------------------------------------------------------
 * Catalog and snapshots
 */

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

/* ------------------------------------------------------------------------------------------------
 * Too much of everything
 */

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
