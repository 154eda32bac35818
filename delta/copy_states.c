/*
 * delta/copy_states.c
 *     The last state of every row of a copy that changed, by key.
 */
#include "copy_states.h"

#include "common/hashfn.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

typedef struct StateEntry
{
	RowState   *state;
	uint32		hash;
	char		status;
} StateEntry;

#define SH_PREFIX states
#define SH_ELEMENT_TYPE StateEntry
#define SH_KEY_TYPE RowState *
#define SH_KEY state
#define SH_HASH_KEY(tb, key) ((key)->hash)
#define SH_EQUAL(tb, a, b) row_states_equal_keys((tb)->private_data, a, b)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, entry) ((entry)->hash)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* ---- keys ---- */

bool
row_states_equal_keys(RowStates *states, const RowState *state1, const RowState *state2)
{
	for (int i = 0; i < states->nkeys; i++)
	{
		KeyColumn  *key = &states->keys[i];

		if (!DatumGetBool(FunctionCall2Coll(key->equal, key->collation, state1->values[key->column], state2->values[key->column])))
			return false;
	}
	return true;
}

void
row_state_hash_key(RowStates *states, RowState *state)
{
	state->hash = 0;
	for (int i = 0; i < states->nkeys; i++)
	{
		KeyColumn  *key = &states->keys[i];

		if (key->hash != NULL)
			state->hash = hash_combine(state->hash,
									   DatumGetUInt32(FunctionCall1Coll(key->hash, key->collation, state->values[key->column])));
	}
}

static void
init_key_column(CopyTarget *target, KeyColumn *key, int column)
{
	Form_pg_attribute att = TupleDescAttr(target->columns, column);
	TypeCacheEntry *type = lookup_type_cache(att->atttypid, TYPECACHE_EQ_OPR_FINFO | TYPECACHE_HASH_PROC_FINFO);

	if (!OidIsValid(type->eq_opr_finfo.fn_oid))
		elog(ERROR, "type %u has no equality", att->atttypid);
	key->column = column;
	key->equal = &type->eq_opr_finfo;
	key->hash = OidIsValid(type->hash_proc_finfo.fn_oid) ? &type->hash_proc_finfo : NULL;
	key->collation = att->attcollation;
}

/* ---- all of them ---- */

static void
make_room(RowStates *states)
{
	states->context = AllocSetContextCreate(states->parent, "pgtrickle changed rows", ALLOCSET_DEFAULT_SIZES);
	states->hash = states_create(states->context, 64, states);
}

RowStates *
row_states_create(CopyTarget *target)
{
	RowStates  *states = palloc0(sizeof(RowStates));

	states->parent = CurrentMemoryContext;
	states->nkeys = target->locator.nkeys;
	states->ncolumns = target->columns->natts;
	states->keys = palloc0((states->nkeys + 1) * sizeof(KeyColumn));
	for (int i = 0; i < states->nkeys; i++)
		init_key_column(target, &states->keys[i], target->key_columns[i]);
	make_room(states);
	return states;
}

MemoryContext
row_states_detach(RowStates *states)
{
	MemoryContext spent = states->context;

	make_room(states);
	return spent;
}

void
row_states_clear(RowStates *states)
{
	MemoryContextDelete(row_states_detach(states));
}

int
row_states_count(RowStates *states)
{
	return states->hash->members;
}

void
row_states_list(RowStates *states, RowState **list)
{
	states_iterator iterator;
	StateEntry *entry;

	states_start_iterate(states->hash, &iterator);
	while ((entry = states_iterate(states->hash, &iterator)) != NULL)
		*list++ = entry->state;
}

RowState **
row_states_find(RowStates *states, RowState *state, bool *is_new)
{
	bool		found;
	StateEntry *entry = states_insert(states->hash, state, &found);

	*is_new = !found;
	if (!found)
		entry->state = state;
	return &entry->state;
}

/* ---- one of them ---- */

/* In one piece: there are as many as changes. */
RowState *
row_state_create(RowStates *states)
{
	Size		values_size = MAXALIGN(states->ncolumns * sizeof(Datum));
	char	   *memory = palloc(MAXALIGN(sizeof(RowState)) + values_size + states->ncolumns * sizeof(bool));
	RowState   *state = (RowState *) memory;

	memset(state, 0, sizeof(RowState));
	state->values = (Datum *) (memory + MAXALIGN(sizeof(RowState)));
	memset(state->values, 0, values_size);
	state->nulls = (bool *) (memory + MAXALIGN(sizeof(RowState)) + values_size);
	memset(state->nulls, true, states->ncolumns * sizeof(bool));
	return state;
}

void
row_state_set_missing(RowStates *states, RowState *state, int column)
{
	if (state->missing == NULL)
		state->missing = palloc0((states->ncolumns + 1) * sizeof(bool));
	state->missing[column] = true;
	state->is_incomplete = true;
}

void
row_state_complete(RowStates *states, RowState *state, const RowState *before)
{
	if (!state->is_incomplete)
		return;
	state->is_incomplete = false;
	for (int i = 0; i < states->ncolumns; i++)
	{
		if (!state->missing[i])
			continue;
		if (before->missing != NULL && before->missing[i])
		{
			state->is_incomplete = true;
			continue;
		}
		state->values[i] = before->values[i];
		state->nulls[i] = before->nulls[i];
		state->missing[i] = false;
	}
}
