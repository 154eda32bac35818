/*
 * delta/copy_reader.c
 *     From records of a remote's stream to changes of copies.
 *
 *     bytes --records.c--> record --the feeds of its table--> target (copy_target.c), kept bytes (copy_spool.c)
 *
 * What stage.c is for sources of this database; here the records are in order and each counts.
 *
 * Columns are known by their attribute numbers, which survive renaming, or by names where the stream has no numbers or the rows are those of a partition;
 * types by the remote's OIDs that the program found when it defined the copy.  A record with another type, or with a column that the copy
 * should have and does not, has another shape: nothing can be done before the copy's definition has been compared with the table's.  That is found at
 * the first row, before anything is read from it: a Relation record alone changes nothing.
 *
 * The definition may be ahead of the stream, as when the program has compared it after some DDL whose past has not all been read.  So a column that was dropped is
 * skipped, one that was added later is NULL, one with another name is the same; and the program is told to have a look in its own time.
 */
#include "copy_reader.h"
#include "copy_record.h"

#include "access/table.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "records.h"
#include "stage_relations.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#define KEPT_BYTES_MAX (1024 * 1024)	/* before some of it is put away */

/* A relation of the stream, bound to one feed. */
typedef struct CopyBinding
{
	CopyFeed   *feed;
	char	   *misfit;			/* why its rows are no rows of the copy; NULL: they are */
	bool		is_outdated;	/* they are, but a column has another name, or is there only on one side */
	int			nbound;
	BoundColumn *bound;			/* targets in live layout */
} CopyBinding;

typedef struct ReaderRelation
{
	uint32		number;
	char		status;
	StageRelation *relation;
	List	   *bindings;		/* of CopyBinding */
} ReaderRelation;

#define SH_PREFIX reader
#define SH_ELEMENT_TYPE ReaderRelation
#define SH_KEY_TYPE uint32
#define SH_KEY number
#define SH_HASH_KEY(tb, key) murmurhash32(key)
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct CopyReader
{
	MemoryContext context;
	MemoryContext row_context;	/* reset after each record */
	CopyFeedFinder find_feeds;
	void	   *argument;
	reader_hash *relations;
	ByteRange	begin;			/* the present transaction's Begin record, in the present batch or a copy */
	BeginView	transaction;
	StringInfoData begin_bytes;
	StringInfoData scratch;
	CopyDefinition **current;
	const char *column_name;
};

CopyReader *
copy_reader_create(CopyFeedFinder find_feeds, void *argument, MemoryContext context)
{
	MemoryContext own_context = AllocSetContextCreate(context, "pgtrickle remote stream", ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(own_context);
	CopyReader *reader = palloc0(sizeof(CopyReader));

	reader->context = own_context;
	reader->row_context = AllocSetContextCreate(own_context, "pgtrickle remote row", ALLOCSET_DEFAULT_SIZES);
	reader->find_feeds = find_feeds;
	reader->argument = argument;
	reader->relations = reader_create(own_context, 64, NULL);
	initStringInfo(&reader->begin_bytes);
	initStringInfo(&reader->scratch);
	MemoryContextSwitchTo(oldcontext);
	return reader;
}

/* ------------------------------------------------------------------------------------------------
 * Binding
 */

/* The stream says attribute numbers of the very table: not those of a partition, and not all streams do. */
static bool
has_attnums(const StageRelation *relation, const CopyDefinition *definition)
{
	return relation->relid == definition->remote_relid && relation->ncolumns > 0 && relation->columns[0].attnum != 0;
}

static bool
is_column(const StageRelation *relation, int source, const CopyColumn *column, bool by_number)
{
	return by_number ? relation->columns[source].attnum == column->remote_attno
		: strcmp(relation->columns[source].name, column->remote_column) == 0;
}

/*
 * A value in binary form is read as the copy's type, so a built-in type has to be the same.  Types of users have other OIDs here; they
 * come as text, unless they are domains, whose values are those of the type beneath.
 */
static bool
can_read(const StageColumn *source, Form_pg_attribute att)
{
	if (source->encoding != ENCODING_BINARY || source->type >= FirstNormalObjectId)
		return true;
	return source->type == getBaseType(att->atttypid);
}

static char *
bind_column(CopyReader *reader, CopyBinding *binding, const StageRelation *relation, int source, const CopyColumn *column)
{
	CopyTarget *target = binding->feed->target;
	const StageColumn *described = &relation->columns[source];
	BoundColumn *bound = &binding->bound[binding->nbound];
	Form_pg_attribute att;

	if (described->type != column->remote_type || described->typmod != column->remote_typmod)
		return psprintf("column \"%s\" has another type", described->name);
	if (strcmp(described->name, column->remote_column) != 0)
		binding->is_outdated = true;
	if (target == NULL)
		return NULL;
	bound->source = source;
	bound->target = copy_target_column(target, column->attno);
	att = TupleDescAttr(target->columns, bound->target);
	if (!can_read(described, att))
		return psprintf("column \"%s\" has another type than the copy", described->name);
	value_decoder_init(&bound->decoder, att->atttypid, att->atttypmod, described->encoding, reader->context);
	binding->nbound++;
	return NULL;
}

static bool
is_key_column(const CopyDefinition *definition, AttrNumber attno)
{
	for (int i = 0; i < definition->locator.nkeys; i++)
	{
		if (definition->locator.key_attnos[i] == attno)
			return true;
	}
	return false;
}

/* Each column of the copy to its column in the records.  One that they do not have was added later, or has been dropped: NULL. */
static char *
bind_columns(CopyReader *reader, CopyBinding *binding, const StageRelation *relation, bool by_number)
{
	const CopyDefinition *definition = binding->feed->definition;

	for (int i = 0; i < definition->ncolumns; i++)
	{
		const CopyColumn *column = &definition->columns[i];
		char	   *misfit;
		int			source = 0;

		while (source < relation->ncolumns && !is_column(relation, source, column, by_number))
			source++;
		if (source == relation->ncolumns)
		{
			if (is_key_column(definition, column->attno))
				return psprintf("key column \"%s\" is not there", column->remote_column);
			binding->is_outdated = true;
			continue;
		}
		misfit = bind_column(reader, binding, relation, source, column);
		if (misfit != NULL)
			return misfit;
	}
	return NULL;
}

/*
 * Where all columns are wanted, one that the copy does not have is a new one, unless its number says that it was known once: the records may
 * be from before it was dropped.
 */
static char *
find_new_column(const CopyDefinition *definition, const StageRelation *relation, bool by_number)
{
	if (!definition->all_columns)
		return NULL;
	for (int source = 0; source < relation->ncolumns; source++)
	{
		int			i = 0;

		while (i < definition->ncolumns && !is_column(relation, source, &definition->columns[i], by_number))
			i++;
		if (i == definition->ncolumns && (!by_number || relation->columns[source].attnum > definition->remote_natts))
			return psprintf("column \"%s\" is new", relation->columns[source].name);
	}
	return NULL;
}

static CopyBinding *
bind(CopyReader *reader, const StageRelation *relation, CopyFeed *feed)
{
	CopyBinding *binding = palloc0(sizeof(CopyBinding));
	bool		by_number = has_attnums(relation, feed->definition);

	if (feed->definition->is_partitioned && relation->relid != feed->definition->remote_relid)
		copy_record_member(feed->definition, relation->relid, relation->name);
	binding->feed = feed;
	binding->bound = palloc0((feed->definition->ncolumns + 1) * sizeof(BoundColumn));
	binding->misfit = find_new_column(feed->definition, relation, by_number);
	if (binding->misfit == NULL)
		binding->misfit = bind_columns(reader, binding, relation, by_number);
	return binding;
}

static void
keep_record(CopyReader *reader, CopyFeed *feed, const RecordView *record)
{
	if (feed->kept == NULL)
		return;
	if (record->kind != KIND_RELATION && feed->kept_xid != reader->transaction.xid && reader->begin.length > 0)
	{
		appendBinaryStringInfo(feed->kept, (const char *) reader->begin.data, (int) reader->begin.length);
		feed->kept_xid = reader->transaction.xid;
	}
	appendBinaryStringInfo(feed->kept, (const char *) record->encoded.data, (int) record->encoded.length);
	if (feed->kept->len > KEPT_BYTES_MAX)
		feed->put_away(feed);
}

/* The rows of a partition are the table's.  Those of a table that inherits from it are its own: the first copy does not have them either. */
static bool
is_copied(const StageRelation *relation, const CopyDefinition *definition)
{
	return definition->is_partitioned || relation->relid == definition->remote_relid;
}

static List *
bind_all(CopyReader *reader, const StageRelation *relation)
{
	List	   *bindings = NIL;
	ListCell   *lc;

	foreach(lc, relation->publish_as)
	{
		List	   *feeds = reader->find_feeds(reader->argument, lfirst_oid(lc));
		ListCell   *lc2;

		MemoryContextSwitchTo(reader->context);
		foreach(lc2, feeds)
		{
			if (is_copied(relation, ((CopyFeed *) lfirst(lc2))->definition))
				bindings = lappend(bindings, bind(reader, relation, lfirst(lc2)));
		}
	}
	return bindings;
}

/* The same description comes again with every change set.  What an older one needed stays behind in the context. */
static void
read_relation(CopyReader *reader, const RecordView *record)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(reader->context);
	bool		found;
	ReaderRelation *entry = reader_insert(reader->relations, record->relation_def.number, &found);
	ListCell   *lc;

	if (!found || entry->relation->encoded.length != record->encoded.length ||
		memcmp(entry->relation->encoded.data, record->encoded.data, record->encoded.length) != 0)
	{
		StageRelation *relation = stage_relation_create(record);

		entry->relation = relation;
		entry->bindings = bind_all(reader, relation);
	}
	foreach(lc, entry->bindings)
		keep_record(reader, ((CopyBinding *) lfirst(lc))->feed, record);
	MemoryContextSwitchTo(oldcontext);
}

/* ------------------------------------------------------------------------------------------------
 * Rows
 */

/* The record comes from before the copying began, and so is in every row that was copied. */
static bool
is_in_load(CopyReader *reader, CopyFeed *feed)
{
	return feed->is_load && reader->transaction.commit_lsn < feed->definition->copied_from;
}

/*
 * Rows may have left a partitioned table since, with their partition, and nothing in the stream says so: what came before must not bring them back.
 * Elsewhere it does no harm, and may have a value that was stored out of line.
 */
static bool
is_superseded(CopyReader *reader, CopyFeed *feed)
{
	return feed->definition->is_partitioned && is_in_load(reader, feed);
}

static bool
is_in_table(CopyReader *reader, CopyFeed *feed)
{
	return feed->skipped_snapshot != 0 &&
		DatumGetBool(DirectFunctionCall2(pg_visible_in_snapshot, UInt64GetDatum(reader->transaction.xid),
										 feed->skipped_snapshot));
}

static void
report_misfit(const CopyBinding *binding)
{
	ereport(ERROR,
			(errcode(ERRCODE_COPY_OTHER_SHAPE),
			 errmsg("table %s has another shape than its copy %s: %s", binding->feed->definition->remote_name,
					binding->feed->definition->name, binding->misfit)));
}

static void
report_blocked(const CopyFeed *feed)
{
	ereport(ERROR,
			(errcode(ERRCODE_COPY_OTHER_SHAPE),
			 errmsg("the definition of copy %s has to be compared with table %s", feed->definition->name,
					feed->definition->remote_name)));
}

static void
feed_row(CopyReader *reader, CopyBinding *binding, const StageRelation *relation, const RecordView *record)
{
	CopyFeed   *feed = binding->feed;
	CopyChange	change = {
		.kind = record->kind,
		.has_old_row = record->old_row.data != NULL,
		.old_row_is_key = (record->flaws & FLAW_OLD_ROW_KEY_ONLY) != 0,
		.old_values = relation->old_values,
		.new_values = relation->new_values,
		.bound = binding->bound,
		.nbound = binding->nbound,
		.scratch = &reader->scratch
	};

	if (feed->definition->is_blocked)
		report_blocked(feed);
	feed->is_outdated |= binding->is_outdated;
	if (feed->target == NULL || is_superseded(reader, feed) || (binding->misfit != NULL && is_in_load(reader, feed)))
		return;
	if (binding->misfit != NULL)
		report_misfit(binding);
	if (!is_in_table(reader, feed))
		copy_target_change(feed->target, &change);
}

static void
read_row(const StageRelation *relation, ByteRange row, TupleValue *values)
{
	const uint8_t *error_at;
	const char *error = stage_relation_read_row(relation, row, values, &error_at);

	if (error != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("could not read a change to table %s: %s", relation->name, error)));
}

static void
read_row_record(CopyReader *reader, const RecordView *record)
{
	ReaderRelation *entry = reader_lookup(reader->relations, record->relation);
	StageRelation *relation;
	ListCell   *lc;

	if (entry == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("could not read a change of a remote: relation number %u has not been described", record->relation)));
	relation = entry->relation;
	if (entry->bindings == NIL)
		return;
	if (record->old_row.data != NULL)
		read_row(relation, record->old_row, relation->old_values);
	if (record->new_row.data != NULL)
		read_row(relation, record->new_row, relation->new_values);
	foreach(lc, entry->bindings)
	{
		CopyBinding *binding = lfirst(lc);
		CopyScope	scope;

		*reader->current = binding->feed->definition;
		keep_record(reader, binding->feed, record);
		copy_scope_enter(&scope, binding->feed->definition);
		feed_row(reader, binding, relation, record);
		copy_scope_leave(&scope);
		*reader->current = NULL;
	}
}

/* Not only a part of it. */
static bool
was_truncated_itself(const RecordView *record, const CopyDefinition *definition)
{
	RelidReader whole = truncate_whole_reader(&record->truncate);
	uint32_t	relid;

	while (relid_next(&whole, &relid))
	{
		if (relid == definition->remote_relid)
			return true;
	}
	return false;
}

/*
 * A table is named as well when a partition of it was truncated, or a table that inherits from it, whose rows are not in the copy (is_copied).  A remote may
 * run a plugin that does not tell these apart: it is believed about tables without partitions.
 */
static bool
concerns_copy(const RecordView *record, const CopyDefinition *definition)
{
	return definition->is_partitioned || record->truncate.whole_count == 0 || was_truncated_itself(record, definition);
}

static void
check_truncated(const RecordView *record, const CopyFeed *feed)
{
	if (feed->definition->is_partitioned && !was_truncated_itself(record, feed->definition))
		ereport(ERROR,
				(errcode(ERRCODE_COPY_NOT_EQUAL),
				 errmsg("a partition of table %s was truncated", feed->definition->remote_name)));
}

static void
read_truncate(CopyReader *reader, const RecordView *record)
{
	RelidReader relids = truncate_reader(&record->truncate);
	uint32_t	relid;

	while (relid_next(&relids, &relid))
	{
		ListCell   *lc;

		foreach(lc, reader->find_feeds(reader->argument, relid))
		{
			CopyFeed   *feed = lfirst(lc);
			CopyScope	scope;

			if (!concerns_copy(record, feed->definition))
				continue;
			*reader->current = feed->definition;
			keep_record(reader, feed, record);
			if (feed->definition->is_blocked)
				report_blocked(feed);
			copy_scope_enter(&scope, feed->definition);
			if (feed->target != NULL && !is_in_table(reader, feed) && !is_superseded(reader, feed))
			{
				check_truncated(record, feed);
				copy_target_truncate(feed->target);
			}
			copy_scope_leave(&scope);
			*reader->current = NULL;
		}
	}
}

/* ------------------------------------------------------------------------------------------------
 * The whole
 */

static void
read_begin(CopyReader *reader, const RecordView *record)
{
	resetStringInfo(&reader->begin_bytes);
	appendBinaryStringInfo(&reader->begin_bytes, (const char *) record->encoded.data, (int) record->encoded.length);
	reader->begin = byte_range((const uint8_t *) reader->begin_bytes.data, reader->begin_bytes.len);
	reader->transaction = record->begin;
}

static void
read_record(CopyReader *reader, const RecordView *record)
{
	switch (record->kind)
	{
		case KIND_BEGIN:
			read_begin(reader, record);
			break;
		case KIND_RELATION:
			read_relation(reader, record);
			break;
		case KIND_INSERT:
		case KIND_UPDATE:
		case KIND_DELETE:
			read_row_record(reader, record);
			break;
		case KIND_TRUNCATE:
			read_truncate(reader, record);
			break;
		default:				/* the applier's business */
			break;
	}
}

static void
read_all(CopyReader *reader, const char *data, size_t length)
{
	BatchReader batch = batch_reader(data, length);
	RecordView	record;
	MemoryContext oldcontext = MemoryContextSwitchTo(reader->row_context);

	while (batch_next_record(&batch, &record))
	{
		CHECK_FOR_INTERRUPTS();
		read_record(reader, &record);
		MemoryContextReset(reader->row_context);
	}
	MemoryContextSwitchTo(oldcontext);
	if (batch.error != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("could not read changes of a remote: %s", batch.error),
				 errdetail("Byte %zu of %zu.", batch_error_offset(&batch), length)));
}

static void
describe_copy(void *argument)
{
	CopyReader *reader = argument;

	if (*reader->current != NULL)
		errcontext("copy %s of table %s, transaction " UINT64_FORMAT " at %X/%X", (*reader->current)->name,
				   (*reader->current)->remote_name, reader->transaction.xid,
				   LSN_FORMAT_ARGS(reader->transaction.commit_lsn));
}

void
copy_reader_read(CopyReader *reader, const char *data, size_t length, CopyDefinition **current)
{
	ErrorContextCallback callback = {.previous = error_context_stack, .callback = describe_copy, .arg = reader};
	int			client_encoding = pg_get_client_encoding();

	reader->current = current;
	error_context_stack = &callback;
	/* values are in the database's encoding, but receive functions believe that they come from the client */
	PG_TRY();
	{
		if (client_encoding != GetDatabaseEncoding())
			SetClientEncoding(GetDatabaseEncoding());
		read_all(reader, data, length);
	}
	PG_FINALLY();
	{
		if (client_encoding != GetDatabaseEncoding())
			SetClientEncoding(client_encoding);
	}
	PG_END_TRY();
	error_context_stack = callback.previous;
}

BeginView
copy_reader_last(const CopyReader *reader)
{
	return reader->transaction;
}
