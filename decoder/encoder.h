/*
 * decoder/encoder.h
 *     How the values of one column become bytes of the stream.
 *
 * An encoder is chosen once per column and version of a relation, with catalog look-ups, and then
 * used without any.  It works in two steps, because lengths stand before contents: encoder_prepare
 * finds out what there is to send and how long it is, encoder_store puts it into the batch.
 */
#ifndef PGTRICKLE_DECODER_ENCODER_H
#define PGTRICKLE_DECODER_ENCODER_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "fmgr.h"

#include "conversion.h"
#include "records.h"

typedef enum EncoderKind
{
	ENCODE_BYTE, /* bool, "char" */
	ENCODE_INT16, /* passed by value, sent in network byte order */
	ENCODE_INT32,
	ENCODE_INT64,
	ENCODE_IMAGE, /* fixed length, sent as it lies in memory: uuid */
	ENCODE_NAME, /* name: up to its NUL */
	ENCODE_PAYLOAD, /* varlena whose send format is its contents: text, bytea, json */
	ENCODE_SEND, /* call the type's send function */
	ENCODE_TEXT /* call its output function */
} EncoderKind;

/* What the reader asked for; the same for all columns of a session. */
typedef struct ValueFormat
{
	bool		user_types_as_text; /* the reader is another server, which has other OIDs */
	Conversion *conversion;
} ValueFormat;

typedef struct ColumnEncoder
{
	EncoderKind		  kind;
	ValueEncoding	  encoding; /* what the reader is told */
	AttrNumber		  attnum;
	int16			  type_length; /* pg_type.typlen: -1 varlena, -2 cstring */
	bool			  in_identity; /* part of the replica identity */
	bool			  is_guarded; /* it may fail, and a failure must stay its own */
	FmgrInfo		  function; /* ENCODE_SEND, ENCODE_TEXT */
	const Conversion *conversion; /* NULL: the value holds no text or its function converts */
} ColumnEncoder;

/* A value on its way into the batch. */
typedef struct Cell
{
	ValueKind kind;
	uint32	  length; /* VALUE_PRESENT: bytes on the wire */
	union
	{
		Datum		datum; /* ENCODE_BYTE to ENCODE_INT64 */
		const char *bytes; /* the others */
	};
} Cell;

/*
 * Chooses the encoder of a column.  What the send function remembers between calls lives in
 * `context`.
 */
extern void encoder_choose(ColumnEncoder *encoder, Form_pg_attribute attribute,
						   const ValueFormat *format, MemoryContext context);

/*
 * The type's name for a reader that knows no OIDs of this server, in the current context.  NULL when
 * the reader needs none: its server has the same type under the same OID, or is this one.
 */
extern const char *encoder_type_name(Oid type_oid, const ValueFormat *format);

/*
 * Fills `cell` with a value that is not NULL.  A value that is not in the WAL becomes
 * VALUE_UNCHANGED; one longer than `length_max` or that cannot be sent becomes VALUE_NOT_LOGGED and
 * sets a bit of enum Flaw in *flaws. What `cell` points to is the datum itself or allocated in the
 * current context.
 */
extern void
encoder_prepare(ColumnEncoder *encoder, Datum value, Size length_max, Cell *cell, uint32 *flaws);

/* Stores the cell->length bytes of a prepared value and returns the byte after them. */
extern uint8 *encoder_store(const ColumnEncoder *encoder, const Cell *cell, uint8 *at);

#endif /* PGTRICKLE_DECODER_ENCODER_H */
