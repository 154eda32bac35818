/*
 * delta/stage_values.h
 *     From the bytes of one value in the change stream to a datum.
 */
#ifndef PGTRICKLE_STAGE_VALUES_H
#define PGTRICKLE_STAGE_VALUES_H

#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "records.h"

/* How values of a type are read.  Everything but the last two is a short cut for a type's receive function. */
typedef enum ValueShortCut
{
	VALUE_BOOL,
	VALUE_INT16,
	VALUE_INT32,
	VALUE_INT64,
	VALUE_DATE,
	VALUE_TIME,
	VALUE_TIMESTAMP,
	VALUE_FIXED_BYTES, /* `length` of them, passed by reference */
	VALUE_BYTES, /* a varlena with any bytes */
	VALUE_TEXT, /* a varlena with text, at most `length` characters (0: any number) */
	VALUE_PADDED_TEXT, /* a varlena with text of exactly `length` characters */
	VALUE_RECEIVE, /* the type's receive function */
	VALUE_INPUT /* the type's input function */
} ValueShortCut;

typedef struct ValueDecoder
{
	ValueShortCut short_cut;
	int			  length;
	int			  encoding; /* of the database */
	FmgrInfo	  function; /* receive or input */
	Oid			  io_parameter;
	int32		  typmod;
} ValueDecoder;

/*
 * A decoder for a column's type in one of the stream's encodings.  Domains are read as their base type: the source has
 * accepted the value.  What the type's functions keep lives in `context`.
 */
extern void value_decoder_init(ValueDecoder *decoder, Oid type, int32 typmod,
							   ValueEncoding encoding, MemoryContext context);

/*
 * The datum, allocated in the current context if it needs to be.  `scratch` is room for one value.
 * An ERROR for bytes that the type does not accept.
 */
extern Datum value_decode(ValueDecoder *decoder, ByteRange bytes, StringInfo scratch);

#endif /* PGTRICKLE_STAGE_VALUES_H */
