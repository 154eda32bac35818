/*
 * applier/remote_plan.c
 *     What a tick takes from the remotes: of each a prefix of its transactions, in the order of their commits.
 */
#include "remote_plan.h"

#include <assert.h>

#include "memory.h"

/*
 * Of one tick: it is one transaction of the target, and what is waiting behind it, also what is local, waits for all of it.  So much
 * is taken as could lately be applied within a second.
 */
#define PREFIX_BYTES_MIN (UINT64_C(256) * 1024)
#define PREFIX_BYTES_MAX (UINT64_C(32) * 1024 * 1024)
#define PREFIX_TRANSACTIONS_MAX 50000
#define TICK_LONG MICROS_PER_SECOND
#define TICK_SHORT (MICROS_PER_SECOND / 4)

#define REMOTE_DELAY_FIRST (100 * INT64_C(1000))
#define REMOTE_DELAY_MAX (5 * MICROS_PER_SECOND)

/* Each attempt to switch a copy in may hold up its readers for a moment. */
#define SWITCH_DELAY_FIRST (25 * INT64_C(1000))
#define SWITCH_DELAY_MAX (2 * MICROS_PER_SECOND)

/* ------------------------------------------------------------------------------------------------
 * What a transaction touches
 */

typedef bool (*CopyVisitor)(StreamTable *copy, void *context);

static bool
visit_copies_of(const Remote *remote, Oid relid, CopyVisitor visit, void *context)
{
	size_t				count;
	StreamTable *const *copies = remote_copies_of(remote, relid, &count);

	for (size_t i = 0; i < count; i++)
	{
		if (copy_is_followed(copies[i]) && !visit(copies[i], context))
			return false;
	}
	return true;
}

/* Calls back for every copy that is followed and touched by the transaction, until the answer is false. */
static bool
visit_copies(const Remote *remote, const Transaction *transaction, CopyVisitor visit, void *context)
{
	for (size_t i = 0; i < transaction->relation_count; i++)
	{
		const Relation *relation =
			relations_find(remote->intake->buffer->relations, transaction->relations[i]);

		for (size_t j = 0; j < relation->publish_as_count; j++)
		{
			if (!visit_copies_of(remote, relation->publish_as[j], visit, context))
				return false;
		}
	}
	for (size_t i = 0; i < transaction->truncated_count; i++)
	{
		if (!visit_copies_of(remote, transaction->truncated[i], visit, context))
			return false;
	}
	return true;
}

static bool
stop_at_any(StreamTable *copy, void *context)
{
	(void) copy;
	(void) context;
	return false;
}

Lsn
remote_skip_untouched(Remote *remote, int64_t *time)
{
	Buffer *buffer = remote->intake->buffer;

	while (buffer->first != NULL && visit_copies(remote, buffer->first, stop_at_any, NULL))
	{
		remote->released_lsn = buffer->first->end_lsn;
		remote->released_time = buffer->first->commit_time;
		buffer_release(buffer, buffer->first);
	}
	if (buffer->first != NULL)
	{
		*time = remote->released_time;
		return remote->released_lsn;
	}
	*time = remote->intake->stream_time;
	return lsn_behind_page_header(remote->intake->stream_lsn, remote->server.wal_segment_bytes);
}

/* ------------------------------------------------------------------------------------------------
 * The prefix
 */

typedef struct Search
{
	Remote *remote;
	bool	chosen_only;
	Micros	now;
	Micros	committed_at;
	uint64_t bytes_max;
} Search;

/* May a tick apply what touches this copy? */
static bool
may_apply(StreamTable *copy, void *context)
{
	Search *search = context;

	if (copy->run.retry_at > search->now)
	{
		if (copy->run.retry_at < search->remote->wake_at)
			search->remote->wake_at = copy->run.retry_at;
		return false;
	}
	return copy->copy.status != COPY_REDEFINE && copy->copy.status != COPY_WANTED &&
		   (copy->in_tick || !search->chosen_only);
}

static bool
mark(StreamTable *copy, void *context)
{
	Search *search = context;

	search->remote->prefix.is_worth_it = true;
	if (!copy->copy.in_prefix || search->committed_at < copy->copy.pending_since)
		copy->copy.pending_since = search->committed_at;
	copy->copy.in_prefix = true;
	return true;
}

static uint64_t
transaction_bytes(const Transaction *transaction)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < transaction->chunk_count; i++)
		bytes += transaction->chunks[i].length;
	return bytes;
}

static void
take_transactions(Remote *remote, Search *search)
{
	Prefix *prefix = &remote->prefix;

	for (Transaction *transaction = remote->intake->buffer->first; transaction != NULL;
		 transaction = transaction->next)
	{
		uint64_t bytes = transaction_bytes(transaction);

		if (prefix->last != NULL && (prefix->bytes + bytes > search->bytes_max ||
									 prefix->transaction_count >= PREFIX_TRANSACTIONS_MAX))
			break;
		if (!visit_copies(remote, transaction, may_apply, search) ||
			(transaction->data_is_dropped && !transaction->is_given_up))
			break;
		search->committed_at = transaction->committed_at;
		(void) visit_copies(remote, transaction, mark, search);
		prefix->last = transaction;
		prefix->bytes += bytes;
		prefix->transaction_count++;
	}
}

/* All that was received?  Then the target is as far as the stream. */
static void
set_position(Remote *remote, Lsn skipped_lsn, int64_t skipped_time)
{
	Prefix *prefix = &remote->prefix;

	if (prefix->last == remote->intake->buffer->last)
	{
		prefix->position = lsn_behind_page_header(remote->intake->stream_lsn,
												  remote->server.wal_segment_bytes);
		prefix->position_time = remote->intake->stream_time;
	}
	else if (prefix->last != NULL)
	{
		prefix->position = prefix->last->end_lsn;
		prefix->position_time = prefix->last->commit_time;
	}
	else
	{
		prefix->position = lsn_max(remote->position, skipped_lsn);
		prefix->position_time = skipped_time;
	}
}

/* Copies that are complete at the prefix's end are switched in. */
static void
mark_copied(Remote *remote, Search *search)
{
	for (size_t i = 0; i < remote->copy_count; i++)
	{
		StreamTable *copy = remote->copies[i];

		search->committed_at = search->now;
		if (copy->copy.status != COPY_COPIED || copy->copy.copied_lsn == LSN_NONE ||
			copy->copy.copied_lsn > remote->prefix.position || !may_apply(copy, search))
			continue;
		if (copy->copy.switch_at <= search->now)
			(void) mark(copy, search);
		else if (copy->copy.switch_at < remote->wake_at)
			remote->wake_at = copy->copy.switch_at;
	}
}

static void
mark_prefix(Remote *remote, bool chosen_only, uint64_t bytes_max, Micros now)
{
	Search	search = {remote, chosen_only, now, 0, bytes_max};
	Lsn		skipped_lsn;
	int64_t skipped_time;

	for (size_t i = 0; i < remote->copy_count; i++)
	{
		remote->copies[i]->copy.in_prefix = false;
		remote->copies[i]->copy.pending_since = MICROS_NEVER;
	}
	memset(&remote->prefix, 0, sizeof(remote->prefix));
	if (!remote_is_ready(remote, now))
		return;
	remote->wake_at = MICROS_NEVER;
	skipped_lsn = remote_skip_untouched(remote, &skipped_time);
	take_transactions(remote, &search);
	set_position(remote, skipped_lsn, skipped_time);
	mark_copied(remote, &search);
}

void
remotes_mark_prefixes(Remotes *remotes, bool chosen_only, Micros now)
{
	for (size_t i = 0; i < remotes->count; i++)
		mark_prefix(remotes->items[i], chosen_only, remotes->prefix_bytes_max, now);
	remotes->may_have_news = false;
}

/* ------------------------------------------------------------------------------------------------
 * The plan
 */

static void
add_set(Remote *remote, Plan *plan)
{
	ChangeSet *set = plan_add_set(plan);

	set->remote = remote;
	set->buffer = remote->intake->buffer;
	set->transactions = memory_take((remote->prefix.transaction_count + 1) * sizeof(Transaction *));
	for (Transaction *transaction = remote->intake->buffer->first;
		 set->transaction_count < remote->prefix.transaction_count; transaction = transaction->next)
		set->transactions[set->transaction_count++] = transaction;
	for (size_t i = 0; i < plan->table_count; i++)
	{
		StreamTable *table = plan->tables[i].table;

		if (stream_table_is_copy(table) && table->copy.remote_id == remote->remote_id)
			plan->tables[i].set = set->number;
	}
	remote->in_tick = true;
}

void
remotes_add_sets(Remotes *remotes, Plan *plan)
{
	for (size_t i = 0; i < remotes->count; i++)
	{
		if (remotes->items[i]->prefix.is_worth_it)
			add_set(remotes->items[i], plan);
	}
}

/* ------------------------------------------------------------------------------------------------
 * Afterwards
 */

void
remote_forget_transactions(Remote *remote)
{
	if (remote->in_tick)
		return;
	remote_intake_free(remote->intake);
	remote->intake = NULL;
}

static void
tick_is_over(Remote *remote)
{
	remote->in_tick = false;
	if (remote->state == REMOTE_CLOSED)
		remote_forget_transactions(remote);
}

static void
release_prefix(Remote *remote)
{
	Buffer *buffer = remote->intake->buffer;

	remote->released_lsn = remote->prefix.position;
	remote->released_time = remote->prefix.position_time;
	for (size_t i = 0; i < remote->prefix.transaction_count; i++)
	{
		if (!buffer->first->data_is_dropped)
		{
			remote->last_xid = buffer->first->xid;
			remote->last_commit_lsn = buffer->first->commit_lsn;
		}
		buffer_release(buffer, buffer->first);
	}
}

/* After a tick that took so many bytes from the remotes. */
static void
adapt_prefix(Remotes *remotes, uint64_t bytes, Micros duration)
{
	uint64_t *bytes_max = &remotes->prefix_bytes_max;

	if (duration > TICK_LONG && bytes > PREFIX_BYTES_MIN)
		*bytes_max = bytes / 2 > PREFIX_BYTES_MIN ? bytes / 2 : PREFIX_BYTES_MIN;
	else if (duration < TICK_SHORT && bytes > *bytes_max / 2)
		*bytes_max = *bytes_max * 2 < PREFIX_BYTES_MAX ? *bytes_max * 2 : PREFIX_BYTES_MAX;
}

/* The first tick catches up, and the next one may switch at once. */
static void
delay_switches(Remote *remote, Micros now)
{
	for (size_t i = 0; i < remote->copy_count; i++)
	{
		CopyState *copy = &remote->copies[i]->copy;

		if (copy->status != COPY_COPIED)
		{
			copy->switch_attempts = 0;
			copy->switch_at = 0;
		}
		else if (copy->in_prefix && copy->copied_lsn != LSN_NONE && copy->copied_lsn <= remote->position)
			copy->switch_at = now + retry_delay(++copy->switch_attempts, SWITCH_DELAY_FIRST, SWITCH_DELAY_MAX);
	}
}

void
remotes_committed(Remotes *remotes, Lsn insert_lsn, Micros duration, Micros now)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < remotes->count; i++)
	{
		Remote *remote = remotes->items[i];

		if (!remote->in_tick)
			continue;
		assert(remote->prefix.position >= remote->position);
		remote->position = remote->prefix.position;
		remote->position_time = remote->prefix.position_time;
		remote->persisted_at = now;
		remote->tick_failures = 0;
		delay_switches(remote, now);
		bytes += remote->prefix.bytes;
		release_prefix(remote);
		ack_persisted(&remote->ack, remote->position, insert_lsn);
		remote->must_turn = true;
		tick_is_over(remote);
	}
	adapt_prefix(remotes, bytes, duration);
	remotes->may_have_news = true;
}

void
remotes_tick_failed(Remotes *remotes, bool apart, Micros now)
{
	for (size_t i = 0; i < remotes->count; i++)
	{
		Remote *remote = remotes->items[i];

		if (!remote->in_tick)
			continue;
		remote->is_doubtful = true;
		if (apart)
		{
			remote->tick_failures++;
			remote->retry_at =
				now + retry_delay(remote->tick_failures, REMOTE_DELAY_FIRST, REMOTE_DELAY_MAX);
		}
		tick_is_over(remote);
	}
	remotes->may_have_news = true;
}
