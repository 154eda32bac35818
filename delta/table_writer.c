/*
 * delta/table_writer.c
 *     Writes rows into one heap table and its indexes.
 *
 * As the server's executor does it, without the executor: constraints are checked (those of a partition, too), indexes are fed,
 * large values are moved out of line by the table access method.  No triggers fire (so a deferrable
 * unique constraint is not checked again at commit, and foreign keys are not looked at) and no privileges are checked.
 *
 * Finding rows is row_finder.c; which rows to write is up to apply.c, merge.c and replace.c.
 */
#include "table_writer.h"

#include "access/detoast.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "compat.h"
#include "consolidate.h"
#include "miscadmin.h"
#include "replication/origin.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* What is collected before it is written, as in COPY: a page or several at a time. */
#define BUFFERED_ROWS_MAX 1000
#define BUFFERED_BYTES_MAX 65536

/* From how many rows on it pays to keep the page that is being filled pinned. */
#define BULK_ROWS_MIN 1000

/* ------------------------------------------------------------------------------------------------
 * Opening and closing
 */

static void
init_live_columns(TableWriter *writer)
{
	TupleDesc	tupdesc = RelationGetDescr(writer->relation);
	AttrNumber *attnos = palloc(Max(tupdesc->natts, 1) * sizeof(AttrNumber));

	for (int i = 0; i < tupdesc->natts; i++)
	{
		if (!TupleDescAttr(tupdesc, i)->attisdropped)
			attnos[writer->nlive++] = i + 1;
	}
	if (writer->nlive < tupdesc->natts)
		writer->live_attnos = attnos;
}

TableWriter *
table_writer_open(Relation relation, int64 rows_expected)
{
	TableWriter *writer = palloc0(sizeof(TableWriter));

	/* What earlier steps of this transaction have written must be seen, what we write must not. */
	CommandCounterIncrement();
	PushCopiedSnapshot(GetActiveSnapshot());
	UpdateActiveSnapshotCommandId();

	writer->context = CurrentMemoryContext;
	writer->relation = relation;
	writer->snapshot = GetActiveSnapshot();
	writer->cid = GetCurrentCommandId(true);
	writer->has_constraints = RelationGetDescr(relation)->constr != NULL;
	writer->estate = CreateExecutorState();
	writer->rri = makeNode(ResultRelInfo);
	/* Index 0: there is no range table behind us, so nobody looks for permissions in it. */
	InitResultRelInfo(writer->rri, relation, 0, NULL, 0);
	ExecOpenIndices(writer->rri, false);
	init_live_columns(writer);
	if (rows_expected >= BULK_ROWS_MIN)
		writer->bulk = GetBulkInsertState();
	return writer;
}

void
table_writer_close(TableWriter *writer)
{
	table_writer_flush(writer);
	if (writer->bulk != NULL)
	{
		FreeBulkInsertState(writer->bulk);
		table_finish_bulk_insert(writer->relation, 0);
	}
	for (int i = 0; i < writer->buffered_slots; i++)
		ExecDropSingleTupleTableSlot(writer->buffered[i]);
	if (writer->slot != NULL)
		ExecDropSingleTupleTableSlot(writer->slot);
	ExecCloseIndices(writer->rri);
	FreeExecutorState(writer->estate);
	PopActiveSnapshot();
}

ApplyCounts
table_writer_counts(TableWriter *writer)
{
	ApplyCounts counts;

	counts.rows_inserted = writer->rows_inserted + writer->rows_updated;
	counts.rows_deleted = writer->rows_deleted + writer->rows_updated;
	counts.rows_updated = writer->rows_updated;
	return counts;
}

/* ------------------------------------------------------------------------------------------------
 * Layouts
 */

TupleDesc
table_live_tupdesc(Relation relation)
{
	TupleDesc columns = RelationGetDescr(relation);
	int		  nlive = 0;

	for (int i = 0; i < columns->natts; i++)
		nlive += !TupleDescAttr(columns, i)->attisdropped;

	TupleDesc live = CreateTemplateTupleDesc(nlive);

	nlive = 0;
	for (AttrNumber attno = 1; attno <= columns->natts; attno++)
	{
		if (!TupleDescAttr(columns, attno - 1)->attisdropped)
			TupleDescCopyEntry(live, ++nlive, columns, attno);
	}

	TupleDesc result = rowset_tupdesc_for(live);

	FreeTupleDesc(live);
	return result;
}

void
table_writer_read(TableWriter *writer, TupleTableSlot *found, bool flatten, Datum *values,
				  bool *nulls)
{
	TupleDesc tupdesc = RelationGetDescr(writer->relation);

	slot_getallattrs(found);
	for (int i = 0; i < writer->nlive; i++)
	{
		int column = writer->live_attnos != NULL ? writer->live_attnos[i] - 1 : i;

		values[i] = found->tts_values[column];
		nulls[i] = found->tts_isnull[column];
		if (flatten && !nulls[i] && TupleDescAttr(tupdesc, column)->attlen == -1 &&
			VARATT_IS_EXTERNAL(DatumGetPointer(values[i])))
			values[i] = PointerGetDatum(
				detoast_external_attr((struct varlena *) DatumGetPointer(values[i])));
	}
}

/* Puts a row in live layout into a slot of the table. */
static void
store_row(TableWriter *writer, TupleTableSlot *slot, const Datum *values, const bool *nulls)
{
	int natts = slot->tts_tupleDescriptor->natts;

	ExecClearTuple(slot);
	if (writer->live_attnos == NULL)
	{
		memcpy(slot->tts_values, values, natts * sizeof(Datum));
		memcpy(slot->tts_isnull, nulls, natts * sizeof(bool));
	}
	else
	{
		memset(slot->tts_isnull, true, natts * sizeof(bool));
		for (int i = 0; i < writer->nlive; i++)
		{
			slot->tts_values[writer->live_attnos[i] - 1] = values[i];
			slot->tts_isnull[writer->live_attnos[i] - 1] = nulls[i];
		}
	}
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = RelationGetRelid(writer->relation);
	if (writer->has_constraints)
		ExecConstraints(writer->rri, slot, writer->estate);
	if (writer->relation->rd_rel->relispartition)
		(void) ExecPartitionCheck(writer->rri, slot, writer->estate, true);
}

/* ------------------------------------------------------------------------------------------------
 * Inserts
 */

static void
insert_index_entries(TableWriter *writer, TupleTableSlot *slot)
{
	if (writer->rri->ri_NumIndices > 0)
	{
		list_free(compat_insert_index_entries(writer->rri, slot, writer->estate));
		ResetPerTupleExprContext(writer->estate);
	}
}

void
table_writer_flush(TableWriter *writer)
{
	int count = writer->buffered_count;

	if (count == 0)
		return;
	if (count == 1)
		table_tuple_insert(writer->relation, writer->buffered[0], writer->cid, 0, writer->bulk);
	else
	{
		/* It leaves memory behind that has to go sooner than our caller's. */
		MemoryContext oldcontext = MemoryContextSwitchTo(GetPerTupleMemoryContext(writer->estate));

		table_multi_insert(writer->relation, writer->buffered, count, writer->cid, 0, writer->bulk);
		MemoryContextSwitchTo(oldcontext);
		ResetPerTupleExprContext(writer->estate);
	}
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		insert_index_entries(writer, writer->buffered[i]);
		ExecClearTuple(writer->buffered[i]);
	}
	writer->buffered_count = 0;
	writer->buffered_bytes = 0;
}

/* A slot that lives as long as the writer, whatever the caller's context. */
static TupleTableSlot *
make_slot(TableWriter *writer)
{
	MemoryContext	oldcontext = MemoryContextSwitchTo(writer->context);
	TupleTableSlot *slot = table_slot_create(writer->relation, NULL);

	MemoryContextSwitchTo(oldcontext);
	return slot;
}

static TupleTableSlot *
next_buffered_slot(TableWriter *writer)
{
	if (writer->buffered == NULL)
		writer->buffered =
			MemoryContextAlloc(writer->context, BUFFERED_ROWS_MAX * sizeof(TupleTableSlot *));
	if (writer->buffered_count == writer->buffered_slots)
		writer->buffered[writer->buffered_slots++] = make_slot(writer);
	return writer->buffered[writer->buffered_count++];
}

void
table_writer_insert(TableWriter *writer, const Datum *values, const bool *nulls, int64 copies)
{
	for (int64 i = 0; i < copies; i++)
	{
		TupleTableSlot *slot = next_buffered_slot(writer);
		bool			should_free;

		CHECK_FOR_INTERRUPTS();
		store_row(writer, slot, values, nulls);
		/* The values belong to somebody who will not keep them until the flush. */
		ExecMaterializeSlot(slot);
		writer->buffered_bytes += ExecFetchSlotHeapTuple(slot, false, &should_free)->t_len;
		writer->rows_inserted++;
		if (writer->buffered_count == BUFFERED_ROWS_MAX ||
			writer->buffered_bytes >= BUFFERED_BYTES_MAX)
			table_writer_flush(writer);
	}
}

/* ------------------------------------------------------------------------------------------------
 * Updates and deletes
 */

/*
 * Nobody else may write to the table, by contract with our callers.  Should somebody have done so, trying again helps.
 */
static void
check_written(TableWriter *writer, TM_Result result)
{
	switch (result)
	{
		case TM_Ok:
			return;
		case TM_SelfModified:
		case TM_Invisible:
			elog(ERROR, "a delta changes a row of table \"%s\" twice",
				 RelationGetRelationName(writer->relation));
			return;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not change a row of table \"%s\" due to a concurrent update",
							RelationGetRelationName(writer->relation))));
	}
}

void
table_writer_delete(TableWriter *writer, TupleTableSlot *found)
{
	TM_FailureData failure;

	check_written(writer,
				  table_tuple_delete(writer->relation, &found->tts_tid, writer->cid,
									 writer->snapshot, InvalidSnapshot, true, &failure, false));
	writer->rows_deleted++;
}

/*
 * A large value that stays the same is passed on as it is stored.  Otherwise it would be compressed and
 * written out of line once more.
 */
static void
keep_stored_values(TableWriter *writer, TupleTableSlot *found)
{
	TupleTableSlot *slot = writer->slot;
	TupleDesc		tupdesc = slot->tts_tupleDescriptor;

	slot_getallattrs(found);
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);

		if (att->attlen != -1 || found->tts_isnull[i] || slot->tts_isnull[i])
			continue;

		struct varlena *stored = (struct varlena *) DatumGetPointer(found->tts_values[i]);

		if ((VARATT_IS_EXTERNAL(stored) || VARATT_IS_COMPRESSED(stored)) &&
			value_image_equal(att, found->tts_values[i], false, slot->tts_values[i], false))
			slot->tts_values[i] = found->tts_values[i];
	}
}

void
table_writer_update(TableWriter *writer, TupleTableSlot *found, const Datum *values,
					const bool *nulls)
{
	TM_FailureData		failure;
	LockTupleMode		lock_mode;
	CompatUpdateIndexes update_indexes;

	if (writer->slot == NULL)
		writer->slot = make_slot(writer);
	store_row(writer, writer->slot, values, nulls);
	keep_stored_values(writer, found);
	check_written(writer, table_tuple_update(writer->relation, &found->tts_tid, writer->slot,
											 writer->cid, writer->snapshot, InvalidSnapshot, true,
											 &failure, &lock_mode, &update_indexes));
	if (writer->rri->ri_NumIndices > 0 && update_indexes != COMPAT_UPDATE_NO_INDEXES)
	{
		list_free(
			compat_update_index_entries(writer->rri, writer->slot, writer->estate, update_indexes));
		ResetPerTupleExprContext(writer->estate);
	}
	ExecClearTuple(writer->slot);
	writer->rows_updated++;
}

/* ------------------------------------------------------------------------------------------------
 * Hidden writes
 */

void
table_write_tagged(bool hidden, void (*work)(void *argument), void *argument)
{
	RepOriginId origin = replorigin_session_origin;

	if (!hidden)
	{
		work(argument);
		return;
	}

	/* Session-wide, so it has to be put back whatever happens: abort would not do it. */
	PG_TRY();
	{
		replorigin_session_origin = DoNotReplicateId;
		work(argument);
	}
	PG_FINALLY();
	{
		replorigin_session_origin = origin;
	}
	PG_END_TRY();
}
