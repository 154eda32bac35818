/*
 * decoder/relation.h
 *     What the plugin knows about the relations in the stream, one entry each.
 *
 * An entry is made at the first change of a relation, with the historic snapshot of that change,
 * and kept until an invalidation says that something about the relation, or one above it in a
 * partition tree, is different.  So the path of a row touches no catalog.
 */
#ifndef PGTRICKLE_DECODER_RELATION_H
#define PGTRICKLE_DECODER_RELATION_H

#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/relcache.h"

#include "encoder.h"
#include "interest.h"

/* More entries than this are thrown away between two transactions: tables come and go for ever. */
#define RELATION_ENTRIES_MAX 8192

typedef struct RelationEntry
{
	Oid relid; /* hash key */

	/* Rows of this relation also count for everything above it, so these are lists. */
	int	 publish_as_count; /* interesting ones: rows are sent when there are any */
	Oid *publish_as;
	int	 skip_as_count; /* the others: a Skipped record for each */
	Oid *skip_as;

	bool   is_valid; /* false: make it again before use */
	bool   has_descendants; /* other entries name this relation in their lists */
	uint64 skipped_in; /* ordinal of the last transaction that got Skipped records for `skip_as` */
	uint64 named_skipped_in; /* ... that got one for this very relation */
	MemoryContext context; /* what the pointers here point to */

	/* How rows are sent; when publish_as_count > 0. */
	uint32		   number; /* Relation.number */
	bool		   is_announced; /* the record with this number has been sent */
	ByteRange	   description; /* contents of that record, without the number */
	char		   replica_identity;
	int			   column_count;
	ColumnEncoder *columns;
} RelationEntry;

typedef struct RelationCache
{
	MemoryContext	context; /* the hash and all entries */
	HTAB		   *entries;
	const Interest *interest;
	ValueFormat		format;
	RelationEntry  *last_used; /* a table's rows often come one after another */
	uint32			last_number;
} RelationCache;

/* An empty cache for one session of decoding; all it allocates is below `context`. */
extern RelationCache *
relation_cache_create(const Interest *interest, const ValueFormat *format, MemoryContext context);

/*
 * The entry of a relation, made or made again if need be.  It stays where it is until
 * relation_cache_trim.  Must run in a transaction with the historic snapshot of the change.
 */
extern RelationEntry *relation_cache_get(RelationCache *cache, Relation relation);

/* True the first time it is asked in a transaction whether to send a Skipped record for `relid`. */
extern bool relation_cache_skips_first(RelationCache *cache, Oid relid, uint64 transaction);

/* The interest has grown: look at every relation again. */
extern void relation_cache_invalidate_all(RelationCache *cache);

/* Throws all entries away if there are too many.  None may be in use. */
extern void relation_cache_trim(RelationCache *cache);

#endif /* PGTRICKLE_DECODER_RELATION_H */
