/*
 * delta/stage.c
 *     From records of the change stream to rowsets: the entrance of a tick.
 *
 *     bytes --records.c--> record --its relation's bindings--> used columns --stage_values.c--> rowset
 *
 * One pass, one row at a time, nothing kept but the rowsets.  A row's bytes are walked over once to find its
 * values; only used columns are turned into datums, and those of an update only when some of them differ: equal bytes
 * are equal values, since a type's send function knows nothing but the value.
 *
 * What cannot be told from the records is an obstacle, not an error: it ends the delta of this
 * relation in this change set, and its stream tables are refreshed in full.
 *
 * The rowsets outlive the statement that fills them, so their files belong to the transaction.
 */
#include "stage.h"

#include "common/hashfn.h"
#include "compat.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "records.h"
#include "stage_relations.h"
#include "utils/resowner.h"

typedef struct RelationEntry
{
	uint32		   number;
	char		   status;
	StageRelation *relation;
} RelationEntry;

#define SH_PREFIX relations
#define SH_ELEMENT_TYPE RelationEntry
#define SH_KEY_TYPE uint32
#define SH_KEY number
#define SH_HASH_KEY(tb, key) murmurhash32(key)
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct Stage
{
	MemoryContext	context;
	ResourceOwner	owner; /* of the rowsets' files */
	List		   *expectations; /* of StageExpectation */
	relations_hash *relations;
	StageRelation  *last_relation; /* of the last row record: the next one's is likely the same */
	bool			has_records;
	MemoryContext	row_context; /* reset after each record */
	StringInfoData	scratch; /* for one value */
};

/* One call of stage_append: for messages too. */
typedef struct StageInput
{
	Stage		  *stage;
	int			   set;
	const uint8_t *data;
	size_t		   length;
	StageRelation *relation; /* of the present record, if it is a row */
	const char	  *column_name; /* of the present value */
} StageInput;

/* ------------------------------------------------------------------------------------------------
 * Creating, expecting, giving back
 */

Stage *
stage_create(void)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "pgtrickle stage", ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	Stage		 *stage = palloc0(sizeof(Stage));

	stage->context = context;
	stage->owner = CurTransactionResourceOwner;
	stage->relations = relations_create(context, 64, NULL);
	stage->row_context =
		AllocSetContextCreate(context, "pgtrickle staged row", ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&stage->scratch);
	MemoryContextSwitchTo(oldcontext);
	return stage;
}

void
stage_free(Stage *stage)
{
	ListCell *lc;

	foreach(lc, stage->expectations)
	{
		StageExpectation *expectation = lfirst(lc);

		if (expectation->rowset != NULL)
			rowset_free(expectation->rowset);
	}
	MemoryContextDelete(stage->context);
}

static StageExpectation *
find_expectation(Stage *stage, int set, Oid relid, bool only)
{
	ListCell *lc;

	foreach(lc, stage->expectations)
	{
		StageExpectation *expectation = lfirst(lc);

		if (expectation->set == set && expectation->relid == relid && expectation->only == only)
			return expectation;
	}
	return NULL;
}

void
stage_expect(Stage *stage, int set, Oid relid, bool only, const Bitmapset *used_attnos)
{
	StageExpectation *expectation = find_expectation(stage, set, relid, only);
	MemoryContext	  oldcontext = MemoryContextSwitchTo(stage->context);

	if (stage->has_records)
		elog(ERROR, "changes of relation %u are expected too late", relid);
	if (expectation == NULL)
	{
		expectation = stage_expectation_create(set, relid, only);
		stage->expectations = lappend(stage->expectations, expectation);
	}
	expectation->used_attnos = bms_add_members(expectation->used_attnos, used_attnos);
	if (bms_is_member(0, used_attnos))
		elog(ERROR, "the whole row of relation %u is expected instead of its columns", relid);
	MemoryContextSwitchTo(oldcontext);
}

Rowset *
stage_rowset(Stage *stage, int set, Oid relid, bool only, StageObstacle *obstacle)
{
	StageExpectation *expectation = find_expectation(stage, set, relid, only);

	if (expectation == NULL)
		elog(ERROR, "changes of relation %u were not expected in change set %d", relid, set);
	*obstacle = expectation->obstacle;
	return expectation->rowset;
}

const char *
stage_obstacle_reason(StageObstacle obstacle)
{
	switch (obstacle)
	{
		case STAGE_USABLE:
			return "the changes can be used";
		case STAGE_TRUNCATED:
			return "the source was truncated";
		case STAGE_OLD_ROW_MISSING:
			return "a change came without its old row";
		case STAGE_VALUE_MISSING:
			return "a change came without one of its values";
		case STAGE_SHAPE_CHANGED:
			return "the source's columns have changed";
	}
	elog(ERROR, "unknown obstacle %d", (int) obstacle);
}

/* ------------------------------------------------------------------------------------------------
 * Rows
 */

static Rowset *
make_rowset(Stage *stage, StageExpectation *expectation)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(stage->context);
	ResourceOwner oldowner = CurrentResourceOwner;
	char		  name[NAMEDATALEN];

	snprintf(name, sizeof(name), "__pgt_delta_%u%s", expectation->relid, expectation->only ? "_only" : "");
	CurrentResourceOwner = stage->owner;
	expectation->rowset = rowset_create(name, expectation->tupdesc);
	CurrentResourceOwner = oldowner;
	MemoryContextSwitchTo(oldcontext);
	return expectation->rowset;
}

/* A row's values are known to be present or NULL. */
static void
put_row(StageInput *input, StageBinding *binding, TupleValue *values, int32 weight)
{
	StageExpectation *expectation = binding->expectation;
	MemoryContext	  oldcontext = MemoryContextSwitchTo(input->stage->row_context);

	for (int i = 0; i < binding->ncolumns; i++)
	{
		BoundColumn *column = &binding->columns[i];
		TupleValue	*value = &values[column->source];

		expectation->nulls[column->target] = value->kind == VALUE_NULL;
		if (value->kind == VALUE_NULL)
			continue;
		input->column_name = input->relation->columns[column->source].name;
		expectation->values[column->target] =
			value_decode(&column->decoder, value->bytes, &input->stage->scratch);
	}
	input->column_name = NULL;
	MemoryContextSwitchTo(oldcontext);
	rowset_put_values(expectation->rowset != NULL ? expectation->rowset
												  : make_rowset(input->stage, expectation),
					  expectation->values, expectation->nulls, weight);
}

/* ------------------------------------------------------------------------------------------------
 * Row records
 */

static void
report_bad_row(StageInput *input, const char *error, const uint8_t *at)
{
	ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION),
					errmsg("could not read a change to table %s: %s", input->relation->name, error),
					errdetail("Byte %zu of %zu, change set %d.", (size_t) (at - input->data),
							  input->length, input->set)));
}

/* Finds the values of a row; a row that is not there has none. */
static void
read_row(StageInput *input, ByteRange row, TupleValue *values)
{
	const uint8_t *error_at;
	const char	  *error = stage_relation_read_row(input->relation, row, values, &error_at);

	if (error != NULL)
		report_bad_row(input, error, error_at);
}

/*
 * Whether the old row has all used columns.  Columns outside of the replica identity are missing as a
 * matter of course when only the key was logged; others are missing because they were too large.
 */
static StageObstacle
check_old_row(StageInput *input, StageBinding *binding, const RecordView *record)
{
	if (binding->ncolumns == 0)
		return STAGE_USABLE;
	if (record->old_row.data == NULL)
		return STAGE_OLD_ROW_MISSING;
	for (int i = 0; i < binding->ncolumns; i++)
	{
		int		  source = binding->columns[i].source;
		ValueKind kind = input->relation->old_values[source].kind;

		if (kind == VALUE_UNCHANGED)
			report_bad_row(input, "an old row has an unchanged value", record->old_row.data);
		if (kind != VALUE_NOT_LOGGED)
			continue;
		if ((record->flaws & FLAW_OLD_ROW_KEY_ONLY) &&
			!input->relation->columns[source].in_identity)
			return STAGE_OLD_ROW_MISSING;
		return STAGE_VALUE_MISSING;
	}
	return STAGE_USABLE;
}

/* Completes the new row's used columns from the old row, which has been checked. */
static StageObstacle
check_new_row(StageInput *input, StageBinding *binding, const RecordView *record)
{
	for (int i = 0; i < binding->ncolumns; i++)
	{
		int			source = binding->columns[i].source;
		TupleValue *value = &input->relation->new_values[source];

		if (value->kind == VALUE_NOT_LOGGED)
			return STAGE_VALUE_MISSING;
		if (value->kind != VALUE_UNCHANGED)
			continue;
		if (record->kind != KIND_UPDATE)
			report_bad_row(input, "an inserted row has an unchanged value", record->new_row.data);
		*value = input->relation->old_values[source];
	}
	return STAGE_USABLE;
}

static bool
used_values_equal(StageInput *input, StageBinding *binding)
{
	for (int i = 0; i < binding->ncolumns; i++)
	{
		TupleValue *old_value = &input->relation->old_values[binding->columns[i].source];
		TupleValue *new_value = &input->relation->new_values[binding->columns[i].source];

		if (old_value->kind != new_value->kind ||
			old_value->bytes.length != new_value->bytes.length)
			return false;
		if (old_value->bytes.length > 0 && old_value->bytes.data != new_value->bytes.data &&
			memcmp(old_value->bytes.data, new_value->bytes.data, old_value->bytes.length) != 0)
			return false;
	}
	return true;
}

static StageObstacle
take_insert(StageInput *input, StageBinding *binding, const RecordView *record)
{
	StageObstacle obstacle = check_new_row(input, binding, record);

	if (obstacle == STAGE_USABLE)
		put_row(input, binding, input->relation->new_values, 1);
	return obstacle;
}

static StageObstacle
take_delete(StageInput *input, StageBinding *binding, const RecordView *record)
{
	StageObstacle obstacle = check_old_row(input, binding, record);

	if (obstacle == STAGE_USABLE)
		put_row(input, binding, input->relation->old_values, -1);
	return obstacle;
}

static StageObstacle
take_update(StageInput *input, StageBinding *binding, const RecordView *record)
{
	/* The server leaves the old row out when the replica identity's columns have not changed. */
	if (record->old_row.data == NULL && binding->within_identity)
		return STAGE_USABLE;

	StageObstacle obstacle = check_old_row(input, binding, record);

	if (obstacle == STAGE_USABLE)
		obstacle = check_new_row(input, binding, record);
	if (obstacle == STAGE_USABLE && !used_values_equal(input, binding))
	{
		put_row(input, binding, input->relation->old_values, -1);
		put_row(input, binding, input->relation->new_values, 1);
	}
	return obstacle;
}

static StageObstacle
take_row(StageInput *input, StageBinding *binding, const RecordView *record)
{
	switch (record->kind)
	{
		case KIND_INSERT:
			return take_insert(input, binding, record);
		case KIND_UPDATE:
			return take_update(input, binding, record);
		case KIND_DELETE:
			return take_delete(input, binding, record);
		default:
			elog(ERROR, "record of kind %d is not a row", (int) record->kind);
	}
}

/*
 * Receive functions can run code of users: an array of a domain checks the domain's constraints.  We are
 * the extension's owner here; that code must not be.
 */
static StageObstacle
take_row_as_owner(StageInput *input, StageBinding *binding, const RecordView *record)
{
	Oid			  saved_user;
	int			  saved_context;
	StageObstacle obstacle;

	GetUserIdAndSecContext(&saved_user, &saved_context);
	SetUserIdAndSecContext(binding->expectation->owner_id,
						   saved_context | SECURITY_LOCAL_USERID_CHANGE |
							   SECURITY_RESTRICTED_OPERATION);
	obstacle = take_row(input, binding, record);
	SetUserIdAndSecContext(saved_user, saved_context);
	return obstacle;
}

static StageRelation *
find_relation(StageInput *input, uint32 number)
{
	Stage *stage = input->stage;

	if (stage->last_relation != NULL && stage->last_relation->number == number)
		return stage->last_relation;

	RelationEntry *entry = relations_lookup(stage->relations, number);

	if (entry == NULL)
		ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION),
						errmsg("could not read a change: relation number %u has not been described",
							   number),
						errdetail("Change set %d.", input->set)));
	stage->last_relation = entry->relation;
	return entry->relation;
}

static void
append_row(StageInput *input, const RecordView *record)
{
	StageRelation *relation = find_relation(input, record->relation);
	ListCell	  *lc;

	input->relation = relation;
	if (!relation->is_bound || relation->bound_set != input->set)
		stage_relation_bind(relation, input->set, input->stage->expectations);
	if (relation->bindings == NIL) /* nobody's business? */
		return;

	if (record->old_row.data != NULL)
		read_row(input, record->old_row, relation->old_values);
	if (record->new_row.data != NULL)
		read_row(input, record->new_row, relation->new_values);
	foreach(lc, relation->bindings)
	{
		StageBinding *binding = lfirst(lc);

		if (binding->expectation->obstacle != STAGE_USABLE)
			continue;

		StageObstacle obstacle = take_row_as_owner(input, binding, record);

		if (obstacle != STAGE_USABLE)
			stage_expectation_set_obstacle(binding->expectation, obstacle);
	}
	MemoryContextReset(input->stage->row_context);
}

/* ------------------------------------------------------------------------------------------------
 * Other records
 */

static void
append_relation(StageInput *input, const RecordView *record)
{
	Stage		  *stage = input->stage;
	uint32		   number = record->relation_def.number;
	RelationEntry *known = relations_lookup(stage->relations, number);
	bool		   found;

	/* Every change set may describe it again. */
	if (known != NULL && known->relation->encoded.length == record->encoded.length &&
		memcmp(known->relation->encoded.data, record->encoded.data, record->encoded.length) == 0)
		return;

	MemoryContext  oldcontext = MemoryContextSwitchTo(stage->context);
	StageRelation *relation = stage_relation_create(record);

	MemoryContextSwitchTo(oldcontext);
	stage->last_relation = NULL;
	if (known != NULL)
		stage_relation_free(known->relation);
	relations_insert(stage->relations, number, &found)->relation = relation;
}

static void
append_truncate(StageInput *input, const RecordView *record)
{
	RelidReader reader = truncate_reader(&record->truncate);
	uint32_t	relid;

	while (relid_next(&reader, &relid))
	{
		for (int only = 0; only < 2; only++)
		{
			StageExpectation *expectation = find_expectation(input->stage, input->set, relid, only);

			if (expectation != NULL)
				stage_expectation_set_obstacle(expectation, STAGE_TRUNCATED);
		}
	}
}

static void
append_record(StageInput *input, const RecordView *record)
{
	switch (record->kind)
	{
		case KIND_RELATION:
			append_relation(input, record);
			break;
		case KIND_INSERT:
		case KIND_UPDATE:
		case KIND_DELETE:
			append_row(input, record);
			break;
		case KIND_TRUNCATE:
			append_truncate(input, record);
			break;
		default: /* the applier's business */
			break;
	}
}

/* ------------------------------------------------------------------------------------------------
 * The whole
 */

static void
append_all(StageInput *input)
{
	BatchReader batch = batch_reader(input->data, input->length);
	RecordView	record;

	while (batch_next_record(&batch, &record))
	{
		CHECK_FOR_INTERRUPTS();
		append_record(input, &record);
		input->relation = NULL;
	}
	if (batch.error != NULL)
		ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION),
						errmsg("could not read changes: %s", batch.error),
						errdetail("Byte %zu of %zu, change set %d.", batch_error_offset(&batch),
								  input->length, input->set)));
}

/* For the errors of the types' functions. */
static void
describe_value(void *argument)
{
	StageInput *input = argument;

	if (input->relation != NULL && input->column_name != NULL)
		errcontext("column \"%s\" of a change to table %s, change set %d", input->column_name,
				   input->relation->name, input->set);
}

void
stage_append(Stage *stage, int set, const char *data, size_t length)
{
	StageInput input = {
		.stage = stage, .set = set, .data = (const uint8_t *) data, .length = length};
	ErrorContextCallback callback = {
		.previous = error_context_stack, .callback = describe_value, .arg = &input};
	int client_encoding = pg_get_client_encoding();

	stage->has_records = true;
	error_context_stack = &callback;

	/* Values are in the database's encoding, but receive functions believe that they come from the client. */
	if (client_encoding == GetDatabaseEncoding())
		append_all(&input);
	else
	{
		PG_TRY();
		{
			SetClientEncoding(GetDatabaseEncoding());
			append_all(&input);
		}
		PG_FINALLY();
		{
			SetClientEncoding(client_encoding);
		}
		PG_END_TRY();
	}
	error_context_stack = callback.previous;
}
