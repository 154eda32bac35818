/*
 * decoder/relation.c
 *     What the plugin knows about the relations in the stream: made once, used for every row.
 *
 * Life of an entry: made at the first change -> valid -> an invalidation arrives -> made again at
 * the next change.  When it is made again its description is compared with the one that was
 * announced; only if that differs does the relation get a new number and a new Relation record
 * (most invalidations, such as those of ANALYZE or CREATE INDEX, change nothing that we tell).
 *
 * Invalidations may arrive at any moment that touches a catalog, also while an entry is being made,
 * so the callbacks only set flags.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "nodes/bitmapset.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "batch.h"
#include "compat.h"
#include "relation.h"
#include "write.h"

/* Our own bookkeeping: sent if asked for by name, but no news to anybody else. */
#define OWN_SCHEMA "pgtrickle"

/* ------------------------------------------------------------------------------------------------
 * Invalidation
 */

/*
 * The cache of the session that is decoding in this process, for the callbacks, which cannot be
 * unregistered.  NULL between sessions (the SQL functions decode many times in one process).
 */
static RelationCache *current_cache = NULL;

static bool
names_relation(const RelationEntry *entry, Oid relid)
{
	for (int i = 0; i < entry->publish_as_count; i++)
	{
		if (entry->publish_as[i] == relid)
			return true;
	}
	for (int i = 0; i < entry->skip_as_count; i++)
	{
		if (entry->skip_as[i] == relid)
			return true;
	}
	return false;
}

/* Marks every entry that was made by looking at `relid`; InvalidOid: every entry. */
static void
invalidate_entries(RelationCache *cache, Oid relid)
{
	HASH_SEQ_STATUS scan;
	RelationEntry  *entry;

	hash_seq_init(&scan, cache->entries);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		if (!OidIsValid(relid) || names_relation(entry, relid))
			entry->is_valid = false;
	}
}

static void
relation_invalidated(Datum argument, Oid relid)
{
	RelationEntry *entry;

	if (current_cache == NULL)
		return;
	if (!OidIsValid(relid))
	{
		invalidate_entries(current_cache, InvalidOid);
		return;
	}

	entry = hash_search(current_cache->entries, &relid, HASH_FIND, NULL);
	if (entry == NULL)
		return;
	entry->is_valid = false;
	if (entry->has_descendants)
	{
		invalidate_entries(current_cache, relid);
		entry->has_descendants = false; /* until one is made again */
	}
}

/* Renaming a schema does not invalidate the relations in it. */
static void
schema_invalidated(Datum argument, int cache_id, uint32 hash_value)
{
	if (current_cache != NULL)
		invalidate_entries(current_cache, InvalidOid);
}

static void
register_callbacks(void)
{
	static bool is_registered = false;

	if (is_registered)
		return;
	CacheRegisterRelcacheCallback(relation_invalidated, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, schema_invalidated, (Datum) 0);
	is_registered = true;
}

/* ------------------------------------------------------------------------------------------------
 * Whose rows these are
 */

/* Appends the parents of a relation that are not in the list yet. */
static List *
append_parents(Relation inherits, Oid relid, List *relids)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(inherits, InheritsRelidSeqnoIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_inherits row = (Form_pg_inherits) GETSTRUCT(tuple);

		if (!row->inhdetachpending)
			relids = list_append_unique_oid(relids, row->inhparent);
	}
	systable_endscan(scan);
	return relids;
}

/* The relation and everything above it, by partitioning or inheritance, nearest first. */
static List *
relation_and_ancestors(Oid relid)
{
	Relation inherits = table_open(InheritsRelationId, AccessShareLock);
	List	*relids = list_make1_oid(relid);

	for (int i = 0; i < list_length(relids); i++) /* the list grows while we walk */
		relids = append_parents(inherits, list_nth_oid(relids, i), relids);
	table_close(inherits, AccessShareLock);
	return relids;
}

/*
 * Would nobody create a stream table over this relation?  Materialized views are filled in ways
 * that leave no rows in the WAL, so the rows that do appear are no use.
 */
static bool
is_out_of_question(Relation relation, const Interest *interest)
{
	char *schema_name;

	if (RelationGetRelid(relation) < FirstNormalObjectId ||
		OidIsValid(relation->rd_rel->relrewrite) ||
		(relation->rd_rel->relkind != RELKIND_RELATION &&
		 relation->rd_rel->relkind != RELKIND_PARTITIONED_TABLE))
		return true;

	schema_name = get_namespace_name(RelationGetNamespace(relation));
	return schema_name == NULL || (strcmp(schema_name, OWN_SCHEMA) == 0 &&
								   !interest_names(interest, RelationGetRelid(relation)));
}

/* Tells an ancestor's entry that invalidations of it concern others too. */
static void
mark_ancestor(RelationCache *cache, Oid relid)
{
	bool		   is_found;
	RelationEntry *entry = hash_search(cache->entries, &relid, HASH_ENTER, &is_found);

	if (!is_found)
	{
		memset(entry, 0, sizeof(*entry));
		entry->relid = relid;
	}
	entry->has_descendants = true;
}

/* Fills the two lists of an entry. */
static void
sort_by_interest(RelationCache *cache, RelationEntry *entry, Relation relation)
{
	List	 *relids;
	ListCell *lc;

	entry->publish_as_count = 0;
	entry->skip_as_count = 0;
	if (is_out_of_question(relation, cache->interest))
		return;

	relids = relation_and_ancestors(RelationGetRelid(relation));
	entry->publish_as = MemoryContextAlloc(entry->context, list_length(relids) * sizeof(Oid));
	entry->skip_as = MemoryContextAlloc(entry->context, list_length(relids) * sizeof(Oid));
	foreach(lc, relids)
	{
		Oid relid = lfirst_oid(lc);

		if (interest_contains(cache->interest, relid))
			entry->publish_as[entry->publish_as_count++] = relid;
		else
			entry->skip_as[entry->skip_as_count++] = relid;
		if (relid != entry->relid)
			mark_ancestor(cache, relid);
	}
}

/* ------------------------------------------------------------------------------------------------
 * How rows are sent
 */

/*
 * A name in the reader's encoding.  One that cannot be expressed there fits nothing that the reader
 * has, so it does not matter which of its letters are lost.
 */
static ByteRange
name_range(const ValueFormat *format, const char *name)
{
	Size length;

	if (name == NULL)
		return byte_range(NULL, 0);
	length = strlen(name);
	if (!conversion_text(format->conversion, &name, &length))
	{
		char *ascii = pstrdup(name);

		for (char *at = ascii; *at != '\0'; at++)
			*at = IS_HIGHBIT_SET(*at) ? '?' : *at;
		return byte_range(ascii, length);
	}
	return byte_range(name, length);
}

/* Chooses the encoders of the live columns and describes them.  `views` has room for all. */
static void
choose_columns(RelationEntry *entry, Relation relation, const ValueFormat *format,
			   ColumnView *views)
{
	TupleDesc  tupdesc = RelationGetDescr(relation);
	Bitmapset *identity = RelationGetIdentityKeyBitmap(relation);

	entry->column_count = 0;
	entry->columns = MemoryContextAllocZero(entry->context, tupdesc->natts * sizeof(ColumnEncoder));
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(tupdesc, i);
		ColumnEncoder	 *column = &entry->columns[entry->column_count];

		if (attribute->attisdropped || attribute_is_virtual(attribute))
			continue;
		encoder_choose(column, attribute, format, entry->context);
		column->in_identity =
			entry->replica_identity == REPLICA_IDENTITY_FULL ||
			bms_is_member(attribute->attnum - FirstLowInvalidHeapAttributeNumber, identity);
		views[entry->column_count++] = (ColumnView){
			.name = name_range(format, NameStr(attribute->attname)),
			.attnum = (uint32) attribute->attnum,
			.type_oid = attribute->atttypid,
			.type_modifier = attribute->atttypmod,
			.encoding = column->encoding,
			.in_identity = column->in_identity,
			.type_name = name_range(format, encoder_type_name(attribute->atttypid, format)),
		};
	}
}

/* The contents of the Relation record, in the entry's context. */
static ByteRange
describe(const RelationEntry *entry, Relation relation, const ValueFormat *format,
		 const ColumnView *columns)
{
	WireBuffer	 buffer;
	RelationView view = {
		.relid = entry->relid,
		.schema_name = name_range(format, get_namespace_name(RelationGetNamespace(relation))),
		.relation_name = name_range(format, RelationGetRelationName(relation)),
		.replica_identity = entry->replica_identity,
		.publish_as_count = (uint32) entry->publish_as_count,
		.column_count = (uint32) entry->column_count,
	};

	buffer_init(&buffer, entry->context, 256);
	write_relation_contents(&buffer, &view, entry->publish_as, columns);
	return byte_range(buffer.data, buffer.length);
}

static bool
ranges_equal(ByteRange a, ByteRange b)
{
	return a.length == b.length && (a.length == 0 || memcmp(a.data, b.data, a.length) == 0);
}

/*
 * Makes the part of an entry that is about sending rows; `old` is what was announced before, if
 * anything.
 */
static void
prepare_sending(RelationCache *cache, RelationEntry *entry, Relation relation, ByteRange old)
{
	ColumnView *views =
		palloc(sizeof(ColumnView) * Max(RelationGetNumberOfAttributes(relation), 1));

	entry->replica_identity = relation->rd_rel->relreplident;
	choose_columns(entry, relation, &cache->format, views);
	entry->description = describe(entry, relation, &cache->format, views);
	pfree(views);

	if (entry->number == 0 || !ranges_equal(entry->description, old))
	{
		entry->number = ++cache->last_number;
		entry->is_announced = false;
	}
}

static void
make_entry(RelationCache *cache, RelationEntry *entry, Relation relation)
{
	MemoryContext old_context = entry->context;
	ByteRange	  old_description = entry->description;

	/* First of all, so that an invalidation that arrives meanwhile is not overwritten. */
	entry->is_valid = true;
	entry->context =
		AllocSetContextCreate(cache->context, "pgtrickle relation", ALLOCSET_SMALL_SIZES);
	entry->description = byte_range(NULL, 0);
	entry->skipped_in = 0;
	sort_by_interest(cache, entry, relation);
	if (entry->publish_as_count > 0)
		prepare_sending(cache, entry, relation, old_description);
	if (old_context != NULL)
		MemoryContextDelete(old_context);
}

/* ------------------------------------------------------------------------------------------------
 * The cache
 */

static void
create_entries(RelationCache *cache)
{
	HASHCTL control = {
		.keysize = sizeof(Oid), .entrysize = sizeof(RelationEntry), .hcxt = cache->context};

	cache->entries =
		hash_create("pgtrickle relations", 128, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	cache->last_used = NULL;
}

/* The decoding session's memory goes away, by its end or by an error. */
static void
forget_cache(void *cache)
{
	if (current_cache == cache)
		current_cache = NULL;
}

RelationCache *
relation_cache_create(const Interest *interest, const ValueFormat *format, MemoryContext context)
{
	RelationCache		  *cache = MemoryContextAllocZero(context, sizeof(RelationCache));
	MemoryContextCallback *callback = MemoryContextAllocZero(context, sizeof(*callback));

	cache->context = AllocSetContextCreate(context, "pgtrickle relations", ALLOCSET_DEFAULT_SIZES);
	cache->interest = interest;
	cache->format = *format;
	create_entries(cache);

	callback->func = forget_cache;
	callback->arg = cache;
	MemoryContextRegisterResetCallback(context, callback);
	register_callbacks();
	current_cache = cache;
	return cache;
}

RelationEntry *
relation_cache_get(RelationCache *cache, Relation relation)
{
	Oid			   relid = RelationGetRelid(relation);
	RelationEntry *entry = cache->last_used;
	bool		   is_found = true;

	if (entry == NULL || entry->relid != relid)
		entry = hash_search(cache->entries, &relid, HASH_ENTER, &is_found);
	if (!is_found)
	{
		memset(entry, 0, sizeof(*entry));
		entry->relid = relid;
	}
	if (!entry->is_valid)
		make_entry(cache, entry, relation);
	cache->last_used = entry;
	return entry;
}

bool
relation_cache_skips_first(RelationCache *cache, Oid relid, uint64 transaction)
{
	RelationEntry *entry = hash_search(cache->entries, &relid, HASH_FIND, NULL);

	Assert(entry != NULL); /* the relation itself, or marked as an ancestor */
	if (entry->named_skipped_in == transaction)
		return false;
	entry->named_skipped_in = transaction;
	return true;
}

void
relation_cache_invalidate_all(RelationCache *cache)
{
	invalidate_entries(cache, InvalidOid);
}

void
relation_cache_trim(RelationCache *cache)
{
	if (hash_get_num_entries(cache->entries) <= RELATION_ENTRIES_MAX)
		return;
	cache->entries = NULL;
	MemoryContextReset(cache->context); /* with the hash and the contexts of the entries */
	create_entries(cache);
}
