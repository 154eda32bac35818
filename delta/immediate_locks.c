/*
 * delta/immediate_locks.c
 *     The locks of an IMMEDIATE run.
 *
 * docs/explanation/immediate.md says which locks there are, in which order they are taken, and why they are enough.  Here they are collected
 * from rowsets, step by step:
 *
 *     rows --hash--> wishes --sort, merge modes--> LockAcquire --> new snapshot
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
#define LOCK_CLASS_PAIR 29002
#define LOCK_CLASS_KEY 29003

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

/* Sorts, and leaves one wish per tag. */
static void
merge_wishes(RunLocks *locks)
{
	int			kept = 0;

	qsort(locks->wishes, locks->count, sizeof(LockWish), compare_wishes);
	for (int i = 0; i < locks->count; i++)
	{
		LockWish   *wish = &locks->wishes[i];
		LockWish   *last = kept > 0 ? &locks->wishes[kept - 1] : NULL;

		if (last == NULL || last->class != wish->class || last->hash != wish->hash)
			locks->wishes[kept++] = *wish;
		else if (last->mode != wish->mode)
			last->mode = ExclusiveLock;
	}
	locks->count = kept;
}

static void
become_coarse(RunLocks *locks)
{
	locks->coarse = true;
	locks->count = 0;
	(void) acquire(locks->table->relid, 0, LOCK_CLASS_TABLE, ExclusiveLock);
	locks->must_renew = true;
}

/* Merging is put off until there is no room. */
static void
add_wish(RunLocks *locks, uint16 class, uint32 hash, LOCKMODE mode)
{
	if (locks->coarse)
		return;
	if (locks->count == locks->capacity)
	{
		merge_wishes(locks);
		if (locks->count > pgtrickle_immediate_keys_max)
		{
			become_coarse(locks);
			return;
		}
	}
	locks->wishes[locks->count++] = (LockWish){hash, class, mode};
}

static void
take_wishes(RunLocks *locks)
{
	merge_wishes(locks);
	if (locks->count > pgtrickle_immediate_keys_max)
		become_coarse(locks);
	for (int i = 0; i < locks->count; i++)
		(void) acquire(locks->table->relid, locks->wishes[i].hash, locks->wishes[i].class, locks->wishes[i].mode);
	if (locks->count > 0 || locks->must_renew)
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
	locks->capacity = Max(2 * pgtrickle_immediate_keys_max, 64);
	locks->wishes = palloc(locks->capacity * sizeof(LockWish));
	immediate_lock_table(table->relid, locks->coarse);
	if (!table->valid)
		return NULL;
	immediate_renew_snapshot();
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
	while (!locks->coarse && rowset_next(delta, slot))
	{
		uint32		hash;

		CHECK_FOR_INTERRUPTS();
		if (hash_side(locks, pair, side, slot, &hash))
			add_wish(locks, LOCK_CLASS_PAIR, hash, mode);
		if (pair->ncolumns == 0)
			break;				/* the others have the same value */
	}
	ExecDropSingleTupleTableSlot(slot);
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

	rowset_rewind(keys);
	while (!locks->coarse && rowset_next(keys, slot))
	{
		CHECK_FOR_INTERRUPTS();
		add_wish(locks, LOCK_CLASS_KEY, hash_key(state, slot), ExclusiveLock);
	}
	ExecDropSingleTupleTableSlot(slot);
}

/* ---- what run.c calls ---- */

void
run_locks_before_step(RunLocks *locks, ProgramStep *step, Rowset **rowsets)
{
	ListCell   *lc;

	foreach(lc, step->lock_pairs)
	{
		LockPair   *pair = lfirst(lc);

		for (int side = 0; side < 2; side++)
		{
			Rowset	   *delta = rowsets[pair->rowsets[side]];

			if (delta != NULL && delta->row_count > 0)
				wish_side(locks, pair, side, delta);
		}
	}
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
	rowset_rewind(delta);
	while (!locks->coarse && rowset_next(delta, slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (rowset_weight(delta, slot) > 0)
			continue;
		slot_getallattrs(slot);
		add_wish(locks, LOCK_CLASS_KEY,
				 hash_combine(hash_bytes_uint32(ROW_HASH_STATE),
							  (uint32) row_image_hash(slot->tts_tupleDescriptor, slot->tts_tupleDescriptor->natts - 1,
													  slot->tts_values, slot->tts_isnull)),
				 ExclusiveLock);
	}
	ExecDropSingleTupleTableSlot(slot);
	take_wishes(locks);
}
