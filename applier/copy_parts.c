/*
 * applier/copy_parts.c
 *     Cuts a table into parts that are copied one by one.
 *
 * With a key: ranges of it, low <= key < high, from a sample of the table's pages, so that they are of about the same size and planning
 * costs next to nothing.  The bounds need not be right in any sense: together the ranges always are the whole
 * table.  A row that is updated stays in its range, so each part may have a snapshot of its own: the stream brings everything that changed after
 * it.  Bounds cross as text, and are compared by the remote alone.
 *
 * Without a key: ranges of pages.  A row that is updated moves between those, so they are all read with one snapshot.
 */
#include "copy_parts.h"

#include <stdio.h>

#include "sql_text.h"

/* Sampled pages per range: more makes ranges more alike. */
#define SAMPLE_PAGES 30

#define PARTS_MAX 10000

/* A range of a key such as a UUID has rows on every page, so each part may read the whole table. */
#define SCATTERED_PARTS_MAX 16

#define PAGE_BYTES 8192

/* Pages per part of a table without a key: 64 MB. */
#define PLACE_PAGES 8192

void
copy_append_source(CopyRemote *work, const Copy *copy, const RemoteTable *table, Text *text)
{
	text_append(text, table->is_partitioned ? "" : "ONLY ");
	text_append_identifier(text, work->remote, copy->remote_schema);
	text_append_char(text, '.');
	text_append_identifier(text, work->remote, copy->remote_table);
}

static const RemoteColumn *
key_column(const RemoteTable *table, int position)
{
	for (int i = 0; i < table->column_count; i++)
	{
		if (table->columns[i].key_position == position)
			return &table->columns[i];
	}
	return NULL;
}

/* "a, b", or "a::text, b::text". */
static void
append_key(CopyRemote *work, const RemoteTable *table, const char *suffix, Text *text)
{
	const RemoteColumn *column;

	for (int position = 0; (column = key_column(table, position)) != NULL; position++)
	{
		text_append(text, position > 0 ? ", " : "");
		text_append_identifier(text, work->remote, column->name);
		text_append(text, suffix);
	}
}

/* ------------------------------------------------------------------------------------------------
 * By key
 */

/*
 * SELECT to_json(ARRAY[a::text, b::text])
 * FROM (SELECT a, b, row_number() OVER (ORDER BY a, b) AS pgt_number, count(*) OVER () AS pgt_count FROM t TABLESAMPLE ...) pgt_sample
 * WHERE pgt_number > 1 AND pgt_number % (pgt_count / parts) = 1
 */
static void
write_sample_query(CopyRemote *work, const Copy *copy, const RemoteTable *table, uint64_t parts,
				   Text *query)
{
	double pages = (double) (table->bytes / PAGE_BYTES + 1);
	double percent = 100.0 * (double) (parts * SAMPLE_PAGES) / pages;

	text_append(query, "SELECT pg_catalog.to_json(ARRAY[");
	append_key(work, table, "::text", query);
	text_append(query, "]) FROM (SELECT ");
	append_key(work, table, "", query);
	text_append(query, ", row_number() OVER (ORDER BY ");
	append_key(work, table, "", query);
	text_append(query, ") AS pgt_number, count(*) OVER () AS pgt_count FROM ");
	copy_append_source(work, copy, table, query);
	text_append_format(
		query,
		" TABLESAMPLE SYSTEM (%.6f)) pgt_sample WHERE pgt_number > 1 AND pgt_number %% "
		"greatest(pgt_count / %llu, 2) = 1 ORDER BY pgt_number",
		percent < 100.0 ? percent : 100.0, (unsigned long long) parts);
}

static void
append_json_bound(Text *json, const char *name, const PGresult *bounds, int row)
{
	text_append_format(json, "\"%s\": ", name);
	if (row < 0 || row >= PQntuples(bounds))
		text_append(json, "null");
	else
		text_append(json, PQgetvalue(bounds, row, 0));
}

static bool
tell_parts(CopyRemote *work, const Copy *copy, const RemoteTable *table, const PGresult *bounds,
		   Error *error)
{
	int			count = PQntuples(bounds);
	Text		json = {0};
	const char *values[3] = {copy->copy_id, NULL, table->rows_expected};
	bool		done;

	text_append_char(&json, '[');
	for (int part = 0; part <= count; part++)
	{
		text_append_format(&json, "%s{\"chunk_no\": %d, ", part > 0 ? ", " : "", part + 1);
		append_json_bound(&json, "low", bounds, part - 1);
		text_append(&json, ", ");
		append_json_bound(&json, "high", bounds, part);
		text_append_char(&json, '}');
	}
	text_append_char(&json, ']');
	values[1] = json.data;
	done =
		server_execute(work->target, "SELECT pgtrickle.copy_chunks($1, $2, $3)", 3, values, error);
	text_free(&json);
	return done;
}

bool
copy_parts_plan(CopyRemote *work, const Copy *copy, const RemoteTable *table, Error *error)
{
	uint64_t  rows = table->rows_expected != NULL ? strtoull(table->rows_expected, NULL, 10) : 0;
	uint64_t  parts = rows / work->chunk_rows + 1;
	uint64_t  parts_max = table->key_is_scattered ? SCATTERED_PARTS_MAX : PARTS_MAX;
	Text	  query = {0};
	PGresult *bounds;
	bool	  done;

	if (parts > parts_max)
		parts = parts_max;
	if (parts > 1)
		write_sample_query(work, copy, table, parts, &query);
	else
		text_append(&query, "SELECT 1 WHERE false");
	bounds = server_query(work->remote, query.data, 0, NULL, error);
	text_free(&query);
	if (bounds == NULL)
		return error_context(error, "could not divide table \"%s\" of the remote",
							 remote_table_describe(copy->remote_schema, copy->remote_table));
	done = tell_parts(work, copy, table, bounds, error);
	PQclear(bounds);
	return done;
}

/* (a, b) >= ('1'::bigint, 'x'::text); `bounds` holds one literal per column of the key. */
static void
append_comparison(CopyRemote *work, const RemoteTable *table, const char *comparison,
				  const PGresult *chunks, int row, const char *bound, Text *text)
{
	const RemoteColumn *column;

	text_append(text, text->length > 0 ? " AND (" : "(");
	append_key(work, table, "", text);
	text_append_format(text, ") %s (", comparison);
	for (int position = 0; (column = key_column(table, position)) != NULL; position++)
	{
		char		name[32];
		const char *value;

		snprintf(name, sizeof(name), "%s_%d", bound, position + 1);
		value = server_field(chunks, row, name);
		text_append(text, position > 0 ? ", " : "");
		text_append_literal(text, work->remote, value != NULL ? value : "");
		text_append_format(text, "::%s", column->type);
	}
	text_append(text, ")");
}

static int
key_length(const RemoteTable *table)
{
	int length = 0;

	while (key_column(table, length) != NULL)
		length++;
	return length;
}

/* Bounds come as one column per column of the key, so that nobody here takes arrays apart. */
static PGresult *
list_chunks(CopyRemote *work, const Copy *copy, int length, Error *error)
{
	const char *values[1] = {copy->copy_id};
	Text		query = {0};
	PGresult   *chunks;

	text_append(
		&query,
		"SELECT chunk_no, status = 'DONE' AS is_done, low IS NOT NULL AS has_low, high IS NOT NULL AS has_high");
	for (int i = 1; i <= length; i++)
		text_append_format(&query, ", low[%d] AS low_%d, high[%d] AS high_%d", i, i, i, i);
	text_append(&query, " FROM pgtrickle.copy_chunk_list($1) ORDER BY chunk_no");
	chunks = server_query(work->target, query.data, 1, values, error);
	text_free(&query);
	return chunks;
}

static CopyPart *
add_part(CopyParts *parts)
{
	CopyPart *part;

	parts->parts = memory_grow_array(parts->parts, parts->count, &parts->capacity, sizeof(*part));
	part = &parts->parts[parts->count++];
	memset(part, 0, sizeof(*part));
	part->number = (int) parts->count;
	return part;
}

bool
copy_parts_load(CopyRemote *work, const Copy *copy, const RemoteTable *table, CopyParts *parts,
				Error *error)
{
	PGresult *chunks = list_chunks(work, copy, key_length(table), error);

	if (chunks == NULL)
		return false;
	for (int row = 0; row < PQntuples(chunks); row++)
	{
		CopyPart *part = add_part(parts);
		Text	  condition = {0};

		part->number = atoi(server_field(chunks, row, "chunk_no"));
		part->is_done = server_field_is_true(chunks, row, "is_done");
		if (server_field_is_true(chunks, row, "has_low"))
			append_comparison(work, table, ">=", chunks, row, "low", &condition);
		if (server_field_is_true(chunks, row, "has_high"))
			append_comparison(work, table, "<", chunks, row, "high", &condition);
		part->condition = condition.data;
	}
	PQclear(chunks);
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * By place
 */

/* In a partitioned table each partition has such pages; the last range has no end, since tables grow. */
void
copy_parts_by_place(CopyRemote *work, const RemoteTable *table, CopyParts *parts)
{
	uint64_t pages = table->bytes / PAGE_BYTES + 1;
	uint64_t step = PLACE_PAGES;

	if (pages / step < (uint64_t) work->jobs)
		step = pages / (uint64_t) work->jobs + 1;
	for (uint64_t low = 0; low < pages; low += step)
	{
		CopyPart *part = add_part(parts);
		Text	  condition = {0};

		text_append_format(&condition, "ctid >= '(%llu,0)'", (unsigned long long) low);
		if (low + step < pages)
			text_append_format(&condition, " AND ctid < '(%llu,0)'",
							   (unsigned long long) (low + step));
		part->condition = condition.data;
	}
}

void
copy_parts_free(CopyParts *parts)
{
	for (size_t i = 0; i < parts->count; i++)
		free(parts->parts[i].condition);
	free(parts->parts);
	memset(parts, 0, sizeof(*parts));
}
