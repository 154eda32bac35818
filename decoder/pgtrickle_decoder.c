/*
 * decoder/pgtrickle_decoder.c
 *     The output plugin: what the server calls while it decodes WAL.
 *
 * For every transaction that reaches its commit record the reorder buffer calls decode_begin, then
 * decode_change, decode_truncate and decode_message in the order of the WAL, then decode_commit.
 * Messages that are not transactional come between transactions, as soon as they are read.
 *
 *     nothing sent -> Begin sent (at the first record) -> Commit sent, batch written
 *
 * A transaction that has nothing for the reader never leaves the first state.  No streaming of
 * transactions in progress and no two-phase decoding: a transaction is sent when and only when it
 * has committed, with the xid that snapshots know it by.
 *
 * Nothing here raises an error about data, since the server would run into it again at every
 * attempt to go on.  What cannot be sent is flagged in its record, and the reader acts.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "replication/logical.h"
#include "replication/origin.h"
#include "replication/output_plugin.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "batch.h"
#include "compat.h"
#include "conversion.h"
#include "interest.h"
#include "options.h"
#include "relation.h"
#include "row.h"
#include "write.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_output_plugin_init(OutputPluginCallbacks *callbacks);

#define MESSAGE_PREFIX "pgtrickle"

/* Ours are short; anybody may emit others under our prefix. */
#define MESSAGE_BYTES_MAX (1024 * 1024)

/* After so many changes the server is told that we are alive. */
#define CHANGES_BETWEEN_PROGRESS 100

/* One session of decoding. */
typedef struct Decoder
{
	MemoryContext  change_context; /* reset after every change */
	Interest	   interest;
	Conversion	   conversion;
	RelationCache *relations;
	RowWriter	  *rows;
	Batch		   batch;
	int			   silent_changes; /* since progress was last reported, for report_progress */
	int			   client_encoding; /* what to restore at the end */

	/* The transaction being decoded. */
	uint64 transaction; /* ordinal in this session, from 1 */
	bool   is_begun; /* its Begin has been sent */
	uint64 row_records;
} Decoder;

/* ------------------------------------------------------------------------------------------------
 * Start and end of a session
 */

/*
 * Send functions convert text to the client's encoding, which can fail.  The stream is binary data
 * for the same or another database, so text goes out as it is stored, unless option `encoding` asks
 * for that other database's encoding (then conversion_prepare switches it on again).
 */
static void
switch_off_conversion(Decoder *decoder)
{
	decoder->client_encoding = pg_get_client_encoding();
	if (SetClientEncoding(GetDatabaseEncoding()) < 0)
		elog(ERROR, "could not switch encoding conversion off");
}

static void
restore_conversion(void *decoder)
{
	SetClientEncoding(((Decoder *) decoder)->client_encoding);
}

static void
decode_startup(LogicalDecodingContext *ctx, OutputPluginOptions *output_options, bool is_init)
{
	DecoderOptions		   options = options_parse(ctx->output_plugin_options, is_init);
	MemoryContext		   oldcontext = MemoryContextSwitchTo(ctx->context);
	Decoder				  *decoder = palloc0(sizeof(Decoder));
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));
	ValueFormat			   format = {.user_types_as_text = options.user_types_as_text};

	interest_init(&decoder->interest, ctx->context);
	if (!interest_add_text(&decoder->interest, options.interest))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for output plugin option \"interest\": \"%s\"",
						options.interest),
				 errhint("Give relation OIDs separated by commas, or * for all relations.")));

	decoder->change_context =
		AllocSetContextCreate(ctx->context, "pgtrickle change", ALLOCSET_DEFAULT_SIZES);
	decoder->conversion = conversion_create(options.encoding);
	format.conversion = &decoder->conversion;
	decoder->relations = relation_cache_create(&decoder->interest, &format, ctx->context);
	decoder->rows = row_writer_create(ctx->context, options.value_bytes_max);
	batch_init(&decoder->batch, ctx->context, options.batch_bytes, options.is_compressed);
	switch_off_conversion(decoder);
	callback->func = restore_conversion; /* also when an error ends the session */
	callback->arg = decoder;
	MemoryContextRegisterResetCallback(ctx->context, callback);

	ctx->output_plugin_private = decoder;
	output_options->output_type = OUTPUT_PLUGIN_BINARY_OUTPUT;
	output_options->receive_rewrites = false;
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Drops what our own refreshes tagged as nobody's news, before it is queued.  Everything else
 * stays, whatever its origin: replicated rows are changes too.
 */
static bool
filter_by_origin(LogicalDecodingContext *ctx, RepOriginId origin_id)
{
	return origin_id == DoNotReplicateId;
}

/* ------------------------------------------------------------------------------------------------
 * Transactions
 */

/*
 * A transaction id with its epoch.  Decoded transactions are less than 2^31 ids old: the slot's
 * catalog_xmin holds back the horizon that keeps it so.
 */
static uint64
widen_xid(TransactionId xid)
{
	FullTransactionId next = ReadNextFullTransactionId();
	uint64			  epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return epoch << 32 | xid;
}

static void
decode_begin(LogicalDecodingContext *ctx, ReorderBufferTXN *txn)
{
	Decoder *decoder = ctx->output_plugin_private;

	decoder->transaction++;
	decoder->is_begun = false;
	decoder->row_records = 0;
	relation_cache_trim(decoder->relations);
	conversion_prepare(&decoder->conversion);
}

/* Called before any record of a transaction. */
static void
send_begin(LogicalDecodingContext *ctx, ReorderBufferTXN *txn)
{
	Decoder	 *decoder = ctx->output_plugin_private;
	BeginView begin;

	if (decoder->is_begun)
		return;
	begin.xid = widen_xid(txn->xid);
	begin.commit_lsn = txn->final_lsn;
	begin.commit_time = txn->xact_time.commit_time;
	write_begin(&decoder->batch.buffer, &begin);
	decoder->is_begun = true;
}

static void
decode_commit(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, XLogRecPtr commit_lsn)
{
	Decoder *decoder = ctx->output_plugin_private;

	OutputPluginUpdateProgress(ctx, !decoder->is_begun);
	if (decoder->is_begun)
	{
		CommitView commit = {.commit_lsn = txn->final_lsn,
							 .end_lsn = txn->end_lsn,
							 .row_records = decoder->row_records};

		write_commit(&decoder->batch.buffer, &commit);
		batch_flush(&decoder->batch, ctx, true);
	}
	decoder->silent_changes = 0;
}

/*
 * Before 16 nobody but the plugin tells the client that a long transaction is still being worked on
 * when nothing of it is sent.
 */
static void
report_progress(LogicalDecodingContext *ctx)
{
#if PLUGIN_REPORTS_PROGRESS
	Decoder *decoder = ctx->output_plugin_private;

	if (++decoder->silent_changes < CHANGES_BETWEEN_PROGRESS)
		return;
	OutputPluginUpdateProgress(ctx, false);
	decoder->silent_changes = 0;
#endif
}

/* ------------------------------------------------------------------------------------------------
 * Changes
 */

static RecordKind
record_kind(const ReorderBufferChange *change)
{
	switch (change->action)
	{
		case REORDER_BUFFER_CHANGE_INSERT:
			return KIND_INSERT;
		case REORDER_BUFFER_CHANGE_UPDATE:
			return KIND_UPDATE;
		case REORDER_BUFFER_CHANGE_DELETE:
			return KIND_DELETE;
		default:
			elog(ERROR, "unexpected change of kind %d", (int) change->action);
	}
}

/* Tells that the transaction touched relations that nobody asked for, once each. */
static void
send_skipped(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, RelationEntry *entry)
{
	Decoder *decoder = ctx->output_plugin_private;

	if (entry->skip_as_count == 0 || entry->skipped_in == decoder->transaction)
		return;
	entry->skipped_in = decoder->transaction;
	for (int i = 0; i < entry->skip_as_count; i++)
	{
		Oid relid = entry->skip_as[i];

		if (!relation_cache_skips_first(decoder->relations, relid, decoder->transaction))
			continue;
		send_begin(ctx, txn);
		write_skipped(&decoder->batch.buffer, relid);
	}
}

static void
send_row(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, const RowChange *row)
{
	Decoder		  *decoder = ctx->output_plugin_private;
	RelationEntry *entry = row->entry;

	send_begin(ctx, txn);
	if (!entry->is_announced)
	{
		batch_make_room(&decoder->batch, ctx, entry->description.length);
		write_relation(&decoder->batch.buffer, entry->number, entry->description);
		entry->is_announced = true;
	}
	row_write(decoder->rows, row, &decoder->batch, ctx);
	decoder->row_records++;
}

static void
decode_change(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, Relation relation,
			  ReorderBufferChange *change)
{
	Decoder		  *decoder = ctx->output_plugin_private;
	MemoryContext  oldcontext = MemoryContextSwitchTo(decoder->change_context);
	RelationEntry *entry = relation_cache_get(decoder->relations, relation);

	send_skipped(ctx, txn, entry);
	if (entry->publish_as_count > 0)
	{
		RowChange row = {.kind = record_kind(change),
						 .relation = relation,
						 .entry = entry,
						 .old_tuple = change_tuple(change->data.tp.oldtuple),
						 .new_tuple = change_tuple(change->data.tp.newtuple)};

		send_row(ctx, txn, &row);
	}
	report_progress(ctx);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(decoder->change_context);
}

/* Adds the relations of the interest that lose their rows (or some of them) with this one. */
static List *
append_truncated(List *relids, const RelationEntry *entry)
{
	for (int i = 0; i < entry->publish_as_count; i++)
		relids = list_append_unique_oid(relids, entry->publish_as[i]);
	return relids;
}

/* ... and that by which they do, be it one of them or a part. */
static List *
append_whole(List *relids, const RelationEntry *entry)
{
	return entry->publish_as_count > 0 ? list_append_unique_oid(relids, entry->relid) : relids;
}

static uint32 *
numbers_of(List *relids)
{
	uint32 *numbers = palloc(sizeof(uint32) * Max(list_length(relids), 1));

	for (int i = 0; i < list_length(relids); i++)
		numbers[i] = list_nth_oid(relids, i);
	return numbers;
}

static void
send_truncate(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, List *relids, List *whole)
{
	Decoder *decoder = ctx->output_plugin_private;

	send_begin(ctx, txn);
	write_truncate(&decoder->batch.buffer, numbers_of(relids), list_length(relids),
				   numbers_of(whole), list_length(whole));
}

static void
decode_truncate(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, int relation_count,
				Relation relations[], ReorderBufferChange *change)
{
	Decoder		 *decoder = ctx->output_plugin_private;
	MemoryContext oldcontext = MemoryContextSwitchTo(decoder->change_context);
	List		 *relids = NIL;
	List		 *whole = NIL;

	for (int i = 0; i < relation_count; i++)
	{
		RelationEntry *entry = relation_cache_get(decoder->relations, relations[i]);

		send_skipped(ctx, txn, entry);
		relids = append_truncated(relids, entry);
		whole = append_whole(whole, entry);
	}
	if (relids != NIL)
		send_truncate(ctx, txn, relids, whole);
	report_progress(ctx);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(decoder->change_context);
}

/* ------------------------------------------------------------------------------------------------
 * Messages
 */

/*
 * Outside of a transaction: no catalogs.  The batch is empty then, because every commit writes it;
 * it is written first all the same, so that the order would stay right.
 */
static void
send_message_now(LogicalDecodingContext *ctx, const MessageView *message)
{
	Decoder *decoder = ctx->output_plugin_private;

	if (interest_add_message(&decoder->interest, (const char *) message->payload.data,
							 message->payload.length))
		relation_cache_invalidate_all(decoder->relations);
	batch_flush(&decoder->batch, ctx, false);
	write_message(&decoder->batch.buffer, message);
	batch_flush(&decoder->batch, ctx, true);
}

static void
decode_message(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, XLogRecPtr message_lsn,
			   bool transactional, const char *prefix, Size length, const char *payload)
{
	Decoder	   *decoder = ctx->output_plugin_private;
	MessageView message = {
		.transactional = transactional, .lsn = message_lsn, .payload = byte_range(payload, length)};

	if (strcmp(prefix, MESSAGE_PREFIX) != 0 || length > MESSAGE_BYTES_MAX)
		return;

	MemoryContext oldcontext = MemoryContextSwitchTo(decoder->change_context);

	if (transactional)
	{
		send_begin(ctx, txn);
		batch_make_room(&decoder->batch, ctx, length);
		write_message(&decoder->batch.buffer, &message);
	}
	else
		send_message_now(ctx, &message);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(decoder->change_context);
}

/* ---------------------------------------------------------------------------------------------- */

void
_PG_output_plugin_init(OutputPluginCallbacks *callbacks)
{
	callbacks->startup_cb = decode_startup;
	callbacks->filter_by_origin_cb = filter_by_origin;
	callbacks->begin_cb = decode_begin;
	callbacks->change_cb = decode_change;
	callbacks->truncate_cb = decode_truncate;
	callbacks->message_cb = decode_message;
	callbacks->commit_cb = decode_commit;
}
