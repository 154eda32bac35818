/*
 * decoder/conversion.h
 *     Text in the encoding of the reader's database, when that is another one than ours.
 *
 * Used only with option `encoding`; without it (a reader in the same database) text goes out as it
 * is stored.  No error about data comes from here: text that the other encoding cannot express is
 * reported to the caller, who leaves the value out and flags it.
 */
#ifndef PGTRICKLE_DECODER_CONVERSION_H
#define PGTRICKLE_DECODER_CONVERSION_H

#include "postgres.h"

typedef struct Conversion
{
	int	 encoding; /* the reader's; that of this database when there is nothing to do */
	bool is_ready;
	Oid	 function; /* InvalidOid: text is only checked, or not even that */
} Conversion;

/* To the encoding of that name; NULL: none.  An unknown name is an error. */
extern Conversion conversion_create(const char *encoding_name);

static inline bool
conversion_is_active(const Conversion *conversion)
{
	return conversion->is_ready;
}

/*
 * Makes it active if it has something to do, and makes the server's send functions convert too.
 * Needs a transaction, so it is called when the first one to decode begins.
 */
extern void conversion_prepare(Conversion *conversion);

/*
 * Converts text; the result is the text itself or allocated in the current context.  False when
 * the other encoding cannot express it.
 */
extern bool
conversion_text(const Conversion *conversion, const char **text, Size *length);

#endif /* PGTRICKLE_DECODER_CONVERSION_H */
