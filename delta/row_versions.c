/*
 * delta/row_versions.c
 *     What has changed in tables since a snapshot, read from the versions of their rows.
 *
 * As long as somebody holds a snapshot, vacuum leaves all versions of rows that it sees in the table.  So whoever holds an older one and a newer
 * one finds the difference of the two by asking of each version which of them sees it.  Neither the WAL nor a trigger is needed.
 *
 * Most pages can be passed over:
 *
 *  - those that are all-visible in the visibility map: each of their versions is seen by all snapshots that anybody holds;
 *  - those that have not been written since row_versions_begin(), as their LSN says.  It waits for the transactions that had a lock for writing at that
 *    moment.  So a transaction which `before` does not see wrote all that it wrote later.  (That a transaction ends does not write the page.)
 *    Tables without WAL have no LSNs, and are read from end to end.
 *
 * TRUNCATE and what rewrites a table would take the versions away.  The lock keeps them off.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/visibilitymap.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "row_versions.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* ---- before the snapshot ---- */

bool
row_versions_can_tell(List *relids)
{
	ListCell   *lc;

	foreach(lc, relids)
	{
		Relation	relation = table_open(lfirst_oid(lc), AccessShareLock);
		bool		is_heap = !RELKIND_HAS_TABLE_AM(relation->rd_rel->relkind) || relation->rd_tableam == GetHeapamTableAmRoutine();

		table_close(relation, NoLock);
		if (!is_heap)
			return false;
	}
	return true;
}

static bool
is_among(VirtualTransactionId *transactions, int count, VirtualTransactionId wanted)
{
	for (int i = 0; i < count; i++)
	{
		if (VirtualTransactionIdEquals(transactions[i], wanted))
			return true;
	}
	return false;
}

/*
 * Those that have a lock for writing, without standing in the way of others.  Vacuum and autovacuum have one that conflicts with the same modes, and do
 * not change what anybody sees.
 */
static void
wait_for_writers(Oid relid)
{
	LOCKTAG		tag;
	VirtualTransactionId *holders;
	VirtualTransactionId *running;
	int			nholders;
	int			nrunning;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	holders = GetLockConflicts(&tag, ShareLock, &nholders);
	running = GetCurrentVirtualXIDs(InvalidTransactionId, false, false, PROC_IS_AUTOVACUUM | PROC_IN_VACUUM, &nrunning);
	for (int i = 0; i < nholders; i++)
	{
		if (VirtualTransactionIdIsRecoveredPreparedXact(holders[i]) || is_among(running, nrunning, holders[i]))
			(void) VirtualXactLock(holders[i], true);
	}
	pfree(running);
}

XLogRecPtr
row_versions_begin(List *relids)
{
	XLogRecPtr	begin;
	ListCell   *lc;

	foreach(lc, relids)
		LockRelationOid(lfirst_oid(lc), AccessShareLock);
	begin = GetXLogInsertRecPtr();
	foreach(lc, relids)
		wait_for_writers(lfirst_oid(lc));
	return begin;
}

#define XIDS_BETWEEN_MAX 1000000

/*
 * Makes the snapshot see a transaction that was over only after it was taken: all others from its end up to now count as running.  The ids of
 * subtransactions are looked up, so they have to lie below xmax as well.
 */
static bool
see_also(SnapshotData *snapshot, TransactionId taken_by)
{
	TransactionId xmax = GetLatestSnapshot()->xmax;
	uint32		count = xmax - snapshot->xmax;

	if (!TransactionIdPrecedes(snapshot->xmax, xmax) || count > XIDS_BETWEEN_MAX)
		return false;
	snapshot->xip = repalloc(snapshot->xip, sizeof(TransactionId) * (snapshot->xcnt + count));
	while (snapshot->xmax != xmax)
	{
		if (snapshot->xmax != taken_by)
			snapshot->xip[snapshot->xcnt++] = snapshot->xmax;
		TransactionIdAdvance(snapshot->xmax);
	}
	return true;
}

Snapshot
row_versions_snapshot(const char *text, uint64 taken_by)
{
	SnapshotData snapshot = {0};
	char	   *position = pstrdup(text);
	char	   *save = NULL;
	char	   *xmin = strtok_r(position, ":", &save);
	char	   *xmax = strtok_r(NULL, ":", &save);
	char	   *running = strtok_r(NULL, ":", &save);

	snapshot.snapshot_type = SNAPSHOT_MVCC;
	snapshot.xmin = (TransactionId) strtoull(xmin, NULL, 10);
	snapshot.xmax = (TransactionId) strtoull(xmax, NULL, 10);
	snapshot.xip = palloc(sizeof(TransactionId) * (strlen(text) + 1));
	save = NULL;
	for (char *xid = running ? strtok_r(running, ",", &save) : NULL; xid != NULL; xid = strtok_r(NULL, ",", &save))
		snapshot.xip[snapshot.xcnt++] = (TransactionId) strtoull(xid, NULL, 10);
	/* only top-level ids were printed */
	snapshot.suboverflowed = true;
	snapshot.curcid = FirstCommandId;
	for (uint32 i = 0; i < snapshot.xcnt; i++)
	{
		/* it had its id before its snapshot */
		if (snapshot.xip[i] == (TransactionId) taken_by)
			snapshot.xip[i--] = snapshot.xip[--snapshot.xcnt];
	}
	if (!TransactionIdPrecedes((TransactionId) taken_by, snapshot.xmax) && !see_also(&snapshot, (TransactionId) taken_by))
		return NULL;
	if (!TransactionIdIsNormal(MyProc->xmin) || !TransactionIdPrecedesOrEquals(MyProc->xmin, snapshot.xmin))
		return NULL;
	return RegisterSnapshot(&snapshot);
}

/* ---- the difference ---- */

/* One table, while it is read. */
typedef struct Comparison
{
	Relation	relation;
	XLogRecPtr	begin;
	Snapshot	before;
	Snapshot	after;
	TupleTableSlot *slot;
	RowVersionSink sink;
	void	   *arg;
} Comparison;

/* A version that one of the snapshots sees. */
typedef struct SeenVersion
{
	OffsetNumber offset;
	int32		weight;
} SeenVersion;

static void
locate(Comparison *comparison, Page page, BlockNumber block, OffsetNumber offset, HeapTupleData *tuple)
{
	ItemId		item = PageGetItemId(page, offset);

	tuple->t_tableOid = RelationGetRelid(comparison->relation);
	tuple->t_data = (HeapTupleHeader) PageGetItem(page, item);
	tuple->t_len = ItemIdGetLength(item);
	ItemPointerSet(&tuple->t_self, block, offset);
}

/* With the buffer locked: which versions are to be handed over. */
static int
find_versions(Comparison *comparison, Buffer buffer, SeenVersion *found)
{
	Page		page = BufferGetPage(buffer);
	OffsetNumber last = PageIsNew(page) ? InvalidOffsetNumber : PageGetMaxOffsetNumber(page);
	int			count = 0;

	if (RelationNeedsWAL(comparison->relation) && BufferGetLSNAtomic(buffer) <= comparison->begin)
		return 0;
	for (OffsetNumber offset = FirstOffsetNumber; offset <= last; offset++)
	{
		HeapTupleData tuple;
		bool		was_seen;
		bool		is_seen;

		if (!ItemIdIsNormal(PageGetItemId(page, offset)))
			continue;
		locate(comparison, page, BufferGetBlockNumber(buffer), offset, &tuple);
		was_seen = HeapTupleSatisfiesVisibility(&tuple, comparison->before, buffer);
		is_seen = HeapTupleSatisfiesVisibility(&tuple, comparison->after, buffer);
		if (was_seen != is_seen)
			found[count++] = (SeenVersion){offset, is_seen ? 1 : -1};
	}
	return count;
}

static void
compare_block(Comparison *comparison, Buffer buffer)
{
	SeenVersion found[MaxHeapTuplesPerPage];
	int			count;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	count = find_versions(comparison, buffer, found);
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	/* what is pinned and seen by a snapshot stays where it is */
	for (int i = 0; i < count; i++)
	{
		HeapTupleData tuple;

		locate(comparison, BufferGetPage(buffer), BufferGetBlockNumber(buffer), found[i].offset, &tuple);
		ExecStoreBufferHeapTuple(&tuple, comparison->slot, buffer);
		comparison->sink(comparison->arg, comparison->slot, found[i].weight);
	}
	ExecClearTuple(comparison->slot);
}

void
row_versions_compare(Relation relation, XLogRecPtr begin, Snapshot before, Snapshot after, RowVersionSink sink, void *arg)
{
	Comparison	comparison = {relation, begin, before, after, table_slot_create(relation, NULL), sink, arg};
	BlockNumber nblocks = RelationGetNumberOfBlocks(relation);
	BufferAccessStrategy strategy = GetAccessStrategy(BAS_BULKREAD);
	Buffer		map_buffer = InvalidBuffer;

	for (BlockNumber block = 0; block < nblocks; block++)
	{
		Buffer		buffer;

		CHECK_FOR_INTERRUPTS();
		if (VM_ALL_VISIBLE(relation, block, &map_buffer))
			continue;
		buffer = ReadBufferExtended(relation, MAIN_FORKNUM, block, RBM_NORMAL, strategy);
		compare_block(&comparison, buffer);
		ReleaseBuffer(buffer);
	}
	if (BufferIsValid(map_buffer))
		ReleaseBuffer(map_buffer);
	FreeAccessStrategy(strategy);
	ExecDropSingleTupleTableSlot(comparison.slot);
}
