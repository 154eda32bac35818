/*
 * delta/cost.h
 *     Delta or full: what a refresh of a stream table in mode AUTO would cost either way, and which way to go.
 */
#ifndef PGTRICKLE_COST_H
#define PGTRICKLE_COST_H

#include "postgres.h"

#include "nodes/plannodes.h"
#include "rowset.h"
#include "utils/hsearch.h"

struct LoadedTable;

typedef enum CostChoice
{
	COST_NOT_WEIGHED,			/* nobody asked, or the delta is too small for the question */
	COST_DELTA,
	COST_FULL
} CostChoice;

/* Estimates are in the planner's units, as the planner sees it; in milliseconds they are corrected by what was observed. */
typedef struct CostDecision
{
	CostChoice	choice;
	double		delta_cost;		/* negative: not known */
	double		full_cost;
	double		delta_ms;
	double		full_ms;
} CostDecision;

/* What a session knows of the costs of one stream table; the factors are kept in pgt_frontiers. */
typedef struct CostModel
{
	double		delta_factor;	/* observed / estimated; 0: never observed */
	double		full_factor;
	double		full_cost;		/* of the whole query; negative: not planned yet */
	bool		full_was_last;	/* the last choice, for the hysteresis */
	HTAB	   *estimates;		/* of deltas, by the orders of magnitude of their inputs */
} CostModel;

/* An empty model; factors that are not known are 0.  Its estimates live in `context`. */
extern void cost_model_init(CostModel *model, double delta_factor, double full_factor, MemoryContext context);

/*
 * Chooses for one refresh.  Needs an SPI connection and an active snapshot; plans each statement at most once per order of magnitude.
 */
extern void cost_decide(struct LoadedTable *table, Rowset **source_rowsets, CostDecision *decision);

/* Looks at the plan of a step (a number from 0) while the rowsets that it reads are registered, without rows. */
typedef void (*PlanVisitor) (void *arg, struct LoadedTable *table, int step_no, uint64 variant, PlannedStmt *plan);

/*
 * Plans all steps for deltas of sources with so many rows (by rowset number; others are ignored) and shows each plan.  In the owner's
 * scope; with programs that follow the time the previous moment must be known.
 */
extern void cost_visit_plans(struct LoadedTable *table, const double *source_rows, PlanVisitor visit, void *arg);

/* The same for a change of a thousandth of each source in turn, which *changed_relid names meanwhile.  As the extension's owner. */
extern void cost_visit_each_source(struct LoadedTable *table, PlanVisitor visit, void *arg, Oid *changed_relid);

/* Takes note of how long a refresh took that was decided on. */
extern void cost_learn(struct LoadedTable *table, const CostDecision *decision, double duration_ms);

/* Why a refresh was done in full though a delta was there; in the current context. */
extern char *cost_reason(const CostDecision *decision);

/* As history and explain call it; NULL: not weighed. */
extern const char *cost_choice_name(CostChoice choice);

/* For orders of magnitude in the keys of plans and estimates: 6 bits. */
extern uint64 cost_magnitude(double row_count);

/* Magnitudes of several inputs, one after the other. */
extern uint64 cost_magnitudes_add(uint64 magnitudes, double row_count);

#endif							/* PGTRICKLE_COST_H */
