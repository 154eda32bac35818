/*
 * delta/copy_target.c
 *     A table that takes in the changes of a remote's table: what both kinds of it have in common.
 *
 * Rows are written without SQL, as those of stream tables are (table_writer.c).  What was written is kept as a delta for the stream tables of the
 * same tick; two changes that cancel each other may both be in it, since programs take any bag that adds up.
 *
 * A truncation deletes the rows one by one: TRUNCATE would show an empty table to those who still read by an older snapshot.
 */
#include "copy_target.h"

#include "access/table.h"
#include "access/tableam.h"
#include "copy_filter.h"
#include "copy_swap.h"
#include "miscadmin.h"
#include "row_text.h"
#include "table_writer.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

/* ---- the scope ---- */

void
copy_scope_enter(CopyScope *scope, const CopyDefinition *definition)
{
	GetUserIdAndSecContext(&scope->saved_user, &scope->saved_context);
	SetUserIdAndSecContext(definition->owner,
						   scope->saved_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
}

void
copy_scope_leave(const CopyScope *scope)
{
	SetUserIdAndSecContext(scope->saved_user, scope->saved_context);
}

/* ---- making ---- */

int
copy_target_column(CopyTarget *target, AttrNumber attno)
{
	return target->copied[attno];
}

/* The copy and its load table have the same columns, but only the copy can have dropped ones between them. */
static void
init_copied(CopyTarget *target, Relation copy)
{
	TupleDesc	columns = RelationGetDescr(copy);
	int			nlive = 0;

	target->copied = palloc0((columns->natts + 1) * sizeof(int));
	for (AttrNumber attno = 1; attno <= columns->natts; attno++)
	{
		target->copied[attno] = nlive;
		nlive += !TupleDescAttr(columns, attno - 1)->attisdropped;
	}
	if (nlive != target->columns->natts)
		elog(ERROR, "copy %s and its load table have different columns", target->definition->name);
}

static void
init_key(CopyTarget *target)
{
	const RowLocator *locator = &target->definition->locator;

	target->locator = *locator;
	target->locator.key_attnos = palloc0((locator->nkeys + 1) * sizeof(AttrNumber));
	target->key_columns = palloc0((locator->nkeys + 1) * sizeof(int));
	for (int i = 0; i < locator->nkeys; i++)
	{
		target->key_columns[i] = target->copied[locator->key_attnos[i]];
		target->locator.key_attnos[i] = target->attnos[target->key_columns[i]];
	}
}

static void
init_columns(CopyTarget *target, Relation relation)
{
	TupleDesc	columns = RelationGetDescr(relation);
	int			nlive = 0;

	target->attnos = palloc0((columns->natts + 1) * sizeof(AttrNumber));
	for (AttrNumber attno = 1; attno <= columns->natts; attno++)
	{
		if (!TupleDescAttr(columns, attno - 1)->attisdropped)
			target->attnos[nlive++] = attno;
	}
	target->columns = CreateTemplateTupleDesc(nlive);
	for (int i = 0; i < nlive; i++)
		TupleDescCopyEntry(target->columns, i + 1, columns, target->attnos[i]);
}

/* A condition is about attributes of the copy, also where rows of its load table are looked at. */
static CopyFilter *
make_filter(CopyTarget *target, Relation copy)
{
	TupleDesc	columns = RelationGetDescr(copy);
	AttrNumber *attnos = palloc0((columns->natts + 1) * sizeof(AttrNumber));
	int			nlive = 0;

	for (AttrNumber attno = 1; attno <= columns->natts; attno++)
	{
		if (!TupleDescAttr(columns, attno - 1)->attisdropped)
			attnos[nlive++] = attno;
	}
	return copy_filter_create(target->definition->row_filter, target->definition->relid, attnos, nlive);
}

/* That of the load table by which its rows are found, which copy_done() made; if the copy's has another OID since, table_index.c tells by the columns. */
static Oid
load_index(const CopyDefinition *definition)
{
	Oid			index = copy_swap_twin(definition->load_table, definition->locator.index_oid);

	return OidIsValid(index) ? index : definition->locator.index_oid;
}

CopyTarget *
copy_target_create(CopyDefinition *definition, Oid relid, bool catches_up, bool hidden, bool wants_net,
				   MemoryContext context)
{
	MemoryContext own_context = AllocSetContextCreate(context, "pgtrickle copy", ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(own_context);
	CopyTarget *target = palloc0(sizeof(CopyTarget));
	Relation	copy = table_open(definition->relid, RowExclusiveLock);
	Relation	relation = relid == definition->relid ? copy : table_open(relid, RowExclusiveLock);

	target->definition = definition;
	target->relid = relid;
	target->catches_up = catches_up;
	target->hidden = hidden;
	target->wants_net = wants_net;
	target->context = own_context;
	target->passes_through = definition->passes_through && relid == definition->relid;
	init_columns(target, relation);
	init_copied(target, copy);
	init_key(target);
	if (definition->row_filter != NULL)
		target->filter = make_filter(target, copy);
	if (relation != copy)
	{
		target->locator.index_oid = load_index(definition);
		table_close(relation, NoLock);
	}
	table_close(copy, NoLock);
	if (definition->has_key && !target->passes_through)
		copy_keyed_init(target);
	MemoryContextSwitchTo(oldcontext);
	return target;
}

/* ---- changes ---- */

void
copy_target_change(CopyTarget *target, const CopyChange *change)
{
	target->changes++;
	if (target->states != NULL)
		copy_keyed_change(target, change);
	else
		copy_bag_change(target, change);
}

void
copy_target_truncate(CopyTarget *target)
{
	target->changes++;
	if (target->passes_through)
		ereport(ERROR,
				(errcode(ERRCODE_COPY_NOT_EQUAL),
				 errmsg("table %s was truncated, and copy %s does not have its rows", target->definition->remote_name,
						target->definition->name)));
	if (target->states != NULL)
		copy_keyed_forget(target);
	else
		copy_bag_forget(target);
	copy_target_delete_all(target);
}

void
copy_target_finish(CopyTarget *target)
{
	if (target->states != NULL)
		copy_keyed_finish(target);
	else
		copy_bag_finish(target);
}

void
copy_target_release(CopyTarget *target)
{
	if (target->filter != NULL)
		copy_filter_free(target->filter);
	if (target->net != NULL)
		rowset_free(target->net);
	if (target->bag != NULL)
		rowset_free(target->bag);
	MemoryContextDelete(target->context);
}

/* ---- what was written ---- */

/* Files that it spills to stay open until the transaction ends or it is released. */
Rowset *
copy_target_make_rowset(CopyTarget *target, const char *name, TupleDesc tupdesc)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(target->context);
	ResourceOwner oldowner = CurrentResourceOwner;
	Rowset	   *rowset;

	CurrentResourceOwner = CurTransactionResourceOwner;
	rowset = rowset_create(name, tupdesc);
	CurrentResourceOwner = oldowner;
	MemoryContextSwitchTo(oldcontext);
	return rowset;
}

static void
make_net(CopyTarget *target)
{
	Relation	relation = table_open(target->relid, NoLock);
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "__pgt_delta_%u", target->relid);
	target->net = copy_target_make_rowset(target, name, rowset_tupdesc_for(RelationGetDescr(relation)));
	table_close(relation, NoLock);
}

void
copy_target_put_net(CopyTarget *target, const Datum *values, const bool *nulls, int32 weight)
{
	int			natts;
	Datum	   *row_values;
	bool	   *row_nulls;

	if (!target->wants_net)
		return;
	if (target->net == NULL)
		make_net(target);
	natts = target->net->tupdesc->natts - 1;
	if (natts == target->columns->natts)
	{
		rowset_put_values(target->net, values, nulls, weight);
		return;
	}
	row_values = palloc0(natts * sizeof(Datum));
	row_nulls = palloc(natts * sizeof(bool));
	memset(row_nulls, true, natts * sizeof(bool));
	for (int i = 0; i < target->columns->natts; i++)
	{
		row_values[target->attnos[i] - 1] = values[i];
		row_nulls[target->attnos[i] - 1] = nulls[i];
	}
	rowset_put_values(target->net, row_values, row_nulls, weight);
	pfree(row_values);
	pfree(row_nulls);
}

void
copy_target_count(CopyTarget *target, ApplyCounts counts)
{
	target->counts.rows_inserted += counts.rows_inserted;
	target->counts.rows_deleted += counts.rows_deleted;
	target->counts.rows_updated += counts.rows_updated;
}

void
copy_target_report(CopyTarget *target, const char *what, const Datum *values, const bool *nulls)
{
	CopyDefinition *definition = target->definition;
	const RowLocator *locator = &definition->locator;
	char	   *row;

	if (definition->has_key)
	{
		AttrNumber	columns[INDEX_MAX_KEYS];
		Datum		keys[INDEX_MAX_KEYS];
		bool		key_nulls[INDEX_MAX_KEYS];

		for (int i = 0; i < locator->nkeys; i++)
		{
			columns[i] = target->key_columns[i] + 1;
			keys[i] = values[target->key_columns[i]];
			key_nulls[i] = nulls[target->key_columns[i]];
		}
		row = row_text_key(target->columns, locator->nkeys, columns, keys, key_nulls);
	}
	else
		row = row_text_row(target->columns, target->columns->natts, values, nulls);
	ereport(ERROR,
			(errcode(ERRCODE_COPY_NOT_EQUAL),
			 errmsg("copy %s %s", definition->name, what),
			 errdetail("Row: %s.", row)));
}

/* ---- deleting everything ---- */

static void
delete_rows(void *argument)
{
	CopyTarget *target = argument;
	Relation	relation = table_open(target->relid, NoLock);
	TableWriter *writer = table_writer_open(relation, 0);
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	TableScanDesc scan = table_beginscan(relation, writer->snapshot, 0, NULL);
	Datum	   *values = palloc0((target->columns->natts + 1) * sizeof(Datum));
	bool	   *nulls = palloc0((target->columns->natts + 1) * sizeof(bool));

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (target->wants_net)
		{
			table_writer_read(writer, slot, false, values, nulls);
			copy_target_put_net(target, values, nulls, -1);
		}
		table_writer_delete(writer, slot);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_writer_close(writer);
	copy_target_count(target, table_writer_counts(writer));
	table_close(relation, NoLock);
}

void
copy_target_delete_all(CopyTarget *target)
{
	table_write_tagged(target->hidden, delete_rows, target);
}
