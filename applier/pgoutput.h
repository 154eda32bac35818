/*
 * applier/pgoutput.h
 *     What the server's own output plugin says, turned into records of our stream.
 *
 * Where the decoder cannot be installed (a managed server), the stream comes from `pgoutput` and a
 * publication.  Nothing behind this file knows the difference: out come batches of records as
 * proto/README.md describes them, transactions whole and in commit order.  What pgoutput does not
 * tell is missing there too:
 *
 * - Columns have no attnum (0): they are matched by name.  Types have no names; all values are text.
 * - Rows count for the relation that pgoutput names: with publish_via_partition_root a partitioned
 *   table, otherwise the partition, never both.
 * - Skipped is said of relations that the publication has; the others do not appear at all.
 *
 * docs/explanation/replica.md says what that means for users.
 */
#ifndef PGTRICKLE_APPLIER_PGOUTPUT_H
#define PGTRICKLE_APPLIER_PGOUTPUT_H

#include "error.h"
#include "memory.h"
#include "snapshot.h"

/* The state of one stream connection. */
typedef struct Pgoutput Pgoutput;

/*
 * Rows of the relations `relids` are wanted.  pgoutput's transaction ids have 32 bits: they are
 * widened to lie near `recent_xid`, one that the source server had not long ago.
 */
extern Pgoutput *pgoutput_create(const Oid *relids, size_t count, Xid recent_xid);
extern void		 pgoutput_free(Pgoutput *pgoutput);

/* Also of transactions that have nothing wanted: their Begin and Commit. */
extern void pgoutput_tell_all(Pgoutput *pgoutput);

/*
 * Takes the payload of one CopyData message.  *batch is what is complete of the stream: nothing,
 * mostly (length 0), for records are collected until their commit or until there are many bytes.
 * It belongs to the state and lasts until the next call.
 */
extern bool pgoutput_convert(Pgoutput *pgoutput, const void *data, size_t length,
							 const uint8_t **batch, size_t *batch_length, Error *error) MUST_CHECK;

/* The options of START_REPLICATION, for stream_connect. */
extern void pgoutput_append_options(Text *options, const char *publication);

#endif /* PGTRICKLE_APPLIER_PGOUTPUT_H */
