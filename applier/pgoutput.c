/*
 * applier/pgoutput.c
 *     What the server's own output plugin says, turned into records of our stream.
 *
 * One message of version 1 of its protocol (text values, no streaming of transactions in progress,
 * no two-phase commit) becomes at most one record. A transaction begins, for our reader, with its
 * first record that matters, and is not told of when there is none:
 *
 *     outside -(Begin)-> inside, silent -(first record)-> inside, begun -(Commit)-> outside
 *
 * A relation is described anew whenever pgoutput does so with other words than before; until then
 * rows go on under the number that it had.
 */
#include "pgoutput.h"

#include "pgoutput_row.h"

/* Handed on when there are so many bytes, or at a commit. */
#define BATCH_BYTES 65536

#define MESSAGE_PREFIX "pgtrickle"
#define COLUMN_IN_IDENTITY 1

typedef struct PublishedRelation
{
	Oid		   relid;
	bool	   is_wanted;
	bool	   is_announced; /* under shape.number */
	uint64_t   skipped_in; /* ordinal of the last transaction that got a Skipped record for it */
	RowShape   shape;
	WireBuffer contents; /* of its Relation record, without the number */
} PublishedRelation;

struct Pgoutput
{
	Oid				   *wanted; /* sorted */
	size_t				wanted_count;
	PublishedRelation **relations; /* sorted by relid */
	size_t				relation_count;
	size_t				relation_capacity;
	uint32_t			last_number;
	Xid					recent_xid;

	bool	  is_inside; /* of a transaction */
	bool	  is_begun; /* its Begin has been written */
	BeginView begin;
	bool	  tells_all; /* also of transactions without anything wanted */
	uint64_t  transaction; /* ordinal, from 1 */
	uint64_t  row_records;

	RowConverter rows;
	WireBuffer	 batch;
	bool		 is_complete; /* hand the batch on now */
	bool		 is_handed_on; /* forget it at the next call */
};

/* ------------------------------------------------------------------------------------------------
 * State
 */

static void
buffer_grow(WireBuffer *buffer, size_t more)
{
	size_t capacity = buffer->capacity * 2;

	if (capacity < buffer->length + more)
		capacity = buffer->length + more;
	buffer->data = memory_resize(buffer->data, capacity);
	buffer->capacity = capacity;
}

static int
compare_relids(const void *a, const void *b)
{
	Oid left = *(const Oid *) a;
	Oid right = *(const Oid *) b;

	return left < right ? -1 : left > right;
}

Pgoutput *
pgoutput_create(const Oid *relids, size_t count, Xid recent_xid)
{
	Pgoutput *pgoutput = memory_take_zeroed(sizeof(Pgoutput));

	pgoutput->wanted = memory_take((count + 1) * sizeof(Oid));
	if (count > 0)
		memcpy(pgoutput->wanted, relids, count * sizeof(Oid));
	pgoutput->wanted_count = count;
	qsort(pgoutput->wanted, count, sizeof(Oid), compare_relids);
	pgoutput->recent_xid = recent_xid;
	pgoutput->batch.grow = buffer_grow;
	return pgoutput;
}

static void
relation_free(PublishedRelation *relation)
{
	free(relation->shape.in_identity);
	free(relation->contents.data);
	free(relation);
}

void
pgoutput_tell_all(Pgoutput *pgoutput)
{
	pgoutput->tells_all = true;
}

void
pgoutput_free(Pgoutput *pgoutput)
{
	if (pgoutput == NULL)
		return;
	for (size_t i = 0; i < pgoutput->relation_count; i++)
		relation_free(pgoutput->relations[i]);
	free(pgoutput->relations);
	free(pgoutput->wanted);
	free(pgoutput->batch.data);
	row_converter_free(&pgoutput->rows);
	free(pgoutput);
}

static bool
is_wanted(const Pgoutput *pgoutput, Oid relid)
{
	return bsearch(&relid, pgoutput->wanted, pgoutput->wanted_count, sizeof(Oid), compare_relids) !=
		   NULL;
}

/* Where the relation stands in the list, or would. */
static size_t
relation_place(const Pgoutput *pgoutput, Oid relid)
{
	size_t low = 0;
	size_t high = pgoutput->relation_count;

	while (low < high)
	{
		size_t middle = low + (high - low) / 2;

		if (pgoutput->relations[middle]->relid < relid)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* NULL when it was not described. */
static PublishedRelation *
find_relation(const Pgoutput *pgoutput, Oid relid)
{
	size_t place = relation_place(pgoutput, relid);

	if (place < pgoutput->relation_count && pgoutput->relations[place]->relid == relid)
		return pgoutput->relations[place];
	return NULL;
}

static PublishedRelation *
add_relation(Pgoutput *pgoutput, Oid relid)
{
	size_t			   place = relation_place(pgoutput, relid);
	PublishedRelation *relation = memory_take_zeroed(sizeof(PublishedRelation));

	relation->relid = relid;
	relation->is_wanted = is_wanted(pgoutput, relid);
	relation->contents.grow = buffer_grow;
	pgoutput->relations =
		memory_grow_array(pgoutput->relations, pgoutput->relation_count,
						  &pgoutput->relation_capacity, sizeof(PublishedRelation *));
	memmove(pgoutput->relations + place + 1, pgoutput->relations + place,
			(pgoutput->relation_count - place) * sizeof(PublishedRelation *));
	pgoutput->relations[place] = relation;
	pgoutput->relation_count++;
	return relation;
}

/* ------------------------------------------------------------------------------------------------
 * Transactions
 */

/* The 64-bit id that ends in these 32 bits and is nearest to the latest one known. */
static Xid
widen_xid(Pgoutput *pgoutput, uint32_t xid)
{
	int32_t distance = (int32_t) (xid - (uint32_t) pgoutput->recent_xid);
	Xid		wide = pgoutput->recent_xid + (uint64_t) (int64_t) distance;

	if (distance < 0 && wide > pgoutput->recent_xid) /* before the first epoch */
		wide = xid;
	if (wide > pgoutput->recent_xid)
		pgoutput->recent_xid = wide;
	return wide;
}

/* Before any record of a transaction. */
static void
put_begin(Pgoutput *pgoutput)
{
	if (!pgoutput->is_begun)
		write_begin(&pgoutput->batch, &pgoutput->begin);
	pgoutput->is_begun = true;
}

static const char *
take_begin(Pgoutput *pgoutput, PgoutputReader *reader)
{
	if (pgoutput->is_inside)
		return "transaction begins inside of another";
	pgoutput->begin.commit_lsn = read_number(reader, 8);
	pgoutput->begin.commit_time = (int64_t) read_number(reader, 8);
	pgoutput->begin.xid = widen_xid(pgoutput, (uint32_t) read_number(reader, 4));
	pgoutput->is_inside = true;
	pgoutput->is_begun = false;
	pgoutput->row_records = 0;
	pgoutput->transaction++;
	if (pgoutput->tells_all)
		put_begin(pgoutput);
	return NULL;
}

static const char *
take_commit(Pgoutput *pgoutput, PgoutputReader *reader)
{
	CommitView commit = {.row_records = pgoutput->row_records};

	(void) read_number(reader, 1); /* flags, unused */
	commit.commit_lsn = read_number(reader, 8);
	commit.end_lsn = read_number(reader, 8);
	(void) read_number(reader, 8); /* the time, which Begin said */
	if (!pgoutput->is_inside)
		return "commit outside of a transaction";
	if (!reader->is_short && commit.commit_lsn != pgoutput->begin.commit_lsn)
		return "transaction ends at another position than its beginning said";
	pgoutput->is_inside = false;
	if (!pgoutput->is_begun || reader->is_short)
		return NULL;
	write_commit(&pgoutput->batch, &commit);
	pgoutput->is_complete = true;
	return NULL;
}

/* ------------------------------------------------------------------------------------------------
 * Relations
 */

/* Reads the columns of a description; the arrays are the caller's. */
static void
take_columns(PgoutputReader *reader, uint32_t count, ColumnView *columns, bool *in_identity)
{
	for (uint32_t i = 0; i < count && !reader->is_short; i++)
	{
		uint64_t flags = read_number(reader, 1);

		in_identity[i] = (flags & COLUMN_IN_IDENTITY) != 0;
		columns[i] = (ColumnView){.encoding = ENCODING_TEXT, .in_identity = in_identity[i]};
		columns[i].name = read_string(reader);
		columns[i].type_oid = (uint32_t) read_number(reader, 4);
		columns[i].type_modifier = (int32_t) (uint32_t) read_number(reader, 4);
	}
}

/* Takes over a description that differs from the one before; `in_identity` becomes its own. */
static void
describe(Pgoutput *pgoutput, const RelationView *view, const ColumnView *columns, bool *in_identity)
{
	PublishedRelation *relation = find_relation(pgoutput, view->relid);
	WireBuffer		   contents = {.grow = buffer_grow};

	write_relation_contents(&contents, view, &view->relid, columns);
	if (relation == NULL)
		relation = add_relation(pgoutput, view->relid);
	else if (relation->contents.length == contents.length &&
			 memcmp(relation->contents.data, contents.data, contents.length) == 0)
	{
		free(contents.data);
		free(in_identity);
		return;
	}
	free(relation->contents.data);
	free(relation->shape.in_identity);
	relation->contents = contents;
	relation->is_announced = false;
	relation->shape = (RowShape){.number = ++pgoutput->last_number,
								 .column_count = view->column_count,
								 .in_identity = in_identity};
}

static const char *
take_relation(Pgoutput *pgoutput, PgoutputReader *reader)
{
	RelationView view = {.publish_as_count = 1};
	ColumnView	*columns;
	bool		*in_identity;

	view.relid = (uint32_t) read_number(reader, 4);
	view.schema_name = read_string(reader);
	if (view.schema_name.length == 0)
		view.schema_name = byte_range("pg_catalog", strlen("pg_catalog"));
	view.relation_name = read_string(reader);
	view.replica_identity = (char) read_number(reader, 1);
	view.column_count = (uint32_t) read_number(reader, 2);
	if (reader->is_short)
		return NULL;
	if (view.replica_identity < 'a' || view.replica_identity > 'z')
		return "relation has an unknown replica identity";

	columns = memory_take_zeroed((view.column_count + 1) * sizeof(ColumnView));
	in_identity = memory_take_zeroed(view.column_count + 1);
	take_columns(reader, view.column_count, columns, in_identity);
	if (reader->is_short)
		free(in_identity);
	else
		describe(pgoutput, &view, columns, in_identity);
	free(columns);
	return NULL;
}

/* What pgoutput says of a type before a relation that uses it: nothing that a reader elsewhere needs. */
static const char *
take_type(PgoutputReader *reader)
{
	(void) read_number(reader, 4);
	(void) read_string(reader);
	(void) read_string(reader);
	return NULL;
}

/* ------------------------------------------------------------------------------------------------
 * Changes
 */

/* A relation of the publication that nobody asked for: said once per transaction. */
static void
put_skipped(Pgoutput *pgoutput, PublishedRelation *relation)
{
	if (relation->skipped_in == pgoutput->transaction)
		return;
	relation->skipped_in = pgoutput->transaction;
	put_begin(pgoutput);
	write_skipped(&pgoutput->batch, relation->relid);
}

static void
announce(Pgoutput *pgoutput, PublishedRelation *relation)
{
	if (!relation->is_announced)
		write_relation(&pgoutput->batch, relation->shape.number,
					   byte_range(relation->contents.data, relation->contents.length));
	relation->is_announced = true;
}

static const char *
take_row(Pgoutput *pgoutput, RecordKind kind, PgoutputReader *reader)
{
	Oid				   relid = (Oid) read_number(reader, 4);
	PublishedRelation *relation = find_relation(pgoutput, relid);
	const char		  *wrong;

	if (!pgoutput->is_inside)
		return "row outside of a transaction";
	if (relation == NULL)
		return "row of a relation that was not described";
	if (!relation->is_wanted)
	{
		read_to_end(reader);
		put_skipped(pgoutput, relation);
		return NULL;
	}
	put_begin(pgoutput);
	announce(pgoutput, relation);
	wrong = row_convert(&pgoutput->rows, &relation->shape, kind, reader, &pgoutput->batch);
	pgoutput->row_records++;
	return wrong;
}

static const char *
take_truncate(Pgoutput *pgoutput, PgoutputReader *reader)
{
	uint64_t count = read_number(reader, 4);
	Oid		*relids;
	size_t	 kept = 0;

	(void) read_number(reader, 1); /* cascade, restart identity: the list has all there is to it */
	if (!pgoutput->is_inside)
		return "truncation outside of a transaction";
	if (reader->is_short || count > reader->left / 4)
		return "message is cut off";
	relids = memory_take((size_t) (count + 1) * sizeof(Oid));
	for (uint64_t i = 0; i < count; i++)
	{
		Oid				   relid = (Oid) read_number(reader, 4);
		PublishedRelation *relation = find_relation(pgoutput, relid);

		if (is_wanted(pgoutput, relid))
			relids[kept++] = relid;
		else if (relation != NULL)
			put_skipped(pgoutput, relation);
	}
	if (kept > 0)
	{
		put_begin(pgoutput);
		write_truncate(&pgoutput->batch, relids, kept, relids, kept);
	}
	free(relids);
	return NULL;
}

static const char *
take_message(Pgoutput *pgoutput, PgoutputReader *reader)
{
	MessageView message;
	ByteRange	prefix;

	message.transactional = (read_number(reader, 1) & 1) != 0;
	message.lsn = read_number(reader, 8);
	prefix = read_string(reader);
	message.payload = read_range(reader, (size_t) read_number(reader, 4));
	if (reader->is_short)
		return NULL;
	if (message.transactional != pgoutput->is_inside)
		return "message stands on the wrong side of a transaction's end";
	if (prefix.length != strlen(MESSAGE_PREFIX) ||
		memcmp(prefix.data, MESSAGE_PREFIX, prefix.length) != 0)
		return NULL;
	if (message.transactional)
		put_begin(pgoutput);
	write_message(&pgoutput->batch, &message);
	pgoutput->is_complete = !message.transactional;
	return NULL;
}

/* ---------------------------------------------------------------------------------------------- */

/* NULL, or what is wrong with the message. */
static const char *
take(Pgoutput *pgoutput, PgoutputReader *reader)
{
	switch ((char) read_number(reader, 1))
	{
		case 'B':
			return take_begin(pgoutput, reader);
		case 'C':
			return take_commit(pgoutput, reader);
		case 'R':
			return take_relation(pgoutput, reader);
		case 'Y':
			return take_type(reader);
		case 'I':
			return take_row(pgoutput, KIND_INSERT, reader);
		case 'U':
			return take_row(pgoutput, KIND_UPDATE, reader);
		case 'D':
			return take_row(pgoutput, KIND_DELETE, reader);
		case 'T':
			return take_truncate(pgoutput, reader);
		case 'M':
			return take_message(pgoutput, reader);
		case 'O': /* where the transaction came from: its rows are changes here all the same */
			read_to_end(reader);
			return NULL;
		default:
			return "message is of an unknown kind";
	}
}

/* Starts the next batch, and gives back what a huge row took. */
static void
forget_batch(Pgoutput *pgoutput)
{
	pgoutput->batch.length = 0;
	pgoutput->is_handed_on = false;
	if (pgoutput->batch.capacity <= 8 * BATCH_BYTES)
		return;
	pgoutput->batch.capacity = 2 * BATCH_BYTES;
	pgoutput->batch.data = memory_resize(pgoutput->batch.data, pgoutput->batch.capacity);
}

bool
pgoutput_convert(Pgoutput *pgoutput, const void *data, size_t length, const uint8_t **batch,
				 size_t *batch_length, Error *error)
{
	const uint8_t *start = data;
	PgoutputReader reader = {start, length, false};
	const char	  *wrong;

	if (pgoutput->is_handed_on)
		forget_batch(pgoutput);
	pgoutput->is_complete = false;
	wrong = take(pgoutput, &reader);
	if (wrong == NULL && reader.is_short)
		wrong = "message is cut off";
	if (wrong == NULL && reader.left > 0)
		wrong = "message is longer than its contents";
	if (wrong != NULL)
		return error_set(error, FAIL_RETRY,
						 "could not read a message of pgoutput: %s at byte %zu of %zu", wrong,
						 (size_t) (reader.next - start), length);

	pgoutput->is_handed_on = pgoutput->is_complete || pgoutput->batch.length >= BATCH_BYTES;
	*batch = pgoutput->batch.data;
	*batch_length = pgoutput->is_handed_on ? pgoutput->batch.length : 0;
	return true;
}

void
pgoutput_append_options(Text *options, const char *publication)
{
	text_append(options, "\"proto_version\" '1', \"messages\" 'true', \"publication_names\" '\"");
	for (const char *at = publication; *at != '\0'; at++)
	{
		if (*at == '"' || *at == '\'') /* both are doubled inside of themselves */
			text_append_char(options, *at);
		text_append_char(options, *at);
	}
	text_append(options, "\"'");
}
