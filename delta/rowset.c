/*
 * delta/rowset.c
 *     A bag of rows with signed weights, held in a tuplestore.
 *
 * A rowset owns a memory context, child of the one that was current when it was made, with everything
 * in it: its name, its row type, the store and the rows.  Giving up a rowset that did not spill is then
 * one call, however many rows it has.  The context is of the generation kind: rows are packed without
 * rounding to powers of two, which holds twice as many of them in work_mem.
 *
 * What rows mean (cancelling, equality) is in consolidate.c.
 */
#include "rowset.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* A dropped column keeps its place; nobody can name it. */
static void
init_dropped_column(TupleDesc tupdesc, AttrNumber attno)
{
	char name[NAMEDATALEN];

	snprintf(name, sizeof(name), "........pg.dropped.%d........", attno);
	TupleDescInitBuiltinEntry(tupdesc, attno, name, INT4OID, -1, 0);
}

TupleDesc
rowset_tupdesc_for(TupleDesc columns)
{
	TupleDesc tupdesc = CreateTemplateTupleDesc(columns->natts + 1);

	for (AttrNumber attno = 1; attno <= columns->natts; attno++)
	{
		if (TupleDescAttr(columns, attno - 1)->attisdropped)
			init_dropped_column(tupdesc, attno);
		else
			TupleDescCopyEntry(tupdesc, attno, columns, attno);
	}
	TupleDescInitBuiltinEntry(tupdesc, tupdesc->natts, ROWSET_WEIGHT_COLUMN, INT4OID, -1, 0);
	return tupdesc;
}

Rowset *
rowset_create(const char *name, TupleDesc tupdesc)
{
	return rowset_create_limited(name, tupdesc, work_mem);
}

Rowset *
rowset_create_limited(const char *name, TupleDesc tupdesc, int memory_kb_max)
{
	MemoryContext context =
		GenerationContextCreate(CurrentMemoryContext, "pgtrickle rowset", ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	Rowset		 *rowset = palloc0(sizeof(Rowset));

	Assert(tupdesc->natts > 0);
	Assert(TupleDescAttr(tupdesc, tupdesc->natts - 1)->atttypid == INT4OID);

	rowset->context = context;
	rowset->name = pstrdup(name);
	rowset->tupdesc = CreateTupleDescCopy(tupdesc);
	rowset->values = palloc(tupdesc->natts * sizeof(Datum));
	rowset->nulls = palloc(tupdesc->natts * sizeof(bool));

	/* Readers (ours and the executor's) want to rewind, nobody reads backwards. */
	rowset->store = tuplestore_begin_heap(false, false, memory_kb_max);

	MemoryContextSwitchTo(oldcontext);
	return rowset;
}

void
rowset_free(Rowset *rowset)
{
	/* Files have to be closed; rows in memory go with the context, which is much faster. */
	if (!tuplestore_in_memory(rowset->store))
		tuplestore_end(rowset->store);
	MemoryContextDelete(rowset->context);
}

static void
count_row(Rowset *rowset, int32 weight)
{
	Assert(weight != 0);
	rowset->row_count++;
	if (weight < 0)
		rowset->has_deletes = true;
	else
		rowset->has_inserts = true;
}

void
rowset_put_values(Rowset *rowset, const Datum *values, const bool *nulls, int32 weight)
{
	int natts = rowset->tupdesc->natts - 1;

	memcpy(rowset->values, values, natts * sizeof(Datum));
	memcpy(rowset->nulls, nulls, natts * sizeof(bool));
	rowset->values[natts] = Int32GetDatum(weight);
	rowset->nulls[natts] = false;
	tuplestore_putvalues(rowset->store, rowset->tupdesc, rowset->values, rowset->nulls);
	count_row(rowset, weight);
}

void
rowset_put_slot(Rowset *rowset, TupleTableSlot *slot)
{
	int32 weight = rowset_weight(rowset, slot);

	tuplestore_puttupleslot(rowset->store, slot);
	count_row(rowset, weight);
}

void
rowset_put_table(Rowset *rowset, Oid relid, int32 weight)
{
	Relation		relation = table_open(relid, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	TableScanDesc	scan = table_beginscan(relation, GetActiveSnapshot(), 0, NULL);

	Assert(RelationGetDescr(relation)->natts == rowset->tupdesc->natts - 1);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		rowset_put_values(rowset, slot->tts_values, slot->tts_isnull, weight);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(relation, NoLock);
	rowset->has_deletes |= weight < 0;
}

void
rowset_put_slot_weighted(Rowset *rowset, TupleTableSlot *slot, int64 weight)
{
	Assert(weight != 0);

	if (weight == rowset_weight(rowset, slot)) /* the slot's row as it is? */
	{
		rowset_put_slot(rowset, slot);
		return;
	}
	slot_getallattrs(slot);
	while (weight != 0) /* a weight of more than 32 bits takes several rows */
	{
		int32 part = (int32) Min(Max(weight, -PG_INT32_MAX), PG_INT32_MAX);

		rowset_put_values(rowset, slot->tts_values, slot->tts_isnull, part);
		weight -= part;
	}
}

void
rowset_append(Rowset *rowset, Rowset *rows)
{
	TupleTableSlot *slot = rowset_make_slot(rows);

	rowset_rewind(rows);
	while (rowset_next(rows, slot))
		rowset_put_slot(rowset, slot);
	ExecDropSingleTupleTableSlot(slot);
}

TupleTableSlot *
rowset_make_slot(Rowset *rowset)
{
	return MakeSingleTupleTableSlot(rowset->tupdesc, &TTSOpsMinimalTuple);
}

/*
 * Scans in SQL have read pointers of their own and leave theirs selected; ours is the first one.
 */
void
rowset_rewind(Rowset *rowset)
{
	tuplestore_select_read_pointer(rowset->store, 0);
	tuplestore_rescan(rowset->store);
}

bool
rowset_next(Rowset *rowset, TupleTableSlot *slot)
{
	tuplestore_select_read_pointer(rowset->store, 0);
	return tuplestore_gettupleslot(rowset->store, true, false, slot);
}

bool
rowset_in_memory(Rowset *rowset)
{
	return tuplestore_in_memory(rowset->store);
}

int32
rowset_weight(Rowset *rowset, TupleTableSlot *slot)
{
	bool  isnull;
	Datum weight = slot_getattr(slot, rowset->tupdesc->natts, &isnull);

	/* A step of a delta program computes its weights, so a NULL or 0 is its fault, in any build. */
	if (isnull || DatumGetInt32(weight) == 0)
		elog(ERROR, "row without a weight in rowset \"%s\"", rowset->name);
	return DatumGetInt32(weight);
}

void
rowset_register(Rowset *rowset)
{
	EphemeralNamedRelation enr = &rowset->enr;

	enr->md.name = rowset->name;
	enr->md.reliddesc = InvalidOid;
	enr->md.tupdesc = rowset->tupdesc;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = (double) rowset->row_count;
	enr->reldata = rowset->store;

	int result = SPI_register_relation(enr);

	if (result != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register rowset \"%s\": %s", rowset->name,
			 SPI_result_code_string(result));
}

void
rowset_unregister(Rowset *rowset)
{
	int result = SPI_unregister_relation(rowset->name);

	if (result != SPI_OK_REL_UNREGISTER)
		elog(ERROR, "could not unregister rowset \"%s\": %s", rowset->name,
			 SPI_result_code_string(result));
}
