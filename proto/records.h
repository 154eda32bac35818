/*
 * proto/records.h
 *     Typed reading of the change stream: batches, records, rows.
 *
 * Nothing is copied: a RecordView points into the bytes it was read from and is valid as long as
 * they are.  Nothing is allocated.  Reading checks everything that can be checked without knowing
 * the relation (fields present, once, of the right type, numbers in range), so that users of a view
 * need not; the values of a row are checked when a TupleReader walks over them, since it needs the
 * columns.
 *
 * pgtrickle.proto says what each field means, README.md in which order records come.  Typical use:
 *
 *     BatchReader batch = batch_reader(data, length);
 *     RecordView  record;
 *
 *     while (batch_next_record(&batch, &record))
 *         ...
 *     if (batch.error != NULL)
 *         complain("%s at byte %zu", batch.error, batch_error_offset(&batch));
 */
#ifndef PGTRICKLE_PROTO_RECORDS_H
#define PGTRICKLE_PROTO_RECORDS_H

#include "wire.h"

/* Enums of pgtrickle.proto, same names, same numbers. */
typedef enum RecordKind
{
	KIND_BEGIN = 1,
	KIND_RELATION = 2,
	KIND_INSERT = 3,
	KIND_UPDATE = 4,
	KIND_DELETE = 5,
	KIND_TRUNCATE = 6,
	KIND_MESSAGE = 7,
	KIND_SKIPPED = 8,
	KIND_COMMIT = 9
} RecordKind;

enum Flaw
{
	FLAW_OLD_ROW_MISSING = 1,
	FLAW_OLD_ROW_KEY_ONLY = 2,
	FLAW_VALUE_TOO_LARGE = 4,
	FLAW_VALUE_UNSENDABLE = 8
};

typedef enum ValueEncoding
{
	ENCODING_BINARY = 1,
	ENCODING_TEXT = 2
} ValueEncoding;

/* Field numbers of Tuple, which the decoder writes itself. */
#define TUPLE_KINDS 1
#define TUPLE_VALUES 2

/* The two bits per column of Tuple.kinds. */
typedef enum ValueKind
{
	VALUE_PRESENT = 0,
	VALUE_NULL = 1,
	VALUE_UNCHANGED = 2, /* unchanged TOAST: equal to the old row's value, not in the WAL */
	VALUE_NOT_LOGGED = 3
} ValueKind;

typedef struct BeginView
{
	uint64_t xid;
	uint64_t commit_lsn;
	int64_t	 commit_time; /* microseconds since 2000-01-01 00:00 UTC */
} BeginView;

typedef struct RelationView
{
	uint32_t  number;
	uint32_t  relid;
	ByteRange schema_name;
	ByteRange relation_name;
	char	  replica_identity; /* 'd', 'n', 'i' or 'f' */
	uint32_t  publish_as_count;
	uint32_t  column_count;
	ByteRange fields; /* for publish_as_reader and column_reader */
} RelationView;

typedef struct ColumnView
{
	ByteRange	  name;
	uint32_t	  attnum;
	uint32_t	  type_oid;
	int32_t		  type_modifier; /* -1: none */
	ValueEncoding encoding;
	bool		  in_identity;
	ByteRange	  type_name; /* `data` NULL: the OID says it on every server */
} ColumnView;

typedef struct TruncateView
{
	uint32_t  relid_count;
	uint32_t  whole_count;
	ByteRange fields; /* for truncate_reader and truncate_whole_reader */
} TruncateView;

typedef struct MessageView
{
	bool	  transactional;
	uint64_t  lsn;
	ByteRange payload;
} MessageView;

typedef struct CommitView
{
	uint64_t commit_lsn;
	uint64_t end_lsn;
	uint64_t row_records;
} CommitView;

typedef struct RecordView
{
	RecordKind kind;

	/*
	 * The record with its key and length, as it stands in the batch: such ranges laid end to end
	 * are again a Batch.  That is how records are kept and passed on without being taken apart.
	 */
	ByteRange encoded;

	/* Row records; `data` is NULL when there is no such row. */
	uint32_t  relation; /* RelationView.number */
	uint32_t  flaws; /* bits of enum Flaw */
	ByteRange old_row;
	ByteRange new_row;

	union /* by kind; row records use none */
	{
		BeginView	 begin;
		RelationView relation_def;
		TruncateView truncate;
		MessageView	 message;
		uint32_t	 skipped_relid;
		CommitView	 commit;
	};
} RecordView;

static inline bool
record_is_row(const RecordView *record)
{
	return record->kind >= KIND_INSERT && record->kind <= KIND_DELETE;
}

/* ------------------------------------------------------------------------------------------------
 * Batches
 */

typedef struct BatchReader
{
	WireReader	   fields;
	const uint8_t *start;
	const char	  *error; /* NULL, or why batch_next_record stopped early */
} BatchReader;

/* A batch of `length` bytes; it may be empty. */
extern BatchReader batch_reader(const void *data, size_t length);

/*
 * The next record.  False at the end of the batch and at malformed input (then batch->error is
 * set).
 */
extern bool batch_next_record(BatchReader *batch, RecordView *record);

/* Where the trouble is, in bytes from the start of the batch. */
extern size_t batch_error_offset(const BatchReader *batch);

/* ------------------------------------------------------------------------------------------------
 * Lists inside a record.  They were checked when the record was read: the next functions return
 * false only at the end.
 */

typedef struct RelidReader
{
	WireReader fields;
	WireReader packed; /* inside a packed field */
	uint32_t   field_number;
} RelidReader;

extern RelidReader publish_as_reader(const RelationView *relation);
extern RelidReader truncate_reader(const TruncateView *truncate);
extern RelidReader truncate_whole_reader(const TruncateView *truncate);
extern bool		   relid_next(RelidReader *reader, uint32_t *relid);

typedef struct ColumnReader
{
	WireReader fields;
} ColumnReader;

extern ColumnReader column_reader(const RelationView *relation);
extern bool			column_next(ColumnReader *reader, ColumnView *column);

/* ------------------------------------------------------------------------------------------------
 * Rows
 */

typedef struct TupleReader
{
	WireReader fields; /* fields.error: NULL, or why tuple_next_value stopped early */
	ByteRange  kinds; /* data NULL: every column has a value */
	uint32_t   column; /* of the next value */
	uint32_t   column_count;
} TupleReader;

typedef struct TupleValue
{
	ValueKind kind;
	ByteRange bytes; /* VALUE_PRESENT only; may be empty.  Not NUL-terminated */
} TupleValue;

/* Reads record->old_row or new_row, whose relation has `column_count` columns. */
extern TupleReader tuple_reader(ByteRange row, uint32_t column_count);

/*
 * The value of the next column.  False after the last one, and when the row does not hold exactly
 * `column_count` columns or is malformed (then reader->fields.error is set).  Only when it has
 * returned false without an error is the row known to be whole.
 */
extern bool tuple_next_value(TupleReader *reader, TupleValue *value);

#endif /* PGTRICKLE_PROTO_RECORDS_H */
