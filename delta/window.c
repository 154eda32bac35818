/*
 * delta/window.c
 *     Rule for window functions: recompute the partitions that changed.
 *
 * The level is cut in two.  Below, FROM, WHERE and grouping, with what the functions and the rest of the level need as columns; above, the
 * windows alone over these columns.  A window function's value depends on the rows of its partition only.  With several windows, what
 * they all partition by separates the rows for all of them, so the key is the intersection of their PARTITION BY lists (keyed.c); if there is none,
 * the whole input is one partition.  The result of functions that look at the order of rows is unique by then (canonical.c).
 *
 * DISTINCT over windows is one more level, since equal rows may come from different partitions.
 */
#include "keyed.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "tree_build.h"

typedef struct WindowSplit
{
	Query	   *query;			/* the level; its targets as the user wrote them */
	List	   *group_exprs;	/* of Node: what it groups by */
	List	   *targets;		/* of TargetEntry: what the level below yields */
} WindowSplit;

/* ---- what the level below yields ---- */

static Var *
column_below(WindowSplit *split, Node *expr)
{
	TargetEntry *found = NULL;
	ListCell   *lc;

	foreach(lc, split->targets)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (found == NULL && equal(target->expr, expr))
			found = target;
	}
	if (found == NULL)
	{
		found = makeTargetEntry((Expr *) copyObject(expr), list_length(split->targets) + 1, NULL, false);
		found->resname = IsA(expr, Var) && ((Var *) expr)->varattno > 0
			? get_rte_attribute_name(list_nth(split->query->rtable, ((Var *) expr)->varno - 1), ((Var *) expr)->varattno)
			: psprintf("c%d", found->resno);
		split->targets = lappend(split->targets, found);
	}
	return makeVar(1, found->resno, exprType(expr), exprTypmod(expr), exprCollation(expr), 0);
}

/* What is computed before windows becomes a column: groups, aggregates, subqueries; else each column that is used. */
static Node *
above_mutator(Node *node, WindowSplit *split)
{
	if (node == NULL)
		return NULL;
	if (list_member(split->group_exprs, node) || IsA(node, Aggref) || IsA(node, GroupingFunc) || IsA(node, Var) ||
		(IsA(node, SubLink) && !contain_windowfuncs(((SubLink *) node)->testexpr)))
		return (Node *) column_below(split, node);
	return expression_tree_mutator(node, above_mutator, split);
}

/* The targets that GROUP BY refers to come first, with their marks. */
static void
collect_groups(WindowSplit *split)
{
	ListCell   *lc;

	foreach(lc, split->query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (target->ressortgroupref == 0 ||
			get_sortgroupref_clause_noerr(target->ressortgroupref, split->query->groupClause) == NULL)
			continue;
		split->group_exprs = lappend(split->group_exprs, target->expr);
		target = copyObject(target);
		target->resjunk = false;
		target->resno = list_length(split->targets) + 1;
		if (target->resname == NULL)
			target->resname = psprintf("c%d", target->resno);
		split->targets = lappend(split->targets, target);
	}
}

/* ---- keys ---- */

static bool
used_windows_walker(Node *node, Bitmapset **used)
{
	if (node == NULL)
		return false;
	if (IsA(node, WindowFunc))
		*used = bms_add_member(*used, ((WindowFunc *) node)->winref);
	return expression_tree_walker(node, used_windows_walker, used);
}

/* The expressions of one window's PARTITION BY that rows can be found by, as they stand in the level. */
static List *
partition_exprs(WindowSplit *split, WindowClause *window)
{
	List	   *exprs = NIL;
	ListCell   *lc;

	foreach(lc, window->partitionClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);
		Node	   *expr = get_sortgroupclause_expr(clause, split->query->targetList);

		if (keyed_type_is_usable(exprType(expr), clause->eqop) && !expression_returns_set(expr) &&
			!contain_windowfuncs(expr))
			exprs = lappend(exprs, expr);
	}
	return exprs;
}

static List *
common_partition_exprs(WindowSplit *split)
{
	Bitmapset  *used = NULL;
	List	   *common = NIL;
	bool		is_first = true;
	ListCell   *lc;

	(void) used_windows_walker((Node *) split->query->targetList, &used);
	foreach(lc, split->query->windowClause)
	{
		WindowClause *window = lfirst_node(WindowClause, lc);

		if (!bms_is_member(window->winref, used))
			continue;
		common = is_first ? partition_exprs(split, window)
			: list_intersection(common, partition_exprs(split, window));
		is_first = false;
	}
	return list_concat_unique(NIL, common);
}

/* ---- the two levels ---- */

static bool
is_used_by_windows(Query *query, TargetEntry *target)
{
	ListCell   *lc;

	if (target->ressortgroupref == 0)
		return false;
	foreach(lc, query->windowClause)
	{
		WindowClause *window = lfirst_node(WindowClause, lc);

		if (get_sortgroupref_clause_noerr(target->ressortgroupref, window->partitionClause) != NULL ||
			get_sortgroupref_clause_noerr(target->ressortgroupref, window->orderClause) != NULL)
			return true;
	}
	return false;
}

static Query *
split_windows(WindowSplit *split, List **keys)
{
	Query	   *query = split->query;
	List	   *above = NIL;
	List	   *exprs;
	Query	   *outer;
	ListCell   *lc;

	query->targetList = (List *) resolve_aliases(query, (Node *) query->targetList);
	collect_groups(split);
	exprs = common_partition_exprs(split);
	foreach(lc, exprs)
		*keys = lappend_int(*keys, column_below(split, lfirst(lc))->varattno);
	foreach(lc, query->targetList)
	{
		TargetEntry *target = flatCopyTargetEntry(lfirst_node(TargetEntry, lc));

		/* what only GROUP BY or a dropped ORDER BY needs stays below */
		if (target->resjunk && !is_used_by_windows(query, target))
			continue;
		target->expr = (Expr *) above_mutator((Node *) target->expr, split);
		above = lappend(above, target);
	}
	outer = simple_query(list_make1(subquery_rte(query, "input")), NIL, above);
	outer->windowClause = query->windowClause;
	outer->hasWindowFuncs = true;
	outer->hasTargetSRFs = query->hasTargetSRFs;

	query->targetList = split->targets;
	query->windowClause = NIL;
	query->hasWindowFuncs = false;
	query->hasTargetSRFs = false;
	rename_targets(query->targetList, target_column_names(query->targetList));
	((RangeTblEntry *) linitial(outer->rtable))->eref->colnames = target_column_names(query->targetList);
	return outer;
}

/* ---- subqueries over the result of window functions ---- */

typedef struct LiftContext
{
	List	   *targets;		/* of the level below: what the subqueries' level needs */
	int			level;
} LiftContext;

static Node *
lifted_column(LiftContext *context, Expr *expr)
{
	ListCell   *lc;
	TargetEntry *target;

	foreach(lc, context->targets)
	{
		target = lfirst_node(TargetEntry, lc);
		if (equal(target->expr, expr))
			return (Node *) makeVar(1, target->resno, exprType((Node *) expr), exprTypmod((Node *) expr),
									exprCollation((Node *) expr), context->level);
	}
	target = makeTargetEntry(expr, list_length(context->targets) + 1, NULL, false);
	context->targets = lappend(context->targets, target);
	return (Node *) makeVar(1, target->resno, exprType((Node *) expr), exprTypmod((Node *) expr),
							exprCollation((Node *) expr), context->level);
}

/* What is computed by the level below becomes a column of it: windows, aggregates, and the columns that the rest refers to. */
static Node *
lift_mutator(Node *node, LiftContext *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		Query	   *result;

		context->level++;
		result = query_tree_mutator((Query *) node, lift_mutator, context, 0);
		context->level--;
		return (Node *) result;
	}
	if ((context->level == 0 && (IsA(node, WindowFunc) || IsA(node, GroupingFunc))) ||
		(IsA(node, Aggref) && ((Aggref *) node)->agglevelsup == (Index) context->level) ||
		(IsA(node, Var) && ((Var *) node)->varlevelsup == (Index) context->level))
	{
		Node	   *copy = copyObject(node);

		IncrementVarSublevelsUp(copy, -context->level, context->level);
		return lifted_column(context, (Expr *) copy);
	}
	return expression_tree_mutator(node, lift_mutator, context);
}

/* Is there a subquery that is about the result of a window function? */
static bool
sublink_over_window_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubLink))
		return contain_windowfuncs(((SubLink *) node)->testexpr);
	return expression_tree_walker(node, sublink_over_window_walker, context);
}

/* SELECT the targets FROM (SELECT windows and columns ...) */
static Query *
lift_sublinks(Query *query)
{
	LiftContext context = {NIL, 0};
	List	   *targets = NIL;
	Query	   *outer;
	ListCell   *lc;

	query->targetList = (List *) resolve_aliases(query, (Node *) query->targetList);
	/* what windows and groups are made by stays below under its number */
	foreach(lc, query->targetList)
	{
		TargetEntry *target = copyObject(lfirst_node(TargetEntry, lc));

		if (target->ressortgroupref == 0)
			continue;
		target->resno = list_length(context.targets) + 1;
		target->resjunk = false;
		context.targets = lappend(context.targets, target);
	}
	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (!target->resjunk)
			targets = lappend(targets, makeTargetEntry((Expr *) lift_mutator((Node *) target->expr, &context),
													   list_length(targets) + 1, target->resname, false));
	}
	query->targetList = context.targets;
	rename_targets(query->targetList, target_column_names(query->targetList));
	/* what it refers to above itself is one level further up now */
	IncrementVarSublevelsUp((Node *) query, 1, 1);
	outer = simple_query(list_make1(subquery_rte(query, "windows")), NIL, targets);
	outer->hasSubLinks = true;
	return outer;
}

/* ---- the operator ---- */

Compiled *
compile_windows(Compiler *compiler, Query *query)
{
	KeyedLevel *level = palloc0(sizeof(KeyedLevel));
	WindowSplit split = {NULL, NIL, NIL};

	query = copyObject(query);	/* the caller still looks at its targets */
	if (query->distinctClause != NIL)
	{
		Compiled   *rows;

		query->distinctClause = NIL;
		rows = compile_level(compiler, query);
		return rows == NULL ? NULL : compile_distinct(compiler, rows);
	}
	if (sublink_over_window_walker((Node *) query->targetList, NULL))
		return compile_level(compiler, lift_sublinks(query));
	split.query = query;
	level->operator_name = "window";
	level->query = split_windows(&split, &level->keys);
	if (contains_sublink((Node *) level->query->targetList) || contains_sublink((Node *) level->query->windowClause))
	{
		note_all_sources(compiler, query);
		return compile_cannot(compiler, "a subquery over the result of a window function has no delta rule");
	}
	level->input = compile_level(compiler, query);
	if (level->input == NULL)
		return NULL;
	level->output_key = visible_input_key(level->input, level->query->targetList);
	level->key_is_unique = level->input->key_is_unique;
	level->single_row = level->input->single_row && !expression_returns_set((Node *) level->query->targetList);
	return compile_keyed(compiler, level);
}
