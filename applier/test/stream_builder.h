/*
 * applier/test/stream_builder.h
 *     Makes messages of the stream by hand, and the parts of the applier that take them.
 */
#ifndef PGTRICKLE_APPLIER_STREAM_BUILDER_H
#define PGTRICKLE_APPLIER_STREAM_BUILDER_H

#include "intake.h"
#include "memory.h"
#include "proto/write.h"
#include "testing.h"

typedef struct World
{
	Buffer	  *buffer;
	Settle	  *settle;
	Schedule  *schedule;
	Intake	  *intake;
	WireBuffer batch;
	Lsn		   lsn; /* of the next commit */
} World;

static inline void
world_grow(WireBuffer *buffer, size_t more)
{
	buffer->capacity = (buffer->length + more) * 2;
	buffer->data = memory_resize(buffer->data, buffer->capacity);
}

static inline World
world_create(uint64_t memory_bytes_max)
{
	World world = {0};

	world.buffer = buffer_create(memory_bytes_max, 0, NULL);
	world.settle = settle_create();
	world.schedule = schedule_create();
	world.intake = intake_create(world.buffer, world.settle, world.schedule);
	world.batch.grow = world_grow;
	world.lsn = 1000;
	return world;
}

static inline void
world_drop_catalog(World *world)
{
	Catalog *catalog = world->intake->catalog;

	for (size_t i = 0; catalog != NULL && i < catalog->count; i++)
		pending_free(world->buffer, &catalog->tables[i]->run.pending);
	catalog_free(catalog);
	world->intake->catalog = NULL;
}

static inline void
world_free(World *world)
{
	world_drop_catalog(world);
	intake_free(world->intake);
	schedule_free(world->schedule);
	settle_free(world->settle);
	buffer_free(world->buffer);
	free(world->batch.data);
}

/*
 * --- records ------------------------------------------------------------------------------------
 */

static inline void
put_begin(World *world, Xid xid)
{
	BeginView begin = {.xid = xid, .commit_lsn = world->lsn, .commit_time = 1};

	write_begin(&world->batch, &begin);
}

static inline void
put_commit(World *world)
{
	CommitView commit = {.commit_lsn = world->lsn, .end_lsn = world->lsn + 50};

	write_commit(&world->batch, &commit);
	world->lsn += 100;
}

/* A relation without columns, which nobody here looks at. */
static inline void
put_relation(World *world, uint32_t number, Oid relid, Oid publish_as)
{
	RelationView relation = {.relid = relid,
							 .schema_name = byte_range("s", 1),
							 .relation_name = byte_range("t", 1),
							 .replica_identity = 'f',
							 .publish_as_count = 1};
	WireBuffer	 contents = {.grow = world_grow};

	write_relation_contents(&contents, &relation, &publish_as, NULL);
	write_relation(&world->batch, number, byte_range(contents.data, contents.length));
	free(contents.data);
}

/* An insert of one value of `length` bytes. */
static inline void
put_row(World *world, uint32_t number, size_t length)
{
	char	   *value = memory_take(length);
	WireMessage record = wire_begin_message(&world->batch, 1);
	WireMessage row;

	memset(value, 'a' + (int) (number % 26), length);
	wire_put_varint(&world->batch, 1, KIND_INSERT);
	wire_put_varint(&world->batch, 2, number);
	row = wire_begin_message(&world->batch, 4);
	wire_put_bytes(&world->batch, 2, value, length);
	wire_end_message(&world->batch, row);
	wire_end_message(&world->batch, record);
	free(value);
}

static inline void
put_truncate(World *world, Oid relid)
{
	write_truncate(&world->batch, &relid, 1, &relid, 1);
}

static inline void
put_message(World *world, bool transactional, Lsn lsn, const char *payload)
{
	MessageView message = {.transactional = transactional,
						   .lsn = lsn,
						   .payload = byte_range(payload, strlen(payload))};

	write_message(&world->batch, &message);
}

static inline void
put_skipped(World *world, Oid relid)
{
	write_skipped(&world->batch, relid);
}

/* Sends what was put together. */
static inline bool
world_send(World *world)
{
	Error error = {0};
	bool  taken = intake_batch(world->intake, world->batch.data, world->batch.length, 1, &error);

	world->batch.length = 0;
	return taken;
}

/* One transaction with one row. */
static inline void
send_transaction(World *world, Xid xid, uint32_t number)
{
	put_begin(world, xid);
	put_row(world, number, 10);
	put_commit(world);
	CHECK(world_send(world));
}

/*
 * --- catalogs and snapshots ---------------------------------------------------------------------
 */

static inline Snapshot *
snapshot_of(const char *text)
{
	Snapshot *snapshot = NULL;
	Error	  error = {0};

	CHECK(snapshot_parse(text, &snapshot, &error));
	return snapshot;
}

/* A continuous stream table over the sources (ended by 0), with a frontier or NULL. */
static inline StreamTable *
add_table(Catalog *catalog, int64_t pgt_id, const char *frontier, const Oid *sources)
{
	StreamTable *table = catalog_add(catalog, pgt_id, 100000 + (Oid) pgt_id, "public.st");

	table->is_active = true;
	if (frontier != NULL)
		table->frontier = snapshot_of(frontier);
	while (sources[table->source_count] != 0)
		table->source_count++;
	table->sources = memory_take(table->source_count * sizeof(Oid));
	table->source_names = memory_take(table->source_count * sizeof(char *));
	for (size_t i = 0; i < table->source_count; i++)
	{
		table->sources[i] = sources[i];
		table->source_names[i] = memory_copy_text("public.source");
	}
	return table;
}

static inline void
set_upstream(StreamTable *table, int64_t pgt_id)
{
	table->upstream_ids = memory_take(sizeof(int64_t));
	table->upstream_ids[0] = pgt_id;
	table->upstream_id_count = 1;
}

/* Starts to use a catalog in place of the present one, which is freed. */
static inline void
use_catalog(World *world, Catalog *catalog)
{
	Catalog *old = world->intake->catalog;

	if (catalog->snapshot == NULL)
		catalog->snapshot = snapshot_of("1:1:");
	catalog_finish(catalog);
	if (old != NULL)
	{
		catalog_take_over(catalog, old, 0);
		for (size_t i = 0; i < old->count; i++)
			pending_free(world->buffer, &old->tables[i]->run.pending);
	}
	intake_use_catalog(world->intake, catalog, old);
	catalog_free(old);
}

#endif /* PGTRICKLE_APPLIER_STREAM_BUILDER_H */
