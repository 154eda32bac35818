/*
 * delta/aggregate.h
 *     What the files of the grouping operator share: the node under construction.
 *
 * aggregate.c decides and adds the steps, aggregate_state.c lays out the state, aggregate_sql.c prints the statements.
 */
#ifndef PGTRICKLE_AGGREGATE_H
#define PGTRICKLE_AGGREGATE_H

#include "aggregate_rules.h"
#include "block.h"

/* An aggregate call of the level, and how its value is read from the state. */
typedef struct AggregateCall
{
	Aggref	   *aggref;
	AggregateRule rule;
	Expr	   *final;			/* over Vars of the state, range-table entry 1 */
} AggregateCall;

/* A column of the state: what the terms must carry for it, and the expressions over them. */
typedef struct AggregateColumn
{
	StateColumn *state;
	char	   *delta_sql;		/* over t: its column of the group delta */
	char	   *row_sql;		/* the same of a single row, without an aggregate; NULL: there is no such expression */
	char	   *gone_sql;		/* min and max */
	Aggref	   *aggref;			/* affected keys: the call itself */
} AggregateColumn;

typedef struct AggregateBuild
{
	Compiler   *compiler;
	QueryBlock *block;
	ProgramState *state;
	List	   *keys;			/* of Expr over the block's inputs */
	List	   *key_columns;	/* of StateColumn */
	List	   *calls;			/* of AggregateCall */
	List	   *columns;		/* of AggregateColumn, without keys and rows */
	List	   *targets;		/* of the terms: the keys k1.., then the arguments a1.. */
	bool		algebraic;
} AggregateBuild;

/* aggregate_state.c */

/* The keys and the number of rows; later, what each call needs, which also sets how its value is read. */
extern void aggregate_add_keys(AggregateBuild *build);
extern void aggregate_add_call(AggregateBuild *build, AggregateCall *call);

/* A column of the state, as range-table entry 1. */
extern Expr *aggregate_state_var(AggregateBuild *build, StateColumn *column);

/* aggregate_sql.c */

/* All rows of the state, computed from the inputs' new state. */
extern char *aggregate_fill_sql(AggregateBuild *build);

/* Is there a group delta row by row? */
extern bool aggregate_has_row_deltas(AggregateBuild *build);

/* Printers of the node's steps. */
extern char *aggregate_print_group_delta(ProgramStep *step, uint64 nonempty);
extern char *aggregate_print_row_deltas(ProgramStep *step, uint64 nonempty);
extern char *aggregate_print_affected_keys(ProgramStep *step, uint64 nonempty);
extern char *aggregate_print_recompute(ProgramStep *step, const char *keys_name, uint64 null_keys);

#endif							/* PGTRICKLE_AGGREGATE_H */
