/*
 * delta/immediate_locks.c
 *     The locks of an IMMEDIATE run.
 *
 * docs/explanation/immediate.md says which locks there are, in which order they are taken, and why they are enough.  Here they are collected
 * from rowsets, step by step:
 *
 *     rows --hash--> wishes --sort, merge modes--> LockAcquire --> new snapshot
 *
 * A pair and a state have a lock of their own above those of their values and keys.  A run that needs many of these takes that one alone, and decides so
 * before it has any of them: nothing is upgraded on the way, so that single statements cannot deadlock.
 *
 * They are advisory locks with class numbers that SQL cannot ask for (those of pg_advisory_lock() are 1 and 2), belong to the
 * transaction, and so end with it, or with the subtransaction that took them if that is rolled back.
 *
 * Hashes are computed by functions of the columns' types, which may be somebody's code: call this as the stream table's owner.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "consolidate.h"
#include "immediate_locks.h"
#include "lock_pairs.h"
#include "miscadmin.h"
#include "settings.h"
#include "storage/lock.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

/* field4 of the tags, objsubid in pg_locks */
#define LOCK_CLASS_TABLE 29001
#define LOCK_CLASS_PAIR 29002	/* all values of a pair */
#define LOCK_CLASS_STATE 29003	/* all keys of a state */
#define LOCK_CLASS_VALUE 29004
#define LOCK_CLASS_KEY 29005

#define ROW_HASH_STATE 0		/* in place of a state's number: rows of the stream table, by their hash */

typedef struct LockWish
{
	uint32		hash;
	uint16		class;
	LOCKMODE	mode;
} LockWish;

struct RunLocks
{
	LoadedTable *table;
	bool		coarse;			/* nobody else runs: no more locks are needed */
	bool		must_renew;		/* a lock was taken since the last snapshot */
	LockWish   *wishes;			/* of one step */
	int			count;
	int			capacity;
	int			first;			/* of those of the pair or state that is being looked at */
	int			limit;			/* how many it may have */
	bool		too_many;		/* it has more: the lock of all is taken instead */
};

/* ---- taking ---- */

static LockAcquireResult
acquire(Oid relid, uint32 hash, uint16 class, LOCKMODE mode)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, relid, hash, class);
	return LockAcquire(&tag, mode, false, false);
}

void
immediate_renew_snapshot(void)
{
	CommandCounterIncrement();
	PopActiveSnapshot();
	PushCopiedSnapshot(GetLatestSnapshot());
	UpdateActiveSnapshotCommandId();
}

void
immediate_lock_table(Oid relid, bool coarse)
{
	(void) acquire(relid, 0, LOCK_CLASS_TABLE, coarse ? ExclusiveLock : RowExclusiveLock);
	/* whoever had it may have changed the definition */
	AcceptInvalidationMessages();
}

static int
compare_wishes(const void *a, const void *b)
{
	const LockWish *wish1 = a;
	const LockWish *wish2 = b;

	if (wish1->class != wish2->class)
		return wish1->class < wish2->class ? -1 : 1;
	if (wish1->hash != wish2->hash)
		return wish1->hash < wish2->hash ? -1 : 1;
	return wish1->mode - wish2->mode;
}

/* Sorts those from `first` on, and leaves one wish per tag. */
static void
merge_wishes(RunLocks *locks, int first)
{
	int			kept = first;

	qsort(locks->wishes + first, locks->count - first, sizeof(LockWish), compare_wishes);
	for (int i = first; i < locks->count; i++)
	{
		LockWish   *wish = &locks->wishes[i];
		LockWish   *last = kept > first ? &locks->wishes[kept - 1] : NULL;

		if (last == NULL || last->class != wish->class || last->hash != wish->hash)
			locks->wishes[kept++] = *wish;
		else if (last->mode != wish->mode)
			last->mode = ExclusiveLock;
	}
	locks->count = kept;
}

static void
add_wish(RunLocks *locks, uint16 class, uint32 hash, LOCKMODE mode)
{
	if (locks->count == locks->capacity)
	{
		locks->capacity *= 2;
		locks->wishes = repalloc(locks->wishes, locks->capacity * sizeof(LockWish));
	}
	locks->wishes[locks->count++] = (LockWish){hash, class, mode};
}

static void
begin_all(RunLocks *locks, int limit)
{
	locks->first = locks->count;
	locks->limit = limit;
	locks->too_many = false;
}

/* Merging is put off until there are twice as many as there may be. */
static void
add_one(RunLocks *locks, uint16 class, uint32 hash, LOCKMODE mode)
{
	add_wish(locks, class, hash, mode);
	if ((locks->count - locks->first) / 2 < locks->limit)
		return;
	merge_wishes(locks, locks->first);
	locks->too_many = locks->count - locks->first > locks->limit;
}

/* The lock of all is wanted in any case: to have it alone, or to keep those out who want that. */
static void
end_all(RunLocks *locks, uint16 class, int number)
{
	if (locks->count == locks->first)
		return;
	merge_wishes(locks, locks->first);
	locks->too_many |= locks->count - locks->first > locks->limit;
	if (locks->too_many)
		locks->count = locks->first;
	add_wish(locks, class, number, locks->too_many ? ExclusiveLock : RowExclusiveLock);
}

static void
take_wishes(RunLocks *locks)
{
	if (locks->count == 0 && !locks->must_renew)
		return;
	merge_wishes(locks, 0);
	for (int i = 0; i < locks->count; i++)
		(void) acquire(locks->table->relid, locks->wishes[i].hash, locks->wishes[i].class, locks->wishes[i].mode);
	immediate_renew_snapshot();
	locks->count = 0;
	locks->must_renew = false;
}

/* ---- a run ---- */

static bool
has_fine_locks(DeltaProgram *program)
{
	ListCell   *lc;

	foreach(lc, program->steps)
	{
		if (!((ProgramStep *) lfirst(lc))->has_fine_locks)
			return false;
	}
	return program->full_reason == NULL;
}

RunLocks *
run_locks_begin(LoadedTable *table, bool coarse)
{
	RunLocks   *locks = palloc0(sizeof(RunLocks));

	locks->table = table;
	locks->coarse = coarse || !has_fine_locks(table->program);
	locks->capacity = 64;
	locks->wishes = palloc(locks->capacity * sizeof(LockWish));
	immediate_lock_table(table->relid, locks->coarse);
	if (!table->valid)
		return NULL;
	if (locks->coarse)
		immediate_renew_snapshot();
	locks->must_renew = !locks->coarse;
	return locks;
}

/* ---- pairs ---- */

/* The hash of the row's values; false: one of them is NULL, and the row joins nothing. */
static bool
hash_side(RunLocks *locks, LockPair *pair, int side, TupleTableSlot *slot, uint32 *hash)
{
	*hash = hash_bytes_uint32((uint32) pair->number);
	for (int i = 0; i < pair->ncolumns; i++)
	{
		LockColumn *column = &pair->columns[side][i];
		bool		isnull;
		Datum		value = slot_getattr(slot, column->attno, &isnull);

		if (isnull)
			return false;
		if (!OidIsValid(column->hash.fn_oid))
			fmgr_info_cxt(column->hash_function, &column->hash, locks->table->context);
		*hash = hash_combine(*hash, DatumGetUInt32(FunctionCall1Coll(&column->hash, column->collation, value)));
	}
	return true;
}

static void
wish_side(RunLocks *locks, LockPair *pair, int side, Rowset *delta)
{
	TupleTableSlot *slot = rowset_make_slot(delta);
	LOCKMODE	mode = side == 0 ? RowExclusiveLock : ShareLock;

	rowset_rewind(delta);
	while (!locks->too_many && rowset_next(delta, slot))
	{
		uint32		hash;

		CHECK_FOR_INTERRUPTS();
		if (hash_side(locks, pair, side, slot, &hash))
			add_one(locks, LOCK_CLASS_VALUE, hash, mode);
		if (pair->ncolumns == 0)
			break;				/* the others have the same value */
	}
	ExecDropSingleTupleTableSlot(slot);
}

/* A run whose sources changed in many rows is coarse, so a pair of sources has few values in any fine run, and nobody wants the lock of all. */
static bool
has_few_values(RunLocks *locks, LockPair *pair)
{
	List	   *rowsets = locks->table->program->rowsets;

	return OidIsValid(((ProgramRowset *) list_nth(rowsets, pair->rowsets[0]))->source_relid) &&
		OidIsValid(((ProgramRowset *) list_nth(rowsets, pair->rowsets[1]))->source_relid);
}

static void
wish_pair(RunLocks *locks, LockPair *pair, Rowset **rowsets)
{
	bool		few = has_few_values(locks, pair);

	begin_all(locks, few ? INT_MAX : pgtrickle_immediate_keys_max);
	for (int side = 0; side < 2; side++)
	{
		Rowset	   *delta = rowsets[pair->rowsets[side]];

		if (delta != NULL && delta->row_count > 0)
			wish_side(locks, pair, side, delta);
	}
	if (!few)
		end_all(locks, LOCK_CLASS_PAIR, pair->number);
}

/* ---- keys ---- */

static uint32
hash_key(ProgramState *state, TupleTableSlot *slot)
{
	uint32		hash = hash_bytes_uint32((uint32) state->number);

	for (int i = 0; i < state->nkeys; i++)
	{
		StateColumn *column = list_nth(state->columns, i);
		TypeCacheEntry *type = lookup_type_cache(column->type, TYPECACHE_HASH_PROC_FINFO);
		bool		isnull;
		Datum		value = slot_getattr(slot, i + 1, &isnull);
		uint32		part = 0;

		/* without a hash function all values count as the same one */
		if (!isnull && OidIsValid(type->hash_proc_finfo.fn_oid))
			part = DatumGetUInt32(FunctionCall1Coll(&type->hash_proc_finfo, column->collation, value));
		hash = hash_combine(hash, part);
	}
	return hash;
}

static void
wish_keys(RunLocks *locks, ProgramState *state, Rowset *keys)
{
	TupleTableSlot *slot = rowset_make_slot(keys);

	begin_all(locks, pgtrickle_immediate_keys_max);
	rowset_rewind(keys);
	while (!locks->too_many && rowset_next(keys, slot))
	{
		CHECK_FOR_INTERRUPTS();
		add_one(locks, LOCK_CLASS_KEY, hash_key(state, slot), ExclusiveLock);
	}
	ExecDropSingleTupleTableSlot(slot);
	end_all(locks, LOCK_CLASS_STATE, state->number);
}

/* ---- what run.c calls ---- */

/* Without, the step is skipped. */
static bool
has_input(ProgramStep *step, Rowset **rowsets)
{
	for (int i = 0; i < step->ninputs; i++)
	{
		if (rowsets[step->inputs[i]] != NULL && rowsets[step->inputs[i]]->row_count > 0)
			return true;
	}
	return false;
}

void
run_locks_before_step(RunLocks *locks, ProgramStep *step, Rowset **rowsets)
{
	ListCell   *lc;

	if (locks->coarse || !has_input(step, rowsets))
		return;
	foreach(lc, step->lock_pairs)
		wish_pair(locks, lfirst(lc), rowsets);
	if (step->kind != STEP_QUERY && rowsets[step->inputs[0]] != NULL)
		wish_keys(locks, step->state, rowsets[step->inputs[0]]);
	take_wishes(locks);
}

void
run_locks_before_apply(RunLocks *locks, Rowset *delta)
{
	TupleTableSlot *slot;

	if (locks->coarse || !locks->table->locator.by_row_hash || !delta->has_deletes)
		return;
	slot = rowset_make_slot(delta);
	begin_all(locks, pgtrickle_immediate_keys_max);
	rowset_rewind(delta);
	while (!locks->too_many && rowset_next(delta, slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (rowset_weight(delta, slot) > 0)
			continue;
		slot_getallattrs(slot);
		add_one(locks, LOCK_CLASS_KEY,
				hash_combine(hash_bytes_uint32(ROW_HASH_STATE),
							 (uint32) row_image_hash(slot->tts_tupleDescriptor, slot->tts_tupleDescriptor->natts - 1,
													 slot->tts_values, slot->tts_isnull)),
				ExclusiveLock);
	}
	ExecDropSingleTupleTableSlot(slot);
	end_all(locks, LOCK_CLASS_STATE, ROW_HASH_STATE);
	take_wishes(locks);
}
