/*
 * delta/fk_prune.h
 *     Foreign keys: deltas of referenced tables that join with nothing new.
 */
#ifndef PGTRICKLE_FK_PRUNE_H
#define PGTRICKLE_FK_PRUNE_H

#include "block.h"
#include "run.h"

/* An input that joins another one by a foreign key; both are tables as a whole. */
typedef struct ForeignKeyEdge
{
	int			referencing;	/* rowset numbers */
	int			referenced;
	TransactionId made_by;		/* whoever made the foreign key, which was not touched since */
} ForeignKeyEdge;

/* The edges of a block whose delta a step computes, into the step. */
extern void fk_prune_step(QueryBlock *block, ProgramStep *step);

/* May the step do as if this input had not changed?  `rowsets`: those of the sources are there, NULL if empty. */
extern bool fk_step_ignores(LoadedTable *table, ProgramStep *step, int input, Rowset **rowsets);

#endif							/* PGTRICKLE_FK_PRUNE_H */
