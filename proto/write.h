/*
 * proto/write.h
 *     Typed writing of the change stream: each record into a growing batch.
 *
 * The counterpart of records.h, used by the decoder and by tests.  Records are appended to the
 * buffer as elements of Batch.records, so the buffer's contents are a Batch at any time between two
 * calls. Fields come in the order of their numbers, zeros are left out.
 *
 * Row records are not here: the decoder writes them from tuples without a detour (decoder/row.c).
 */
#ifndef PGTRICKLE_PROTO_WRITE_H
#define PGTRICKLE_PROTO_WRITE_H

#include "records.h"

/* Field numbers that the decoder's row writer needs too. */
#define BATCH_RECORDS 1
#define RECORD_KIND 1
#define RECORD_RELATION 2
#define RECORD_OLD_ROW 3
#define RECORD_NEW_ROW 4
#define RECORD_FLAWS 5

extern void write_begin(WireBuffer *buffer, const BeginView *begin);
extern void write_truncate(WireBuffer *buffer, const uint32_t *relids, size_t relid_count,
						   const uint32_t *whole, size_t whole_count);
extern void write_message(WireBuffer *buffer, const MessageView *message);
extern void write_skipped(WireBuffer *buffer, uint32_t relid);
extern void write_commit(WireBuffer *buffer, const CommitView *commit);

/*
 * A relation, without its number, as the contents of the Relation message: `fields` of `relation`
 * is not used.  Two descriptions are equal exactly when their bytes are, which is how the decoder
 * sees whether a relation has changed its shape.
 */
extern void write_relation_contents(WireBuffer *buffer, const RelationView *relation,
									const uint32_t *publish_as, const ColumnView *columns);

/* The whole record, from a number and such contents. */
extern void write_relation(WireBuffer *buffer, uint32_t number, ByteRange contents);

#endif /* PGTRICKLE_PROTO_WRITE_H */
