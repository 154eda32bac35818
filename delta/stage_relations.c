/*
 * delta/stage_relations.c
 *     What the stream says a relation looks like, matched with what somebody expects of it.
 *
 * Columns are matched by name, because partitions order theirs as they like and attribute numbers differ.  The types
 * have to be the ones of the expected relation now: a value of yesterday's type would still be readable, but the
 * table's rows have been rewritten since, so its delta would be wrong.
 */
#include "stage_relations.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

StageExpectation *
stage_expectation_create(int set, Oid relid, bool only)
{
	StageExpectation *expectation = palloc0(sizeof(StageExpectation));
	Relation		  relation = try_table_open(relid, AccessShareLock);

	expectation->set = set;
	expectation->relid = relid;
	expectation->only = only;
	if (relation == NULL)
	{
		expectation->obstacle = STAGE_SHAPE_CHANGED;
		return expectation;
	}
	expectation->owner_id = relation->rd_rel->relowner;
	expectation->columns = CreateTupleDescCopy(RelationGetDescr(relation));
	expectation->tupdesc = rowset_tupdesc_for(expectation->columns);
	expectation->values = palloc0(Max(expectation->columns->natts, 1) * sizeof(Datum));
	expectation->nulls = palloc(Max(expectation->columns->natts, 1) * sizeof(bool));
	memset(expectation->nulls, true, expectation->columns->natts * sizeof(bool));
	table_close(relation, NoLock);
	return expectation;
}

void
stage_expectation_set_obstacle(StageExpectation *expectation, StageObstacle obstacle)
{
	if (expectation->obstacle != STAGE_USABLE)
		return;
	expectation->obstacle = obstacle;
	if (expectation->rowset != NULL)
		rowset_free(expectation->rowset);
	expectation->rowset = NULL;
}

/* ------------------------------------------------------------------------------------------------
 * Relations
 */

static char *
copy_text(ByteRange bytes)
{
	return pnstrdup((const char *) bytes.data, bytes.length);
}

static void
read_columns(StageRelation *relation, const RelationView *view)
{
	ColumnReader reader = column_reader(view);
	ColumnView	 column;

	relation->columns = palloc0(Max(view->column_count, 1) * sizeof(StageColumn));
	while (column_next(&reader, &column))
	{
		relation->columns[relation->ncolumns++] = (StageColumn){.name = copy_text(column.name),
																.attnum = column.attnum,
																.type = column.type_oid,
																.typmod = column.type_modifier,
																.encoding = column.encoding,
																.in_identity = column.in_identity};
	}
	Assert(relation->ncolumns == (int) view->column_count);
}

static void
read_publish_as(StageRelation *relation, const RelationView *view)
{
	RelidReader reader = publish_as_reader(view);
	uint32_t	relid;

	while (relid_next(&reader, &relid))
		relation->publish_as = lappend_oid(relation->publish_as, relid);
}

StageRelation *
stage_relation_create(const RecordView *record)
{
	const RelationView *view = &record->relation_def;

	if (view->column_count > MaxTupleAttributeNumber)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("relation in the change stream has %u columns", view->column_count)));

	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pgtrickle staged relation",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	StageRelation *relation = palloc0(sizeof(StageRelation));
	uint8_t		  *encoded = palloc(record->encoded.length);

	memcpy(encoded, record->encoded.data, record->encoded.length);
	relation->context = context;
	relation->encoded = byte_range(encoded, record->encoded.length);
	relation->number = view->number;
	relation->relid = view->relid;
	relation->name =
		quote_qualified_identifier(copy_text(view->schema_name), copy_text(view->relation_name));
	read_publish_as(relation, view);
	read_columns(relation, view);
	relation->old_values = palloc(Max(relation->ncolumns, 1) * sizeof(TupleValue));
	relation->new_values = palloc(Max(relation->ncolumns, 1) * sizeof(TupleValue));
	relation->binding_context =
		AllocSetContextCreate(context, "pgtrickle staged relation's binding", ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(oldcontext);
	return relation;
}

void
stage_relation_free(StageRelation *relation)
{
	MemoryContextDelete(relation->context);
}

const char *
stage_relation_read_row(const StageRelation *relation, ByteRange row, TupleValue *values,
						const uint8_t **error_at)
{
	TupleReader reader = tuple_reader(row, relation->ncolumns);
	TupleValue	beyond;

	for (int i = 0; i < relation->ncolumns; i++)
	{
		if (!tuple_next_value(&reader, &values[i]))
		{
			*error_at = reader.fields.error_at;
			return reader.fields.error;
		}
	}
	(void) tuple_next_value(&reader, &beyond);
	*error_at = reader.fields.error_at;
	return reader.fields.error;
}

/* ------------------------------------------------------------------------------------------------
 * Bindings
 */

/* The same type, or a domain over it: a partition's column may be either. */
static bool
types_match(StageColumn *column, Form_pg_attribute att)
{
	Oid	  type = column->type;
	int32 typmod = column->typmod;
	int32 wanted_typmod = att->atttypmod;

	if (type == att->atttypid)
		return typmod == wanted_typmod;
	if (!SearchSysCacheExists1(TYPEOID, ObjectIdGetDatum(type))) /* dropped meanwhile? */
		return false;
	return getBaseTypeAndTypmod(type, &typmod) ==
			   getBaseTypeAndTypmod(att->atttypid, &wanted_typmod) &&
		   typmod == wanted_typmod;
}

static int
find_column(StageRelation *relation, const char *name)
{
	for (int i = 0; i < relation->ncolumns; i++)
	{
		if (strcmp(relation->columns[i].name, name) == 0)
			return i;
	}
	return -1;
}

static bool
bind_column(StageBinding *binding, StageRelation *relation, AttrNumber attno)
{
	TupleDesc columns = binding->expectation->columns;

	if (attno > columns->natts || TupleDescAttr(columns, attno - 1)->attisdropped)
		return false;

	Form_pg_attribute att = TupleDescAttr(columns, attno - 1);
	int				  source = find_column(relation, NameStr(att->attname));

	if (source < 0 || !types_match(&relation->columns[source], att))
		return false;

	BoundColumn *column = &binding->columns[binding->ncolumns++];

	column->source = source;
	column->target = attno - 1;
	if (!relation->columns[source].in_identity)
		binding->within_identity = false;
	value_decoder_init(&column->decoder, att->atttypid, att->atttypmod,
					   relation->columns[source].encoding, relation->binding_context);
	return true;
}

static StageBinding *
bind_expectation(StageRelation *relation, StageExpectation *expectation)
{
	StageBinding *binding = palloc0(sizeof(StageBinding));
	int			  attno = -1;

	binding->expectation = expectation;
	binding->within_identity = true;
	if (expectation->obstacle != STAGE_USABLE)
		return binding;
	binding->columns =
		palloc0(Max(bms_num_members(expectation->used_attnos), 1) * sizeof(BoundColumn));
	while ((attno = bms_next_member(expectation->used_attnos, attno)) >= 0)
	{
		if (!bind_column(binding, relation, attno))
		{
			stage_expectation_set_obstacle(expectation, STAGE_SHAPE_CHANGED);
			break;
		}
	}
	return binding;
}

void
stage_relation_bind(StageRelation *relation, int set, List *expectations)
{
	MemoryContext oldcontext;
	ListCell	 *lc;

	/* Incomplete until the end: an error on the way must not leave it looking bound. */
	relation->is_bound = false;
	relation->bindings = NIL;
	MemoryContextReset(relation->binding_context);
	oldcontext = MemoryContextSwitchTo(relation->binding_context);
	foreach(lc, expectations)
	{
		StageExpectation *expectation = lfirst(lc);

		if (expectation->set == set && list_member_oid(relation->publish_as, expectation->relid) &&
			(!expectation->only || relation->relid == expectation->relid))
			relation->bindings =
				lappend(relation->bindings, bind_expectation(relation, expectation));
	}
	MemoryContextSwitchTo(oldcontext);
	relation->bound_set = set;
	relation->is_bound = true;
}
