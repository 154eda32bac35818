/*
 * proto/dump/print.h
 *     The text of pgtrickle-dump: one line per record, whoever read it.
 *
 * Two readers use it, ours and protobuf-c's, so that equal text means that both saw the same
 * records.
 */
#ifndef PGTRICKLE_DUMP_PRINT_H
#define PGTRICKLE_DUMP_PRINT_H

#include "records.h"

/* What to leave out or rename, so that a test can say what it expects. */
typedef struct PrintOptions
{
	bool is_stable; /* no xids, LSNs, times */
	bool is_full; /* values in their whole length */
	bool is_hex; /* all values as bytes */
} PrintOptions;

extern PrintOptions print_options;

/* Calls relation `relid` by this name instead of its number.  Copies nothing. */
extern void print_name_relation(uint32_t relid, const char *name);

/* Where a list of numbers or columns comes from is the reader's business. */
typedef struct PrintedRelation
{
	RelationView	  view; /* `fields` is not used */
	const uint32_t	 *publish_as;
	const ColumnView *columns;
} PrintedRelation;

extern void print_begin(const BeginView *begin);
extern void print_relation(const PrintedRelation *relation);
extern void print_truncate(const uint32_t *relids, size_t count, const uint32_t *whole,
						   size_t whole_count);
extern void print_message(const MessageView *message);
extern void print_skipped(uint32_t relid);
extern void print_commit(const CommitView *commit);

/* The columns of a relation printed before; -1 when there was none with this number. */
extern int print_column_count(uint32_t relation);

/* A row record, in pieces. */
extern void print_row_start(RecordKind kind, uint32_t relation);
extern void print_row_image(const char *label);
extern void print_value(uint32_t relation, uint32_t column, const TupleValue *value);
extern void print_row_end(uint32_t flaws);

/* The batch cannot be read further. */
extern void print_error(const char *error);

#endif /* PGTRICKLE_DUMP_PRINT_H */
