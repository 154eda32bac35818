/*
 * delta/recursion.h
 *     What the two halves of the recursion operator share: its shape, and its statements.
 */
#ifndef PGTRICKLE_RECURSION_H
#define PGTRICKLE_RECURSION_H

#include "block.h"

/* r = base UNION term(r), where r is one input of the term's join. */
typedef struct RecursionBuild
{
	DeltaProgram *program;
	Compiled   *base;
	List	   *base_names;		/* of String: its columns */
	QueryBlock *term;
	int			self;			/* which of the term's inputs is r, from 0 */
	List	   *targets;		/* of the term, named like the state's columns */
	ProgramState *state;		/* r's rows; all columns are its key */
	int			lost;			/* rowset of the rows that may have lost their derivations */
	int			lost_with_nulls;	/* those of them that have NULLs */
} RecursionBuild;

/* recursion_sql.c: the statements.  Their inputs: the base's delta if it has one, the term's deltas, then what was lost. */
extern char *recursion_print_lost(ProgramStep *step, uint64 nonempty);
extern char *recursion_print_lost_with_nulls(ProgramStep *step, uint64 nonempty);
extern char *recursion_print_nothing(ProgramStep *step, const char *keys_name, uint64 null_keys);
extern char *recursion_print_gained(ProgramStep *step, uint64 nonempty);
extern char *recursion_print_rows(ProgramStep *step, const char *keys_name, uint64 null_keys);
extern char *recursion_fill_sql(RecursionBuild *build);

#endif							/* PGTRICKLE_RECURSION_H */
