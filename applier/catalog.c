/*
 * applier/catalog.c
 *     The stream tables as the applier knows them.
 */
#include "catalog.h"

#include <assert.h>
#include <stdio.h>

#include "memory.h"

#define CRON_LOOK_AHEAD (3600 * MICROS_PER_SECOND)

/* ------------------------------------------------------------------------------------------------
 * Making and freeing
 */

Catalog *
catalog_create(void)
{
	Catalog *catalog = memory_take_zeroed(sizeof(Catalog));

	catalog->stale_at = MICROS_NEVER;
	return catalog;
}

StreamTable *
catalog_add(Catalog *catalog, int64_t pgt_id, Oid relid, const char *name)
{
	StreamTable *table = memory_take_zeroed(sizeof(StreamTable));

	table->pgt_id = pgt_id;
	table->relid = relid;
	table->name = memory_copy_text(name);
	table->run.missed_lsn = LSN_MAX;
	table->cron_at = MICROS_NEVER;
	catalog->tables = memory_resize(catalog->tables, (catalog->count + 1) * sizeof(StreamTable *));
	catalog->tables[catalog->count++] = table;
	return table;
}

static void
stream_table_free(StreamTable *table)
{
	assert(table->run.pending.items == NULL);
	for (size_t i = 0; i < table->source_count; i++)
		free(table->source_names[i]);
	free(table->source_names);
	free(table->sources);
	free(table->upstream_ids);
	free(table->upstream);
	free(table->refill_reason);
	free(table->name);
	snapshot_release(table->frontier);
	snapshot_release(table->spooled);
	free(table);
}

void
catalog_free(Catalog *catalog)
{
	if (catalog == NULL)
		return;
	for (size_t i = 0; i < catalog->count; i++)
		stream_table_free(catalog->tables[i]);
	free(catalog->tables);
	free(catalog->readers);
	snapshot_release(catalog->snapshot);
	free(catalog);
}

/* ------------------------------------------------------------------------------------------------
 * The graph
 */

StreamTable *
catalog_find(const Catalog *catalog, int64_t pgt_id)
{
	for (size_t i = 0; i < catalog->count; i++)
	{
		if (catalog->tables[i]->pgt_id == pgt_id)
			return catalog->tables[i];
	}
	return NULL;
}

static void
link_upstream(Catalog *catalog)
{
	for (size_t i = 0; i < catalog->count; i++)
	{
		StreamTable *table = catalog->tables[i];

		table->upstream = memory_take(table->upstream_id_count * sizeof(StreamTable *));
		for (size_t j = 0; j < table->upstream_id_count; j++)
		{
			StreamTable *upstream = catalog_find(catalog, table->upstream_ids[j]);

			if (upstream != NULL && upstream->schedule != SCHEDULE_IMMEDIATE)
				table->upstream[table->upstream_count++] = upstream;
		}
	}
}

/* Depth first: a stream table follows everything that it reads.  in_tick marks what was visited. */
static void
visit_upstream_first(StreamTable *table, StreamTable **sorted, size_t *count)
{
	if (table->in_tick)
		return;
	table->in_tick = true;
	for (size_t i = 0; i < table->upstream_count; i++)
		visit_upstream_first(table->upstream[i], sorted, count);
	sorted[(*count)++] = table;
}

static void
sort_upstream_first(Catalog *catalog)
{
	StreamTable **sorted = memory_take(catalog->count * sizeof(StreamTable *));
	size_t		  count = 0;

	/* Copies before all others, as tick_plan() wants them. */
	for (size_t i = 0; i < catalog->count; i++)
	{
		if (stream_table_is_copy(catalog->tables[i]))
			visit_upstream_first(catalog->tables[i], sorted, &count);
	}
	for (size_t i = 0; i < catalog->count; i++)
		visit_upstream_first(catalog->tables[i], sorted, &count);
	assert(count == catalog->count);
	for (size_t i = 0; i < count; i++)
		sorted[i]->in_tick = false;
	free(catalog->tables);
	catalog->tables = sorted;
}

/*
 * Who reads a stopped stream table stands still with it.  Nothing is kept for either, in memory or
 * in the WAL; when it is set going again, both are filled again.
 */
static void
stop_consumers(Catalog *catalog)
{
	for (size_t i = 0; i < catalog->count; i++)
	{
		StreamTable *table = catalog->tables[i];

		for (size_t j = 0; j < table->upstream_count; j++)
			table->is_active &= table->upstream[j]->is_active;
		table->run.was_inactive = !table->is_active;
	}
}

static int
compare_readers(const void *a, const void *b)
{
	Oid left = ((const Reader *) a)->relid;
	Oid right = ((const Reader *) b)->relid;

	return left < right ? -1 : left > right;
}

static void
index_readers(Catalog *catalog)
{
	size_t capacity = 0;

	for (size_t i = 0; i < catalog->count; i++)
	{
		StreamTable *table = catalog->tables[i];

		if (!table->is_active || table->schedule == SCHEDULE_IMMEDIATE)
			continue;
		for (size_t j = 0; j < table->source_count; j++)
		{
			Reader *reader;

			catalog->readers = memory_grow_array(catalog->readers, catalog->reader_count, &capacity,
												 sizeof(Reader));
			reader = &catalog->readers[catalog->reader_count++];
			reader->relid = table->sources[j];
			reader->table = table;
		}
	}
	if (catalog->reader_count > 0)
		qsort(catalog->readers, catalog->reader_count, sizeof(Reader), compare_readers);
}

void
catalog_finish(Catalog *catalog)
{
	link_upstream(catalog);
	sort_upstream_first(catalog);
	stop_consumers(catalog);
	index_readers(catalog);
}

const Reader *
catalog_readers(const Catalog *catalog, Oid relid, size_t *count)
{
	size_t low = 0;
	size_t high = catalog->reader_count;

	while (low < high)
	{
		size_t middle = low + (high - low) / 2;

		if (catalog->readers[middle].relid < relid)
			low = middle + 1;
		else
			high = middle;
	}
	*count = 0;
	while (low + *count < catalog->reader_count && catalog->readers[low + *count].relid == relid)
		(*count)++;
	return *count > 0 ? &catalog->readers[low] : NULL;
}

Oid *
catalog_interest(const Catalog *catalog, size_t *count)
{
	Oid *relids = memory_take(catalog->reader_count * sizeof(Oid));

	*count = 0;
	for (size_t i = 0; i < catalog->reader_count; i++)
	{
		if (*count == 0 || relids[*count - 1] != catalog->readers[i].relid)
			relids[(*count)++] = catalog->readers[i].relid;
	}
	return relids;
}

bool
stream_table_reads(const StreamTable *table, Oid relid)
{
	for (size_t i = 0; i < table->source_count; i++)
	{
		if (table->sources[i] == relid)
			return true;
	}
	return false;
}

const char *
stream_table_source_name(const StreamTable *table, Oid relid)
{
	for (size_t i = 0; i < table->source_count; i++)
	{
		if (table->sources[i] == relid)
			return table->source_names[i];
	}
	return "";
}

/* ------------------------------------------------------------------------------------------------
 * Loading
 */

/* Columns of sql/catalog.sql. */
enum
{
	COLUMN_SNAPSHOT,
	COLUMN_PGT_ID,
	COLUMN_RELID,
	COLUMN_NAME,
	COLUMN_STATUS,
	COLUMN_SCHEDULE_KIND,
	COLUMN_SCHEDULE_MS,
	COLUMN_SOURCE_RELIDS,
	COLUMN_SOURCE_NAMES,
	COLUMN_UPSTREAM_IDS,
	COLUMN_FRONTIER_SNAPSHOT,
	COLUMN_FRONTIER_LSN,
	COLUMN_FRONTIER_XID,
	COLUMN_FILLED_XID,
	COLUMN_NEEDS_REFILL,
	COLUMN_REFILL_REASON,
	COLUMN_CONSECUTIVE_ERRORS,
	COLUMN_RETRY_MS,
	COLUMN_CLOCK,
	COLUMN_DATA_AGE_MS,
	COLUMN_CRON_MS,
	COLUMN_SPOOL_SNAPSHOT,
	COLUMN_SPOOLED_AGE_MS,
	COLUMN_GROUP_ID,
	COLUMN_REMOTE_ID,
	COLUMN_REMOTE_RELID,
	COLUMN_COPY_STATUS,
	COLUMN_COPIED_LSN,
	COLUMN_COPIED_FROM,
	COLUMN_COUNT
};

static const char *
text_or_null(const PGresult *result, int row, int column)
{
	return PQgetisnull(result, row, column) ? NULL : PQgetvalue(result, row, column);
}

static uint64_t
number_or_zero(const PGresult *result, int row, int column)
{
	return strtoull(PQgetvalue(result, row, column), NULL, 10);
}

static bool
schedule_from_text(const char *kind, ScheduleKind *schedule)
{
	static const struct
	{
		const char	*name;
		ScheduleKind schedule;
	} kinds[] = {{"continuous", SCHEDULE_CONTINUOUS},
				 {"interval", SCHEDULE_INTERVAL},
				 {"cron", SCHEDULE_CRON},
				 {"manual", SCHEDULE_MANUAL},
				 {"immediate", SCHEDULE_IMMEDIATE},
				 {"copy", SCHEDULE_COPY}};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
	{
		if (strcmp(kind, kinds[i].name) == 0)
		{
			*schedule = kinds[i].schedule;
			return true;
		}
	}
	return false;
}

static CopyStatus
copy_status_from_text(const char *status)
{
	static const char *const statuses[] = {
		[COPY_WANTED] = "WANTED", [COPY_COPYING] = "COPYING",	[COPY_COPIED] = "COPIED",
		[COPY_ACTIVE] = "ACTIVE", [COPY_REDEFINE] = "REDEFINE",
	};

	for (size_t i = COPY_WANTED; i < sizeof(statuses) / sizeof(statuses[0]); i++)
	{
		if (strcmp(status, statuses[i]) == 0)
			return (CopyStatus) i;
	}
	return COPY_NOT_FOLLOWED;
}

static bool
clock_from_text(const char *kind, ClockKind *clock)
{
	static const char *const kinds[] = {
		[CLOCK_NONE] = "none", [CLOCK_FULL] = "full", [CLOCK_DELTA] = "delta"};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
	{
		if (strcmp(kind, kinds[i]) == 0)
		{
			*clock = (ClockKind) i;
			return true;
		}
	}
	return false;
}

/* Lists are cast to text with blanks between the elements, since they are numbers. */
static size_t
count_words(const char *text)
{
	size_t count = *text != '\0' ? 1 : 0;

	for (; *text != '\0'; text++)
		count += *text == ' ';
	return count;
}

static void
load_sources(StreamTable *table, const PGresult *result, int row)
{
	const char *at = PQgetvalue(result, row, COLUMN_SOURCE_RELIDS);
	const char *name = PQgetvalue(result, row, COLUMN_SOURCE_NAMES);

	table->source_count = count_words(at);
	table->sources = memory_take(table->source_count * sizeof(Oid));
	table->source_names = memory_take(table->source_count * sizeof(char *));
	for (size_t i = 0; i < table->source_count; i++)
	{
		size_t name_length = strcspn(name, "\n");

		table->sources[i] = (Oid) strtoul(at, (char **) &at, 10);
		table->source_names[i] = memory_take(name_length + 1);
		memcpy(table->source_names[i], name, name_length);
		table->source_names[i][name_length] = '\0';
		name += name_length;
		if (*name == '\n')
			name++;
	}
}

static void
load_upstream_ids(StreamTable *table, const PGresult *result, int row)
{
	const char *at = PQgetvalue(result, row, COLUMN_UPSTREAM_IDS);

	table->upstream_id_count = count_words(at);
	table->upstream_ids = memory_take(table->upstream_id_count * sizeof(int64_t));
	for (size_t i = 0; i < table->upstream_id_count; i++)
		table->upstream_ids[i] = strtoll(at, (char **) &at, 10);
}

/* The server knows calendars.  Our clock may go another way than its own, so what is far away is asked for again. */
static void
load_cron_time(Catalog *catalog, StreamTable *table, const PGresult *result, int row, Micros now)
{
	Micros left = (Micros) number_or_zero(result, row, COLUMN_CRON_MS) * 1000;

	if (table->schedule != SCHEDULE_CRON || PQgetisnull(result, row, COLUMN_CRON_MS))
		return;
	table->cron_at = now + left;
	if (left > CRON_LOOK_AHEAD && now + CRON_LOOK_AHEAD / 2 < catalog->stale_at)
		catalog->stale_at = now + CRON_LOOK_AHEAD / 2;
}

static bool
load_frontier(StreamTable *table, const PGresult *result, int row, Error *error)
{
	const char *snapshot = text_or_null(result, row, COLUMN_FRONTIER_SNAPSHOT);
	const char *lsn = text_or_null(result, row, COLUMN_FRONTIER_LSN);
	const char *spooled = text_or_null(result, row, COLUMN_SPOOL_SNAPSHOT);

	if (snapshot != NULL && !snapshot_parse(snapshot, &table->frontier, error))
		return error_context(error, "frontier of stream table \"%s\"", table->name);
	if (spooled != NULL && !snapshot_parse(spooled, &table->spooled, error))
		return error_context(error, "spool of stream table \"%s\"", table->name);
	table->spooled_since =
		clock_now() - (Micros) number_or_zero(result, row, COLUMN_SPOOLED_AGE_MS) * 1000;
	if (lsn != NULL && !lsn_parse(lsn, &table->frontier_lsn))
		return error_set(error, FAIL_FATAL, "frontier of stream table \"%s\": \"%s\" is no LSN",
						 table->name, lsn);
	table->own_xid = number_or_zero(result, row, COLUMN_FRONTIER_XID);
	table->filled_xid = number_or_zero(result, row, COLUMN_FILLED_XID);
	return true;
}

static bool
load_copy(StreamTable *table, const PGresult *result, int row, Error *error)
{
	const char *copied_lsn = text_or_null(result, row, COLUMN_COPIED_LSN);
	const char *copied_from = text_or_null(result, row, COLUMN_COPIED_FROM);

	table->copy.pending_since = MICROS_NEVER;
	if (!stream_table_is_copy(table))
		return true;
	table->copy.remote_id = (int) number_or_zero(result, row, COLUMN_REMOTE_ID);
	table->copy.remote_relid = (Oid) number_or_zero(result, row, COLUMN_REMOTE_RELID);
	table->copy.status = copy_status_from_text(PQgetvalue(result, row, COLUMN_COPY_STATUS));
	if (copied_lsn != NULL && !lsn_parse(copied_lsn, &table->copy.copied_lsn))
		return error_set(error, FAIL_FATAL, "copy \"%s\": \"%s\" is no LSN", table->name, copied_lsn);
	if (copied_from != NULL && !lsn_parse(copied_from, &table->copy.copied_from))
		return error_set(error, FAIL_FATAL, "copy \"%s\": \"%s\" is no LSN", table->name, copied_from);
	return true;
}

static bool
load_stream_table(Catalog *catalog, const PGresult *result, int row, Micros now, Error *error)
{
	StreamTable *table = catalog_add(
		catalog, strtoll(PQgetvalue(result, row, COLUMN_PGT_ID), NULL, 10),
		(Oid) number_or_zero(result, row, COLUMN_RELID), PQgetvalue(result, row, COLUMN_NAME));
	const char *status = PQgetvalue(result, row, COLUMN_STATUS);
	const char *kind = PQgetvalue(result, row, COLUMN_SCHEDULE_KIND);
	const char *reason = text_or_null(result, row, COLUMN_REFILL_REASON);

	if (!schedule_from_text(kind, &table->schedule))
		return error_set(error, FAIL_FATAL,
						 "stream table \"%s\" has an unknown schedule kind \"%s\"", table->name,
						 kind);
	if (!clock_from_text(PQgetvalue(result, row, COLUMN_CLOCK), &table->clock))
		return error_set(error, FAIL_FATAL, "stream table \"%s\" has an unknown clock \"%s\"",
						 table->name, PQgetvalue(result, row, COLUMN_CLOCK));
	table->refreshed_at = now - (Micros) number_or_zero(result, row, COLUMN_DATA_AGE_MS) * 1000;
	table->is_active = strcmp(status, "ACTIVE") == 0 || strcmp(status, "INITIALIZING") == 0;
	table->interval = (Micros) number_or_zero(result, row, COLUMN_SCHEDULE_MS) * 1000;
	load_cron_time(catalog, table, result, row, now);
	load_sources(table, result, row);
	load_upstream_ids(table, result, row);
	table->group_id = (int64_t) number_or_zero(result, row, COLUMN_GROUP_ID);
	table->needs_refill = PQgetvalue(result, row, COLUMN_NEEDS_REFILL)[0] == 't';
	if (reason != NULL)
		table->refill_reason = memory_copy_text(reason);
	table->run.failures = (int) number_or_zero(result, row, COLUMN_CONSECUTIVE_ERRORS);
	if (table->run.failures > 0)
		table->run.retry_at = now + (Micros) number_or_zero(result, row, COLUMN_RETRY_MS) * 1000;
	return load_copy(table, result, row, error) && load_frontier(table, result, row, error);
}

bool
catalog_from_result(const PGresult *result, Catalog **catalog, Error *error)
{
	Catalog *loading = catalog_create();
	Micros	 now = clock_now();

	if (PQnfields(result) != COLUMN_COUNT || PQntuples(result) < 1)
	{
		error_set(error, FAIL_FATAL, "unexpected shape of the catalog of stream tables");
		goto failed;
	}
	if (!snapshot_parse(PQgetvalue(result, 0, COLUMN_SNAPSHOT), &loading->snapshot, error))
		goto failed;
	for (int row = 0; row < PQntuples(result); row++)
	{
		/* One row without a stream table carries the snapshot when there are none. */
		if (!PQgetisnull(result, row, COLUMN_PGT_ID) &&
			!load_stream_table(loading, result, row, now, error))
			goto failed;
	}
	catalog_finish(loading);
	*catalog = loading;
	return true;

failed:
	catalog_free(loading);
	return false;
}

/* ------------------------------------------------------------------------------------------------
 * From one version to the next
 */

void
catalog_take_over(Catalog *catalog, Catalog *old, Micros now)
{
	for (size_t i = 0; i < catalog->count; i++)
	{
		StreamTable		  *table = catalog->tables[i];
		const StreamTable *before = catalog_find(old, table->pgt_id);

		/* one with another query is a new one: its frontier is that of a first fill */
		if (before == NULL || before->filled_xid != table->filled_xid)
			continue;
		table->run.missed_changes = before->run.missed_changes;
		table->run.missed_lsn = before->run.missed_lsn;
		table->run.missed_reason = before->run.missed_reason;
		table->run.deferral_delay = before->run.deferral_delay;
		table->run.deferred_until = before->run.deferred_until;
		table->run.goes_alone = before->run.goes_alone;
		table->run.refresh_cost = before->run.refresh_cost;
		table->run.soft_failures = before->run.soft_failures;
		table->copy.switch_at = before->copy.switch_at;
		table->copy.switch_attempts = before->copy.switch_attempts;
		if (before->run.retry_at > now && table->run.failures >= before->run.failures)
			table->run.retry_at = before->run.retry_at;

		/* While it was inactive nothing was kept for it, here or in the WAL. */
		if (table->is_active && before->run.was_inactive && !table->needs_refill &&
			!stream_table_is_copy(table))
		{
			table->run.missed_changes = true;
			table->run.missed_reason = "the stream table was not followed for a while";
		}
	}
}
