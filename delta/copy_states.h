/*
 * delta/copy_states.h
 *     The last state of every row of a copy that changed, by key.
 *
 * A row that changed a hundred times has one state.  Nothing here looks into the table or knows of the stream: what changes mean is
 * copy_keyed.c, what becomes of states copy_write.c.
 */
#ifndef PGTRICKLE_COPY_STATES_H
#define PGTRICKLE_COPY_STATES_H

#include "copy_target.h"

typedef enum BeforeState
{
	BEFORE_UNKNOWN,
	BEFORE_PRESENT,
	BEFORE_ABSENT
} BeforeState;

typedef struct RowState
{
	uint32		hash;			/* of the key */
	BeforeState before;			/* what the first change said */
	bool		is_present;
	bool		is_incomplete;	/* some value is missing */
	bool		is_due;			/* is to be inserted when the others have gone (copy_write.c) */
	Datum	   *values;			/* live layout; of an absent row only the key */
	bool	   *nulls;
	bool	   *missing;		/* NULL: none was, ever */
} RowState;

/* Equality and hash of one key column, as its type and collation have them. */
typedef struct KeyColumn
{
	int			column;			/* in live layout, from 0 */
	FmgrInfo   *equal;
	FmgrInfo   *hash;			/* NULL: the type has none */
	Oid			collation;
} KeyColumn;

typedef struct RowStates
{
	MemoryContext parent;
	MemoryContext context;		/* of all states */
	struct states_hash *hash;
	KeyColumn  *keys;
	int			nkeys;
	int			ncolumns;
} RowStates;

/* In the current context, for the columns and the key of the target. */
extern RowStates *row_states_create(CopyTarget *target);

/* Forgets all of them. */
extern void row_states_clear(RowStates *states);

/* The same, but they stay as long as the context that is returned. */
extern MemoryContext row_states_detach(RowStates *states);

extern int	row_states_count(RowStates *states);

/* All of them, in no order; the array is the caller's. */
extern void row_states_list(RowStates *states, RowState **list);

/* A state with room for its values, in the current context: all NULL.  Its key has to be hashed when it is known. */
extern RowState *row_state_create(RowStates *states);
extern void row_state_hash_key(RowStates *states, RowState *state);
extern void row_state_set_missing(RowStates *states, RowState *state, int column);

extern bool row_states_equal_keys(RowStates *states, const RowState *state1, const RowState *state2);

/* Where the state of the row with this key is kept; a key that is new has `state` there, and *is_new. */
extern RowState **row_states_find(RowStates *states, RowState *state, bool *is_new);

/* Takes missing values from an earlier state of the row. */
extern void row_state_complete(RowStates *states, RowState *state, const RowState *before);

#endif							/* PGTRICKLE_COPY_STATES_H */
