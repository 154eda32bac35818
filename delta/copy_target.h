/*
 * delta/copy_target.h
 *     A table that takes in the changes of a remote's table: the copy itself, or what is loaded to become it.
 *
 * Changes come one by one, in the order of the remote's stream (copy_reader.c).  With a key they are reduced to the last state of
 * each row before anything is written (copy_keyed.c); without one they are a bag of rows that came and went (copy_bag.c).
 */
#ifndef PGTRICKLE_COPY_TARGET_H
#define PGTRICKLE_COPY_TARGET_H

#include "postgres.h"

#include "compat.h"
#include "copy_definition.h"
#include "rowset.h"
#include "stage_relations.h"
#include "utils/rel.h"

typedef struct CopyTarget
{
	CopyDefinition *definition;
	Oid			relid;
	RowLocator	locator;
	bool		catches_up;		/* the table is older or newer than the changes: rows may be there already, or gone */
	bool		hidden;			/* what is written need not come back through the stream of this database */
	MemoryContext context;		/* holds all of this; lives as long as the tick */
	TupleDesc	columns;		/* in live layout: without dropped columns; no weight */
	AttrNumber *attnos;			/* of these columns in the table */
	int		   *copied;			/* of the copy's attributes: where they are in live layout, from 0 */
	int		   *key_columns;	/* in live layout, from 0 */
	ApplyCounts counts;
	int64		changes;		/* that came in */
	Rowset	   *net;			/* what has been written, as consumers want it; NULL: nothing, or nobody wants it */
	bool		wants_net;
	bool		passes_through; /* nothing is written: the changes are the net */
	struct CopyFilter *filter;	/* NULL: all rows */
	struct RowStates *states;	/* with a key: the last state of each row that changed */
	Rowset	   *bag;			/* without one: rows that came and went; NULL: none */
} CopyTarget;

/* A change of a row, taken apart but not decoded: values of the record's columns. */
typedef struct CopyChange
{
	RecordKind	kind;			/* KIND_INSERT, KIND_UPDATE, KIND_DELETE */
	bool		has_old_row;
	bool		old_row_is_key; /* only the replica identity of it */
	const TupleValue *old_values;
	const TupleValue *new_values;
	const BoundColumn *bound;	/* in live layout; columns of the target without one stay NULL */
	int			nbound;
	StringInfo	scratch;
} CopyChange;

/*
 * `relid`: the table of the copy or its load table, which has the same columns.  Everything is allocated in `context`, and rowsets that spill
 * belong to the transaction.
 */
extern CopyTarget *copy_target_create(CopyDefinition *definition, Oid relid, bool catches_up, bool hidden, bool wants_net,
									  MemoryContext context);

/* Where an attribute of the copy is in live layout, from 0. */
extern int	copy_target_column(CopyTarget *target, AttrNumber attno);

/* Values are decoded with the rights of the copy's owner, whose scope the caller has entered. */
extern void copy_target_change(CopyTarget *target, const CopyChange *change);
extern void copy_target_truncate(CopyTarget *target);

/* Writes what is left.  ERROR ERRCODE_COPY_NOT_EQUAL when a row stayed incomplete. */
extern void copy_target_finish(CopyTarget *target);

/* Releases rowsets; after copy_target_finish and its consumers, or not at all after an error. */
extern void copy_target_release(CopyTarget *target);

/* For copy_keyed.c and copy_bag.c: a row that was written. */
extern void copy_target_put_net(CopyTarget *target, const Datum *values, const bool *nulls, int32 weight);
extern void copy_target_count(CopyTarget *target, ApplyCounts counts);
extern Rowset *copy_target_make_rowset(CopyTarget *target, const char *name, TupleDesc tupdesc);
extern void copy_target_delete_all(CopyTarget *target);
pg_noreturn extern void copy_target_report(CopyTarget *target, const char *what, const Datum *values, const bool *nulls);

/* Acting as the owner of a copy: types' functions, index expressions and constraints can run users' code. */
typedef struct CopyScope
{
	Oid			saved_user;
	int			saved_context;
} CopyScope;

extern void copy_scope_enter(CopyScope *scope, const CopyDefinition *definition);
extern void copy_scope_leave(const CopyScope *scope);

/* copy_keyed.c */
extern void copy_keyed_init(CopyTarget *target);
extern void copy_keyed_change(CopyTarget *target, const CopyChange *change);
extern void copy_keyed_forget(CopyTarget *target);
extern void copy_keyed_finish(CopyTarget *target);

/* copy_bag.c */
extern void copy_bag_change(CopyTarget *target, const CopyChange *change);
extern void copy_bag_forget(CopyTarget *target);
extern void copy_bag_finish(CopyTarget *target);

#endif							/* PGTRICKLE_COPY_TARGET_H */
