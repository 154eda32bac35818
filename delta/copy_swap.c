/*
 * delta/copy_swap.c
 *     Gives an empty copy the files of the table that was loaded for it.
 *
 * So nothing is written a second time: table, TOAST table and indexes of the load table become those of the copy, which keeps its identity, and with
 * it everything that depends on it.  REFRESH MATERIALIZED VIEW and CLUSTER do the like; they build the indexes anew, here those of the load table
 * are taken over as they are.
 *
 * What may a snapshot see that was taken before?  It sees the rows of all transactions that had committed by then.  Since the transaction `exact_xid`
 * these are the remote's table at the position that the same snapshot shows.  A snapshot that does not see `exact_xid` would find the rows of
 * some of the parts, so nothing is swapped while there may be one: that is, while a process of this database has an xmin that is not behind it.  One that
 * is taken after we looked sees it.
 *
 * Locks that keep readers away are asked for only for a moment, since everybody else would queue behind us, and then not again for a while.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/toast_internals.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/heap.h"
#include "catalog/index.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "commands/tablecmds.h"
#include "compat.h"
#include "copy_swap.h"
#include "lock_attempts.h"
#include "storage/lmgr.h"
#include "storage/predicate.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#define LOCK_ATTEMPT_MS 100

/* After an attempt that has failed; the applier's pauses (remote_plan.c), for ticks that bring nothing, are twice as long. */
#define PAUSE_MS_FIRST 12
#define PAUSE_MS_MAX 1000

/* A copy that readers kept from being switched in. */
typedef struct SwapPause
{
	int64		copy_id;		/* the key */
	TimestampTz until;
	int			failures;
} SwapPause;

static HTAB *pauses;

/* An index of the copy, and the one whose file it gets. */
typedef struct IndexPair
{
	Oid			index;
	Oid			twin;			/* InvalidOid: it has to be built */
} IndexPair;

/* ---- may it be done? ---- */

static bool
may_be_read_too_early(uint64 exact_xid)
{
	TransactionId limit = XidFromFullTransactionId(FullTransactionIdFromU64(exact_xid));
	int			count;

	if (XidInMVCCSnapshot(limit, GetActiveSnapshot()))
		return true;
	/* those who vacuum or analyze do not look at other tables, and this one they have to lock */
	(void) GetCurrentVirtualXIDs(limit, true, false, PROC_IS_AUTOVACUUM | PROC_IN_VACUUM, &count);
	return count > 0;
}

static bool
is_same_column(Form_pg_attribute a, Form_pg_attribute b)
{
	return !a->attisdropped && !b->attisdropped && a->atttypid == b->atttypid && a->atttypmod == b->atttypmod &&
		a->attlen == b->attlen && a->attalign == b->attalign && a->attnotnull == b->attnotnull &&
		a->attgenerated == '\0' && b->attgenerated == '\0';
}

/* Would a file of the one have been written as a file of the other?  What a partition may have was not checked, as with other constraints. */
static bool
is_made_alike(Relation copy, Relation load)
{
	TupleDesc	columns = RelationGetDescr(copy);
	TupleDesc	loaded = RelationGetDescr(load);

	if (copy->rd_rel->relkind != RELKIND_RELATION || copy->rd_rel->relispartition || copy->rd_rel->relam != load->rd_rel->relam ||
		copy->rd_rel->relpersistence != load->rd_rel->relpersistence ||
		copy->rd_rel->reltablespace != load->rd_rel->reltablespace ||
		OidIsValid(copy->rd_rel->reltoastrelid) != OidIsValid(load->rd_rel->reltoastrelid) ||
		columns->natts != loaded->natts || (columns->constr != NULL && columns->constr->num_check > 0))
		return false;
	for (int i = 0; i < columns->natts; i++)
	{
		if (!is_same_column(TupleDescAttr(columns, i), TupleDescAttr(loaded, i)))
			return false;
	}
	return true;
}

static bool
fits(const CopyDefinition *definition)
{
	Relation	copy = table_open(definition->relid, NoLock);
	Relation	load = table_open(definition->load_table, NoLock);
	bool		result = is_made_alike(copy, load);

	table_close(load, NoLock);
	table_close(copy, NoLock);
	return result;
}

/* Each attempt may hold up readers that come meanwhile, and a table that is written to is in every tick. */
static bool
is_pausing(int64 copy_id)
{
	const SwapPause *pause = pauses != NULL ? hash_search(pauses, &copy_id, HASH_FIND, NULL) : NULL;

	return pause != NULL && GetCurrentTimestamp() < pause->until;
}

static void
make_pause(int64 copy_id)
{
	SwapPause  *pause;
	bool		found;

	if (pauses == NULL)
	{
		HASHCTL		control = {.keysize = sizeof(int64), .entrysize = sizeof(SwapPause)};

		pauses = hash_create("copies that could not be switched in", 16, &control, HASH_ELEM | HASH_BLOBS);
	}
	pause = hash_search(pauses, &copy_id, HASH_ENTER, &found);
	pause->failures = found ? pause->failures + 1 : 0;
	pause->until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), Min(PAUSE_MS_MAX, PAUSE_MS_FIRST << Min(pause->failures, 10)));
}

static void
end_pauses(int64 copy_id)
{
	if (pauses != NULL)
		(void) hash_search(pauses, &copy_id, HASH_REMOVE, NULL);
}

static void
lock_both(void *argument)
{
	const CopyDefinition *definition = argument;

	LockRelationOid(definition->relid, AccessExclusiveLock);
	LockRelationOid(definition->load_table, AccessExclusiveLock);
}

static bool
lock_against_readers(const CopyDefinition *definition)
{
	bool		locked = lock_attempt(lock_both, (void *) definition, LOCK_ATTEMPT_MS) == NULL;

	if (locked)
		end_pauses(definition->copy_id);
	else
		make_pause(definition->copy_id);
	return locked;
}

/* ---- indexes ---- */

/* An index cannot be altered to be another one: its name tells enough. */
Oid
copy_swap_twin(Oid load_table, Oid index)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "pgt_load_index_%u", index);
	return get_relname_relid(name, get_rel_namespace(load_table));
}

static bool
is_twin(Oid index, Oid twin, Oid load_table)
{
	Relation	a = index_open(index, AccessExclusiveLock);
	Relation	b = index_open(twin, AccessExclusiveLock);
	bool		result = b->rd_index->indrelid == load_table && b->rd_index->indisvalid && b->rd_index->indisready &&
		!b->rd_index->indcheckxmin && a->rd_rel->relam == b->rd_rel->relam &&
		a->rd_rel->reltablespace == b->rd_rel->reltablespace &&
		a->rd_rel->relpersistence == b->rd_rel->relpersistence &&
		a->rd_index->indnatts == b->rd_index->indnatts && a->rd_index->indnkeyatts == b->rd_index->indnkeyatts &&
		memcmp(a->rd_index->indkey.values, b->rd_index->indkey.values, a->rd_index->indnatts * sizeof(int16)) == 0;

	index_close(b, NoLock);
	index_close(a, NoLock);
	return result;
}

/* A list of IndexPair. */
static List *
pair_indexes(Relation copy, Oid load_table)
{
	List	   *pairs = NIL;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(copy))
	{
		IndexPair  *pair = palloc(sizeof(IndexPair));

		pair->index = lfirst_oid(lc);
		pair->twin = copy_swap_twin(load_table, pair->index);
		if (OidIsValid(pair->twin) && !is_twin(pair->index, pair->twin, load_table))
			pair->twin = InvalidOid;
		pairs = lappend(pairs, pair);
	}
	return pairs;
}

/* ---- swapping ---- */

#define SWAP_FIELD(type, a, b, field) \
	do { \
		type swapped_ = (a)->field; \
		(a)->field = (b)->field; \
		(b)->field = swapped_; \
	} while (0)

/* Everything in pg_class that is about the file. */
static void
swap_files(Oid relid, Oid other_relid)
{
	Relation	classes = table_open(RelationRelationId, RowExclusiveLock);
	HeapTuple	tuple = SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(relid));
	HeapTuple	other_tuple = SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(other_relid));
	Form_pg_class class;
	Form_pg_class other;

	if (!HeapTupleIsValid(tuple) || !HeapTupleIsValid(other_tuple))
		elog(ERROR, "cache lookup failed for relation %u or %u", relid, other_relid);
	class = (Form_pg_class) GETSTRUCT(tuple);
	other = (Form_pg_class) GETSTRUCT(other_tuple);
	SWAP_FIELD(Oid, class, other, relfilenode);
	SWAP_FIELD(Oid, class, other, reltoastrelid);
	SWAP_FIELD(int32, class, other, relpages);
	SWAP_FIELD(float4, class, other, reltuples);
	SWAP_FIELD(int32, class, other, relallvisible);
#if PG_VERSION_NUM >= 180000
	SWAP_FIELD(int32, class, other, relallfrozen);
#endif
	SWAP_FIELD(TransactionId, class, other, relfrozenxid);
	SWAP_FIELD(TransactionId, class, other, relminmxid);
	CatalogTupleUpdate(classes, &tuple->t_self, tuple);
	CatalogTupleUpdate(classes, &other_tuple->t_self, other_tuple);
	table_close(classes, RowExclusiveLock);
	compat_close_files(relid);
	compat_close_files(other_relid);
}

/* Of what is not in pg_shdepend: TOAST tables and their indexes. */
static void
set_owner(Oid relid, Oid owner)
{
	Relation	classes = table_open(RelationRelationId, RowExclusiveLock);
	HeapTuple	tuple = SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(relid));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	((Form_pg_class) GETSTRUCT(tuple))->relowner = owner;
	CatalogTupleUpdate(classes, &tuple->t_self, tuple);
	table_close(classes, RowExclusiveLock);
}

static void
depend_on_table(Oid toast, Oid table)
{
	ObjectAddress dependent;
	ObjectAddress referenced;

	ObjectAddressSet(dependent, RelationRelationId, toast);
	ObjectAddressSet(referenced, RelationRelationId, table);
	(void) deleteDependencyRecordsFor(RelationRelationId, toast, false);
	recordDependencyOn(&dependent, &referenced, DEPENDENCY_INTERNAL);
}

/* The TOAST table that the copy has got becomes its own, by owner and name. */
static void
adopt_toast(Oid toast, Oid table, Oid owner)
{
	char		name[NAMEDATALEN];
	Oid			index = toast_get_valid_index(toast, AccessExclusiveLock);

	set_owner(toast, owner);
	set_owner(index, owner);
	CommandCounterIncrement();
	snprintf(name, sizeof(name), "pg_toast_%u", table);
	RenameRelationInternal(toast, name, true, false);
	snprintf(name, sizeof(name), "pg_toast_%u_index", table);
	RenameRelationInternal(index, name, true, true);
	CommandCounterIncrement();
}

/* Not by SQL, which would fire event triggers in the tick. */
void
copy_swap_drop(Oid load_table)
{
	ObjectAddress address;

	LockRelationOid(load_table, AccessExclusiveLock);
	ObjectAddressSet(address, RelationRelationId, load_table);
	performDeletion(&address, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
}

static void
swap_indexes(const List *pairs)
{
	const ListCell *lc;

	foreach(lc, pairs)
	{
		const IndexPair *pair = lfirst(lc);

		if (OidIsValid(pair->twin))
			swap_files(pair->index, pair->twin);
	}
}

/*
 * The load table had rows updated in place that an index of the copy tells apart (HOT): what the index knows of them is the last state.  So it is not for
 * snapshots from before this, as after any CREATE INDEX that meets such rows; building an index anew does not look for them.
 */
static void
keep_from_older_snapshots(Oid index)
{
	Relation	indexes = table_open(IndexRelationId, RowExclusiveLock);
	HeapTuple	tuple = SearchSysCacheCopy1(INDEXRELID, ObjectIdGetDatum(index));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for index %u", index);
	((Form_pg_index) GETSTRUCT(tuple))->indcheckxmin = true;
	CatalogTupleUpdate(indexes, &tuple->t_self, tuple);
	table_close(indexes, RowExclusiveLock);
}

/* Those that the load table did not have: conditions and expressions of users are not computed before their owner does. */
static void
build_indexes(const List *pairs, char persistence)
{
	const ListCell *lc;

	foreach(lc, pairs)
	{
		const IndexPair *pair = lfirst(lc);

		if (OidIsValid(pair->twin))
			continue;
		compat_reindex(pair->index, persistence);
		CommandCounterIncrement();
		keep_from_older_snapshots(pair->index);
	}
}

static void
swap(const CopyDefinition *definition)
{
	Relation	copy = table_open(definition->relid, NoLock);
	Relation	load = table_open(definition->load_table, NoLock);
	List	   *pairs = pair_indexes(copy, definition->load_table);
	Oid			copy_toast = copy->rd_rel->reltoastrelid;
	Oid			load_toast = load->rd_rel->reltoastrelid;
	char		persistence = copy->rd_rel->relpersistence;

	CheckTableNotInUse(copy, "switch");
	CheckTableNotInUse(load, "switch");
	TransferPredicateLocksToHeapRelation(copy);
	TransferPredicateLocksToHeapRelation(load);
	table_close(load, NoLock);
	table_close(copy, NoLock);

	RemoveStatistics(definition->relid, 0);
	CopyStatistics(definition->load_table, definition->relid);
	swap_files(definition->relid, definition->load_table);
	swap_indexes(pairs);
	if (OidIsValid(load_toast))
	{
		depend_on_table(load_toast, definition->relid);
		depend_on_table(copy_toast, definition->load_table);
	}
	CommandCounterIncrement();
	copy_swap_drop(definition->load_table);
	CommandCounterIncrement();
	if (OidIsValid(load_toast))
		adopt_toast(load_toast, definition->relid, definition->owner);
	build_indexes(pairs, persistence);
	CommandCounterIncrement();
}

CopySwap
copy_swap(const CopyDefinition *definition, uint64 exact_xid)
{
	if (!fits(definition))
		return COPY_SWAP_NEVER;
	if (may_be_read_too_early(exact_xid) || is_pausing(definition->copy_id) || !lock_against_readers(definition))
		return COPY_SWAP_LATER;
	swap(definition);
	return COPY_SWAPPED;
}
