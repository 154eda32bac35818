/*
 * delta/redefine.c
 *     Another query for a stream table that exists, while others read it.
 *
 * The new contents are made beside, as a stream table of their own with a name nobody uses (create.c does all of it: `interest`, a
 * snapshot, the fill, state tables).  Only then is the old table locked, and only for what has to be done with it:
 *
 *     same columns       the difference between the two is applied to the old table          readers go on reading
 *     columns appended   the same, after ADD COLUMN                                          readers wait for the writing
 *     other columns      the new table takes the place of the old one (sql/41_redefine.sql)  readers wait for the swap
 *
 * Then the old definition takes over what the new one has found out: query, program, state tables, frontier, sources.  So for the applier the stream
 * table is one that was just filled by this transaction (docs/explanation/tick.md, section 7), which it tells by filled_xid: nothing
 * is missing, nothing comes twice.  Those who read the stream table get the difference through the stream like changes of any table.
 *
 * Two who redefine the same stream table do so one after the other: a lock that only they and VACUUM want is taken first, and what the
 * definition is by then is read behind it.
 *
 * Order of locks.  A refresh locks its stream table before the state tables (tick.c), and so do we.  A tick whose snapshot does not see
 * us finds the frontier changed and is tried again; it cannot have written, since it waited for our lock.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "apply.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "commands/tablecmds.h"
#include "compat.h"
#include "consolidate.h"
#include "create.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "privileged.h"
#include "immediate_switch.h"
#include "retain.h"
#include "run.h"
#include "state_tables.h"
#include "storage/lmgr.h"
#include "stream_table.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "wal_message.h"

PG_FUNCTION_INFO_V1(pgtrickle_redefine_stream_table);

typedef enum Shape
{
	SHAPE_SAME,
	SHAPE_APPENDED,
	SHAPE_OTHER
} Shape;

static const char *const what_was_done[] = {
	[SHAPE_SAME] = "replaced in place",
	[SHAPE_APPENDED] = "columns added",
	[SHAPE_OTHER] = "rebuilt",
};

typedef struct Redefinition
{
	int64		pgt_id;
	Oid			relid;
	Oid			owner;
	char	   *qualified_name;
	RowLocator	locator;		/* of the old table */
	bool		retained_history;	/* before; after: retain_is_wanted() */
	TimestampTz moment;			/* of the snapshot that the new rows equal */
	Shape		shape;
	CreateRequest beside;
} Redefinition;

static void
execute(const char *sql)
{
	int			result = SPI_execute(sql, false, 0);

	if (result < 0)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(result));
}

static void
execute_privileged(const char *sql)
{
	PrivilegedSection section;

	privileged_begin(&section);
	execute(sql);
	privileged_end(&section);
}

/* ---- what is there ---- */

/* Where rows of the old table are found.  Not by table_load: the old query need not compile any more. */
static void
read_old_definition(Redefinition *redefinition)
{
	PrivilegedSection section;
	MemoryContext context = CurrentMemoryContext;
	RowLocator *locator = &redefinition->locator;
	HeapTuple	row;
	TupleDesc	tupdesc;
	bool		isnull;
	Datum		attnos;

	privileged_begin(&section);
	if (SPI_execute(psprintf("SELECT relid, coalesce(key_index, 0), key_is_row_hash, key_attnos FROM pgtrickle.pgt_definitions"
							 " WHERE pgt_id = " INT64_FORMAT, redefinition->pgt_id), false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the catalog of stream tables");
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("stream table with id " INT64_FORMAT " does not exist", redefinition->pgt_id)));
	row = SPI_tuptable->vals[0];
	tupdesc = SPI_tuptable->tupdesc;
	redefinition->relid = DatumGetObjectId(SPI_getbinval(row, tupdesc, 1, &isnull));
	locator->index_oid = DatumGetObjectId(SPI_getbinval(row, tupdesc, 2, &isnull));
	locator->by_row_hash = DatumGetBool(SPI_getbinval(row, tupdesc, 3, &isnull));
	attnos = SPI_getbinval(row, tupdesc, 4, &isnull);
	{
		ArrayType  *array = DatumGetArrayTypeP(attnos);

		locator->nkeys = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
		locator->key_attnos = MemoryContextAlloc(context, sizeof(AttrNumber) * Max(locator->nkeys, 1));
		if (locator->nkeys > 0)
			memcpy(locator->key_attnos, ARR_DATA_PTR(array), sizeof(AttrNumber) * locator->nkeys);
	}
	privileged_end(&section);
}

static void
check_owner(Redefinition *redefinition)
{
	Relation	relation = try_table_open(redefinition->relid, AccessShareLock);

	if (relation == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("stream table with id " INT64_FORMAT " does not exist", redefinition->pgt_id)));
	redefinition->owner = relation->rd_rel->relowner;
	redefinition->beside.schema_name = get_namespace_name(RelationGetNamespace(relation));
	redefinition->qualified_name =
		pstrdup(quote_qualified_identifier(redefinition->beside.schema_name, RelationGetRelationName(relation)));
	table_close(relation, AccessShareLock);
	if (!compat_owns_relation(redefinition->relid, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of stream table \"%s\"", redefinition->qualified_name)));
}

/*
 * Waits for others who redefine the same stream table, one of whom may put another table in its place.  Not read-only: each look is to
 * see what has been committed meanwhile.
 */
static void
lock_and_read_definition(Redefinition *redefinition)
{
	Oid			locked;

	read_old_definition(redefinition);
	do
	{
		check_owner(redefinition);
		locked = redefinition->relid;
		LockRelationOid(locked, ShareUpdateExclusiveLock);
		read_old_definition(redefinition);
		if (redefinition->relid != locked)
			UnlockRelationOid(locked, ShareUpdateExclusiveLock);
	} while (redefinition->relid != locked);
	check_owner(redefinition);
}

/* The difference must be taken from what the table holds when it is locked, not from what it held when the transaction began. */
static void
check_isolation(void)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot change the query of a stream table in a transaction with one snapshot"),
				 errhint("Use the isolation level READ COMMITTED.")));
}

static bool
same_column(Form_pg_attribute have, Form_pg_attribute want)
{
	return !have->attisdropped && strcmp(NameStr(have->attname), NameStr(want->attname)) == 0 &&
		have->atttypid == want->atttypid && have->atttypmod == want->atttypmod && have->attcollation == want->attcollation;
}

static Shape
compare_shapes(Oid old_relid, Oid new_relid)
{
	Relation	old_table = table_open(old_relid, AccessShareLock);
	Relation	new_table = table_open(new_relid, AccessShareLock);
	TupleDesc	have = RelationGetDescr(old_table);
	TupleDesc	want = RelationGetDescr(new_table);
	Shape		shape = have->natts == want->natts ? SHAPE_SAME : have->natts < want->natts ? SHAPE_APPENDED : SHAPE_OTHER;

	for (int i = 0; i < have->natts && shape != SHAPE_OTHER; i++)
	{
		if (!same_column(TupleDescAttr(have, i), TupleDescAttr(want, i)))
			shape = SHAPE_OTHER;
	}
	table_close(new_table, AccessShareLock);
	table_close(old_table, AccessShareLock);
	return shape;
}

/* ---- in place ---- */

/* Not by SQL: the event trigger refuses ALTER TABLE ... ADD COLUMN on a stream table. */
static void
add_columns(Redefinition *redefinition)
{
	Relation	old_table = table_open(redefinition->relid, AccessExclusiveLock);
	Relation	new_table = table_open(redefinition->beside.relid, AccessShareLock);
	List	   *commands = NIL;

	for (int i = RelationGetDescr(old_table)->natts; i < RelationGetDescr(new_table)->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(RelationGetDescr(new_table), i);
		AlterTableCmd *command = makeNode(AlterTableCmd);

		command->subtype = AT_AddColumn;
		command->def = (Node *) makeColumnDef(NameStr(column->attname), column->atttypid, column->atttypmod,
											  column->attcollation);
		commands = lappend(commands, command);
	}
	table_close(new_table, NoLock);
	table_close(old_table, NoLock);
	AlterTableInternal(redefinition->relid, commands, false);
	CommandCounterIncrement();
}

static Oid
unique_or_not(Oid index, bool *is_unique)
{
	Relation	relation = OidIsValid(index) ? try_relation_open(index, AccessShareLock) : NULL;

	if (relation == NULL)
		return InvalidOid;
	*is_unique = relation->rd_rel->relkind == RELKIND_INDEX && relation->rd_index->indisunique;
	relation_close(relation, AccessShareLock);
	return index;
}

/* Does the index by which refreshes find rows serve the new query, too? */
static bool
key_stays(Redefinition *redefinition)
{
	const RowLocator *locator = &redefinition->locator;
	DeltaProgram *program = redefinition->beside.program;
	bool		is_unique = false;
	ListCell   *lc;

	if (program->single_row || !OidIsValid(unique_or_not(locator->index_oid, &is_unique)))
		return false;
	if (locator->by_row_hash)
		return program->key == NIL && redefinition->shape == SHAPE_SAME;
	if (locator->nkeys != list_length(program->key) || is_unique != program->key_is_unique)
		return false;
	foreach(lc, program->key)
	{
		if (locator->key_attnos[foreach_current_index(lc)] != lfirst_int(lc))
			return false;
	}
	return true;
}

/* The part of a net delta that comes, or that goes. */
static Rowset *
part_of(Rowset *delta, bool coming)
{
	Rowset	   *part = rowset_create(coming ? "__pgt_coming" : "__pgt_going", delta->tupdesc);
	TupleTableSlot *slot = rowset_make_slot(delta);

	rowset_rewind(delta);
	while (rowset_next(delta, slot))
	{
		if ((rowset_weight(delta, slot) > 0) == coming)
			rowset_put_slot(part, slot);
	}
	part->has_deletes = !coming;
	ExecDropSingleTupleTableSlot(slot);
	return part;
}

/*
 * The old index finds what has to go, and may be unique on a key that is none any more: what comes has to wait until it is gone.
 */
static void
apply_to_table(Redefinition *redefinition, const RowLocator *locator, Rowset *delta)
{
	Relation	relation = table_open(redefinition->relid, NoLock);
	bool		retains = redefinition->retained_history && retain_is_wanted(redefinition->pgt_id);
	Rowset	   *net = NULL;

	(void) apply_delta(relation, locator, delta, false, retains ? &net : NULL);
	table_close(relation, NoLock);
	CommandCounterIncrement();
	if (net == NULL)
		return;
	retain_changes(redefinition->pgt_id, redefinition->owner, net, redefinition->moment);
	rowset_free(net);
	CommandCounterIncrement();
}

static void
apply_with_new_key(Redefinition *redefinition, Rowset *difference)
{
	CreateRequest request = redefinition->beside;
	Rowset	   *going = part_of(difference, false);
	Rowset	   *coming = part_of(difference, true);
	RowLocator	nothing = {0};
	bool		is_unique;

	apply_to_table(redefinition, &redefinition->locator, going);
	execute_privileged(psprintf("UPDATE pgtrickle.pgt_definitions SET key_index = NULL, key_attnos = '{}', key_is_row_hash = false"
								" WHERE pgt_id = " INT64_FORMAT, redefinition->pgt_id));
	if (OidIsValid(unique_or_not(redefinition->locator.index_oid, &is_unique)))
		execute(psprintf("DROP INDEX %s",
						 quote_qualified_identifier(get_namespace_name(get_rel_namespace(redefinition->locator.index_oid)),
													get_rel_name(redefinition->locator.index_oid))));
	CommandCounterIncrement();
	apply_to_table(redefinition, &nothing, coming);
	request.pgt_id = redefinition->pgt_id;
	request.relid = redefinition->relid;
	request.qualified_name = redefinition->qualified_name;
	create_key_index(&request);
	rowset_free(going);
	rowset_free(coming);
}

static void
apply_difference(Redefinition *redefinition)
{
	Relation	relation = table_open(redefinition->relid, NoLock);
	Rowset	   *rows = rowset_create("__pgt_redefined", rowset_tupdesc_for(RelationGetDescr(relation)));
	Rowset	   *difference;

	table_close(relation, NoLock);

	PushCopiedSnapshot(GetTransactionSnapshot());
	UpdateActiveSnapshotCommandId();
	rowset_put_table(rows, redefinition->beside.relid, 1);
	rowset_put_table(rows, redefinition->relid, -1);
	rows->has_deletes = true;
	difference = consolidate(rows, "__pgt_difference");
	rowset_free(rows);
	if (key_stays(redefinition))
		apply_to_table(redefinition, &redefinition->locator, difference);
	else
		apply_with_new_key(redefinition, difference);
	rowset_free(difference);
	PopActiveSnapshot();
}

/*
 * An index on the hash of whole rows finds none any more once they have another column.  All rows change then, so they all go before.
 */
static void
delete_all_by_hash(Redefinition *redefinition)
{
	Relation	relation = table_open(redefinition->relid, NoLock);
	Rowset	   *rows = rowset_create("__pgt_going", rowset_tupdesc_for(RelationGetDescr(relation)));

	table_close(relation, NoLock);
	PushCopiedSnapshot(GetTransactionSnapshot());
	UpdateActiveSnapshotCommandId();
	rowset_put_table(rows, redefinition->relid, -1);
	rows->has_deletes = true;
	apply_to_table(redefinition, &redefinition->locator, rows);
	rowset_free(rows);
	PopActiveSnapshot();
}

/* ---- the catalog ---- */

/* The snapshot of the fill beside. */
static TimestampTz
moment_of_fill(int64 pgt_id)
{
	PrivilegedSection section;
	TimestampTz moment;
	bool		isnull;

	privileged_begin(&section);
	if (SPI_execute(psprintf("SELECT data_timestamp FROM pgtrickle.pgt_frontiers WHERE pgt_id = " INT64_FORMAT, pgt_id),
					false, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read the frontier of stream table " INT64_FORMAT, pgt_id);
	moment = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	privileged_end(&section);
	return moment;
}

/* The definition made beside goes over into the old one; `relid`: the table that has its rows from now on. */
static void
take_over_definition(Redefinition *redefinition, Oid relid)
{
	PrivilegedSection section;

	privileged_begin(&section);
	state_tables_drop(redefinition->pgt_id);
	CommandCounterIncrement();
	execute(psprintf("SELECT pgtrickle.take_over_definition(" INT64_FORMAT ", " INT64_FORMAT ", %u)",
					 redefinition->pgt_id, redefinition->beside.pgt_id, relid));
	privileged_end(&section);
	CommandCounterIncrement();
}

static void
build_beside(Redefinition *redefinition)
{
	CreateRequest *beside = &redefinition->beside;

	beside->relation_name = psprintf("__pgt_beside_" INT64_FORMAT, redefinition->pgt_id);
	beside->qualified_name = pstrdup(quote_qualified_identifier(beside->schema_name, beside->relation_name));
	beside->shown_name = redefinition->qualified_name;
	beside->initialize = true;
	beside->rows_only = true;
	/* what this transaction has written to sources before is in the fill that follows */
	(void) wal_message_emit(psprintf("filled " INT64_FORMAT, redefinition->pgt_id), true, false);
	create_stream_table(beside);
	CommandCounterIncrement();
	redefinition->retained_history = retain_is_wanted(redefinition->pgt_id);
	redefinition->moment = moment_of_fill(beside->pgt_id);
	redefinition->shape = compare_shapes(redefinition->relid, beside->relid);
}

static void
replace_in_place(Redefinition *redefinition)
{
	LockRelationOid(redefinition->relid,
					redefinition->shape == SHAPE_SAME ? ShareRowExclusiveLock : AccessExclusiveLock);
	if (redefinition->shape == SHAPE_APPENDED && redefinition->locator.by_row_hash)
		delete_all_by_hash(redefinition);
	if (redefinition->shape == SHAPE_APPENDED)
		add_columns(redefinition);
	take_over_definition(redefinition, redefinition->relid);
	apply_difference(redefinition);
	execute(psprintf("DROP TABLE %s", redefinition->beside.qualified_name));
	execute(psprintf("ANALYZE %s", redefinition->qualified_name));
}

static void
swap_in(Redefinition *redefinition)
{
	LockRelationOid(redefinition->relid, AccessExclusiveLock);
	create_key_index(&redefinition->beside);
	create_guard(&redefinition->beside);
	CommandCounterIncrement();
	take_over_definition(redefinition, redefinition->beside.relid);
	execute(psprintf("SELECT pgtrickle.swap_in(%u, %u, " INT64_FORMAT ", " INT64_FORMAT ")",
					 redefinition->relid, redefinition->beside.relid, redefinition->pgt_id, redefinition->beside.pgt_id));
	execute(psprintf("ANALYZE %s", redefinition->qualified_name));
}

static void
redefine(Redefinition *redefinition)
{
	Oid			saved_user;
	int			saved_context;

	GetUserIdAndSecContext(&saved_user, &saved_context);
	if (saved_user != redefinition->owner)
		SetUserIdAndSecContext(redefinition->owner, saved_context | SECURITY_LOCAL_USERID_CHANGE);
	build_beside(redefinition);
	if (redefinition->shape == SHAPE_OTHER)
		swap_in(redefinition);
	else
		replace_in_place(redefinition);
	SetUserIdAndSecContext(saved_user, saved_context);
}

/*
 * pgtrickle.redefine_stream_table(pgt_id bigint, query text, schedule text, refresh_mode text, options jsonb) returns text
 *
 * Gives a stream table of the caller another query, and says how.  Schedule, mode and options have been checked; options replace those
 * there are.
 */
Datum
pgtrickle_redefine_stream_table(PG_FUNCTION_ARGS)
{
	Redefinition redefinition = {0};
	PrivilegedSection section;

	redefinition.pgt_id = PG_GETARG_INT64(0);
	SPI_connect();
	check_isolation();
	immediate_lock_stream_table(redefinition.pgt_id);
	lock_and_read_definition(&redefinition);
	redefinition.beside.query = text_to_cstring(PG_GETARG_TEXT_PP(1));
	redefinition.beside.schedule = text_to_cstring(PG_GETARG_TEXT_PP(2));
	redefinition.beside.refresh_mode = text_to_cstring(PG_GETARG_TEXT_PP(3));
	redefinition.beside.options = PG_GETARG_DATUM(4);
	/* what the others have done while we waited is not in the snapshot of the statement that called us */
	PushActiveSnapshot(GetTransactionSnapshot());
	redefine(&redefinition);
	PopActiveSnapshot();
	privileged_begin(&section);
	execute("SELECT pgtrickle.definitions_changed()");
	execute(psprintf("SELECT pgtrickle.immediate_redefined(" INT64_FORMAT ")", redefinition.pgt_id));
	privileged_end(&section);
	SPI_finish();
	PG_RETURN_TEXT_P(cstring_to_text(what_was_done[redefinition.shape]));
}
