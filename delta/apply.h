/*
 * delta/apply.h
 *     Writes deltas into heap tables directly: stream tables and the internal state tables.
 *
 * As the server's logical replication worker does: open the relation and its indexes once, find rows
 * by an index, and call the table access method.  No SQL, no triggers, no privilege checks (the caller has
 * opened the relation with RowExclusiveLock and knows that it may).  Constraints of the relation are checked.
 */
#ifndef PGTRICKLE_APPLY_H
#define PGTRICKLE_APPLY_H

#include "postgres.h"

#include "fmgr.h"
#include "rowset.h"
#include "utils/rel.h"

/* How rows of a table are found. */
typedef struct RowLocator
{
	Oid			index_oid;		/* a btree, or an equal one if it is gone; InvalidOid: no rows are ever looked up (a table of one row at most is scanned) */
	bool		by_row_hash;	/* the index is on pgtrickle.row_hash(ROW(all columns)) */
	int			nkeys;			/* else: the key columns, in the index's order; the index may be non-unique.  NULL finds NULL */
	AttrNumber *key_attnos;
} RowLocator;

typedef struct ApplyCounts
{
	int64		rows_inserted;	/* an update counts as one inserted and one deleted, as readers of the delta see it */
	int64		rows_deleted;
	int64		rows_updated;	/* of these, how many were written as one in-place UPDATE */
} ApplyCounts;

/*
 * Applies a delta with the relation's live columns in order (rowset column i is the i-th live column) and a weight.
 *
 * Consolidates by image first; then, with a key, pairs one -old and one +new of equal key into an UPDATE (so that it can be HOT).  Order: deletes,
 * updates, inserts; keys in index order when there are many.  A row to delete or update is found by the locator and must be image-equal to the old row
 * (a bag deletes as many copies as the weight says).  A row that is not found, or is found too few times, is an ERROR XX001 with the
 * stream table's name: "multiplicity of a row in stream table ... would become -1", detail: the key or row.  Reads the table with the active
 * snapshot, brought up to the present command: what this transaction has done before is seen.
 *
 * `hidden`: tag the written WAL so that the decoder drops it (origin DoNotReplicateId).
 * `net`: when not NULL receives the net delta (owned by the caller, named __pgt_delta_<relid>, relation's attribute numbers), for consumers of
 * the same tick.  The caller makes the changes visible to later commands (CommandCounterIncrement).
 */
extern ApplyCounts apply_delta(Relation relation, const RowLocator *locator, Rowset *delta, bool hidden, Rowset **net);

/* Bulk-loads rows (weights must be positive) into a table that has no indexes yet or accepts the cost. */
extern int64 apply_fill(Relation relation, Rowset *rows, bool hidden);

/* How one column of a state table takes in its delta. */
typedef enum MergeKind
{
	MERGE_FUNCTION,				/* new = merge_function(old, delta); a NULL on either side yields the other */
	MERGE_MIN,					/* delta columns: smallest that came, smallest that went */
	MERGE_MAX					/* delta columns: largest that came, largest that went */
} MergeKind;

typedef struct MergeColumn
{
	MergeKind	kind;
	AttrNumber	state_attno;	/* in the state table */
	AttrNumber	delta_attno;	/* in the group delta: the delta, or what came */
	AttrNumber	delta_gone_attno;	/* MERGE_MIN/MAX: what went */
	FmgrInfo	function;		/* the merge function, or for MIN/MAX the btree comparison function (3-way) */
	Oid			collation;
} MergeColumn;

/*
 * Merges a group delta into a state table.
 *
 * The state table's live columns are: the keys (locator->key_attnos), `rows_attno` (bigint: how many input rows the
 * group has), and the merge columns.  The group delta has the key columns first (in the order of locator->key_attnos), then the
 * delta of rows_attno (bigint) at delta attribute nkeys + 1, the others where their MergeColumn says; its weight is always 1 and ignored.
 *
 * A group delta that is_row_by_row may have several rows per group, which are added up first; it has no MIN/MAX columns.
 *
 * For every group: finds the state row, computes the new one, inserts / updates / deletes it (deleted when rows becomes 0,
 * unless `keep_empty`: the one row of an aggregate without GROUP BY); appends the old image with weight -1 and the new image with +1 to `out` (columns: the
 * state table's live columns; nothing when the image does not change).  A group whose MIN/MAX lost its extremum (a value that went compares equal to or beyond the
 * stored one) is not touched: its keys are appended with weight 1 to `recompute` (columns: the keys), for merge_replace.
 * A negative number of rows is an ERROR XX001 as in apply_delta.
 */
typedef struct MergeTarget
{
	Relation	relation;
	RowLocator	locator;
	AttrNumber	rows_attno;
	int			ncolumns;
	MergeColumn *columns;
	bool		keep_empty;
	const char *stream_table_name;	/* for messages */
} MergeTarget;

extern void merge_group_delta(MergeTarget *target, Rowset *group_delta, Rowset *out, Rowset *recompute);

/*
 * Replaces all rows of `relation` whose key is among `keys` by `rows` (columns: the relation's live columns; every row's key is among the
 * keys; weights positive).  Appends to `out` (may be NULL) -old +new, where no row both comes and goes.  Several rows per key are
 * fine, as long as the rows of one key fit into memory.
 * `keys`: the key columns in the order of locator->key_attnos; a key that is there twice counts once.  Writes only what differs.
 */
extern ApplyCounts replace_by_key(Relation relation, const RowLocator *locator, Rowset *keys, Rowset *rows,
								  bool hidden, Rowset *out, const char *stream_table_name);

#endif							/* PGTRICKLE_APPLY_H */
