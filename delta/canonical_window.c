/*
 * delta/canonical_window.c
 *     Completes the order of windows for the functions to which it matters.
 *
 * Rows that tie in a window's ORDER BY are peers.  rank() and its like, and sums over RANGE and GROUPS frames, treat peers alike: for them nothing may
 * be added, since it would make peers different.  Other functions look at rows one by one; they get a window of their own, equal to the
 * one they had but with a complete order:
 *
 *     row_number(), ntile(), lag(), lead()      do not look at frames; the default one will do
 *     anything over a ROWS frame                the frame as it is
 *     array_agg() ... over the whole partition  the frame as rows from the first to the last
 *     first_value() from the partition's start, last_value() to its end   likewise
 *
 * What remains (last_value() or array_agg() up to the current row's peers, say) has no answer of its own that could be written with
 * a complete order: whose last value it is among peers stays open, unless the order is complete by itself.  Such a query is
 * refreshed in full.
 */
#include "canonical.h"

#include "catalog/pg_namespace_d.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "optimizer/tlist.h"
#include "utils/lsyscache.h"

#define FRAME_ALL_ROWS (FRAMEOPTION_NONDEFAULT | FRAMEOPTION_ROWS | FRAMEOPTION_BETWEEN | \
						FRAMEOPTION_START_UNBOUNDED_PRECEDING | FRAMEOPTION_END_UNBOUNDED_FOLLOWING)
#define FRAME_EXCLUDES_PEERS (FRAMEOPTION_EXCLUDE_GROUP | FRAMEOPTION_EXCLUDE_TIES)

typedef enum OrderNeed
{
	NEED_NOTHING,				/* peers are alike to it */
	NEED_ORDER,					/* and the window's frame as it is */
	NEED_ORDER_ONLY,			/* it does not look at frames */
	NEED_ALL_ROWS,				/* it looks at the whole partition, or might as well */
	NEED_UNKNOWN				/* no complete order gives its answer */
} OrderNeed;

typedef struct WindowContext
{
	Query	   *query;
	Canonical  *canonical;
	List	   *tie_breaks;
	List	   *copies;			/* of WindowCopy */
} WindowContext;

typedef struct WindowCopy
{
	Index		original;
	OrderNeed	need;
	Index		winref;
} WindowCopy;

/* ---- what a call needs ---- */

static bool
is_one_of(const char *name, const char *const *names)
{
	for (int i = 0; names[i] != NULL; i++)
	{
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

/* Does the frame cover the partition, whichever row it belongs to? */
static bool
frame_is_partition(WindowClause *window)
{
	int			options = window->frameOptions;

	if ((options & FRAMEOPTION_START_UNBOUNDED_PRECEDING) && (options & FRAMEOPTION_END_UNBOUNDED_FOLLOWING))
		return true;
	/* without an order all rows are peers of the current one */
	return window->orderClause == NIL && (options & FRAMEOPTION_RANGE) &&
		(options & (FRAMEOPTION_START_UNBOUNDED_PRECEDING | FRAMEOPTION_START_CURRENT_ROW)) &&
		(options & (FRAMEOPTION_END_UNBOUNDED_FOLLOWING | FRAMEOPTION_END_CURRENT_ROW));
}

/* A function that takes rows of its frame by their place. */
static OrderNeed
need_by_place(WindowClause *window, const char *name)
{
	int			options = window->frameOptions;

	if (options & FRAME_EXCLUDES_PEERS)
		return NEED_UNKNOWN;
	if (options & FRAMEOPTION_ROWS)
		return NEED_ORDER;
	if (options & FRAMEOPTION_EXCLUDE_CURRENT_ROW)
		return NEED_UNKNOWN;
	if (frame_is_partition(window))
		return NEED_ALL_ROWS;
	if (strcmp(name, "first_value") == 0 && (options & FRAMEOPTION_START_UNBOUNDED_PRECEDING) &&
		!(options & FRAMEOPTION_END_OFFSET_PRECEDING))
		return NEED_ALL_ROWS;
	if (strcmp(name, "last_value") == 0 && (options & FRAMEOPTION_END_UNBOUNDED_FOLLOWING) &&
		!(options & FRAMEOPTION_START_OFFSET_FOLLOWING))
		return NEED_ALL_ROWS;
	return NEED_UNKNOWN;
}

static OrderNeed
window_function_need(WindowFunc *call, WindowClause *window)
{
	static const char *const ranking[] = {"rank", "dense_rank", "percent_rank", "cume_dist", NULL};
	static const char *const counting[] = {"row_number", "ntile", "lag", "lead", NULL};
	const char *name = get_func_name(call->winfnoid);
	bool		is_builtin = get_func_namespace(call->winfnoid) == PG_CATALOG_NAMESPACE;

	if (is_builtin && !call->winagg && is_one_of(name, ranking))
		return NEED_NOTHING;
	if (is_builtin && !call->winagg && is_one_of(name, counting))
		return NEED_ORDER_ONLY;
	if (call->winagg && !aggregate_sees_order(call->winfnoid))
	{
		/* which rows are in the frame matters, not their order */
		if (!(window->frameOptions & FRAMEOPTION_ROWS) ||
			(frame_is_partition(window) && !(window->frameOptions & FRAME_EXCLUDES_PEERS)))
			return NEED_NOTHING;
	}
	return need_by_place(window, is_builtin ? name : "");
}

/* ---- windows of their own ---- */

static Index
window_copy(WindowContext *context, WindowClause *window, OrderNeed need)
{
	Query	   *query = context->query;
	WindowCopy *copy;
	WindowClause *own;
	ListCell   *lc;

	foreach(lc, context->copies)
	{
		copy = lfirst(lc);
		if (copy->original == window->winref && copy->need == need)
			return copy->winref;
	}
	own = copyObject(window);
	own->name = own->refname = NULL;
	own->copiedOrder = false;
	own->winref = 0;
	foreach(lc, query->windowClause)
		own->winref = Max(own->winref, lfirst_node(WindowClause, lc)->winref);
	own->winref++;
	if (need != NEED_ORDER)
	{
		own->frameOptions = need == NEED_ALL_ROWS ? FRAME_ALL_ROWS : FRAMEOPTION_DEFAULTS;
		own->startOffset = own->endOffset = NULL;
		own->startInRangeFunc = own->endInRangeFunc = InvalidOid;
	}
	(void) add_sort_exprs(&own->orderClause, &query->targetList, context->tie_breaks);
	query->windowClause = lappend(query->windowClause, own);

	copy = palloc(sizeof(WindowCopy));
	copy->original = window->winref;
	copy->need = need;
	copy->winref = own->winref;
	context->copies = lappend(context->copies, copy);
	return own->winref;
}

static WindowClause *
window_by_reference(Query *query, Index winref)
{
	ListCell   *lc;

	foreach(lc, query->windowClause)
	{
		if (lfirst_node(WindowClause, lc)->winref == winref)
			return lfirst_node(WindowClause, lc);
	}
	elog(ERROR, "missing window %u", winref);
	return NULL;
}

static bool
call_walker(Node *node, WindowContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, WindowFunc))
	{
		WindowFunc *call = (WindowFunc *) node;
		WindowClause *window = window_by_reference(context->query, call->winref);
		OrderNeed	need = window_function_need(call, window);

		if (need == NEED_NOTHING ||
			sorts_by_all(window->partitionClause, window->orderClause, context->query->targetList, context->tie_breaks))
			return false;
		if (need == NEED_UNKNOWN)
		{
			if (context->canonical->open_reason == NULL)
				context->canonical->open_reason =
					psprintf("the result of %s() depends on the order of rows that its window leaves open",
							 get_func_name(call->winfnoid));
			return false;
		}
		call->winref = window_copy(context, window, need);
		context->canonical->changed = true;
		return false;
	}
	return expression_tree_walker(node, call_walker, context);
}

void
canonicalize_windows(Query *query, Canonical *canonical)
{
	WindowContext context = {query, canonical, window_tie_breaks(query), NIL};
	List	   *targets = list_copy(query->targetList);
	ListCell   *lc;

	if (query->groupClause == NIL && query->groupingSets == NIL && (query->hasAggs || query->havingQual != NULL))
		return;					/* one row */
	/* the walk adds junk targets at the end of the list, which contain no calls */
	foreach(lc, targets)
		(void) call_walker((Node *) lfirst_node(TargetEntry, lc)->expr, &context);
}
