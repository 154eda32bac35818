/*
 * applier/pgoutput_row.h
 *     Rows: from pgoutput's tuples to row records.
 */
#ifndef PGTRICKLE_APPLIER_PGOUTPUT_ROW_H
#define PGTRICKLE_APPLIER_PGOUTPUT_ROW_H

#include "pgoutput_read.h"
#include "proto/write.h"

/* What has to be known of a relation to read its rows. */
typedef struct RowShape
{
	uint32_t number; /* Relation.number */
	uint32_t column_count;
	bool	*in_identity;
} RowShape;

/* One row image, taken apart. */
typedef struct RowImage
{
	uint8_t	  *kinds; /* ValueKind per column */
	ByteRange *values; /* of those that are present; they point into the message */
	size_t	   capacity;
	size_t	   size; /* of the Tuple message */
	bool	   is_all_there; /* every column has a value */
} RowImage;

/* Reused for every row. */
typedef struct RowConverter
{
	RowImage old_row;
	RowImage new_row;
} RowConverter;

/*
 * Appends the record of an Insert, Update or Delete message whose relation has been read already.
 * NULL, or what is wrong with the message; then nothing has been appended.
 */
extern const char *row_convert(RowConverter *converter, const RowShape *shape, RecordKind kind,
							   PgoutputReader *reader, WireBuffer *buffer);

extern void row_converter_free(RowConverter *converter);

#endif /* PGTRICKLE_APPLIER_PGOUTPUT_ROW_H */
