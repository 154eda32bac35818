/*
 * delta/isolate.c
 *     Every outer join as a level of its own.
 *
 * An inner join may be evaluated in any order, an outer join may not: its rows depend on what its two sides do not match.  So each
 * outer join that stands in FROM becomes a subquery with exactly two inputs, an ON condition and a filter, which
 * outer_join.c compiles; what is joined below one of its sides becomes a subquery again, and so on downwards.
 *
 * On the way, outer joins become inner (or less outer) where a condition above rejects the rows that they add: a condition that
 * is never true for a NULL-extended row makes them useless (Galindo-Legaria and Rosenthal, TODS 1997).  Conditions on the join's own
 * columns move into the subquery, so that it remembers and hands on only what is wanted.
 */
#include "postgres.h"

#include "block.h"
#include "keyed.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "temporal.h"
#include "tree_build.h"

/* ---- FROM as a list of items and a list of conditions ---- */

void
collect_from_items(Node *node, List **items, List **quals)
{
	if (node == NULL)
		return;
	if (IsA(node, FromExpr))
	{
		ListCell   *lc;

		foreach(lc, ((FromExpr *) node)->fromlist)
			collect_from_items(lfirst(lc), items, quals);
		*quals = list_concat(*quals, make_ands_implicit((Expr *) ((FromExpr *) node)->quals));
	}
	else if (IsA(node, JoinExpr) && ((JoinExpr *) node)->jointype == JOIN_INNER)
	{
		collect_from_items(((JoinExpr *) node)->larg, items, quals);
		collect_from_items(((JoinExpr *) node)->rarg, items, quals);
		*quals = list_concat(*quals, make_ands_implicit((Expr *) ((JoinExpr *) node)->quals));
	}
	else
		*items = lappend(*items, node);
}

static Node *
all_of(List *quals)
{
	return quals == NIL ? NULL : (Node *) make_ands_explicit(quals);
}

/* Range-table indexes of the tables below a FROM item; joins themselves are not counted. */
static Bitmapset *
tables_below(Node *node)
{
	Bitmapset  *tables = NULL;

	if (IsA(node, RangeTblRef))
		return bms_make_singleton(((RangeTblRef *) node)->rtindex);
	if (IsA(node, JoinExpr))
		return bms_union(tables_below(((JoinExpr *) node)->larg), tables_below(((JoinExpr *) node)->rarg));
	if (IsA(node, FromExpr))
	{
		ListCell   *lc;

		foreach(lc, ((FromExpr *) node)->fromlist)
			tables = bms_add_members(tables, tables_below(lfirst(lc)));
	}
	return tables;
}

/* ---- outer joins that need not be ---- */

/* Makes joins less outer; `wanted`: the tables of which a condition above rejects NULL-extended rows. */
static void
reduce_outer_joins(Node *node, Bitmapset *wanted)
{
	JoinExpr   *join;
	bool		left_wanted;
	bool		right_wanted;
	Bitmapset  *below;

	if (!IsA(node, JoinExpr))
		return;
	join = (JoinExpr *) node;
	left_wanted = bms_overlap(wanted, tables_below(join->larg));
	right_wanted = bms_overlap(wanted, tables_below(join->rarg));
	if (join->jointype == JOIN_FULL && left_wanted)
		join->jointype = right_wanted ? JOIN_INNER : JOIN_LEFT;
	else if (join->jointype == JOIN_FULL && right_wanted)
		join->jointype = JOIN_RIGHT;
	else if ((join->jointype == JOIN_LEFT && right_wanted) || (join->jointype == JOIN_RIGHT && left_wanted))
		join->jointype = JOIN_INNER;

	/* The ON condition rejects NULL-extended rows of a side that is not itself preserved here. */
	below = find_nonnullable_rels(join->quals);
	reduce_outer_joins(join->larg, join->jointype == JOIN_FULL ? NULL :
					   join->jointype == JOIN_LEFT ? wanted : bms_union(wanted, below));
	reduce_outer_joins(join->rarg, join->jointype == JOIN_FULL ? NULL :
					   join->jointype == JOIN_RIGHT ? wanted : bms_union(wanted, below));
}

/* ---- moving a FROM item into a subquery ---- */

typedef struct MoveContext
{
	Bitmapset  *moved;			/* range-table indexes */
	int			rtindex;		/* of the new subquery */
	List	   *vars;			/* of Var: the subquery's columns, in its level's numbering */
	int			level;
} MoveContext;

static Node *
move_mutator(Node *node, MoveContext *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		Query	   *result;

		context->level++;
		result = query_tree_mutator((Query *) node, move_mutator, context, 0);
		context->level--;
		return (Node *) result;
	}
	if (IsA(node, Var) && ((Var *) node)->varlevelsup == (Index) context->level &&
		bms_is_member(((Var *) node)->varno, context->moved))
	{
		Var		   *var = copyObject((Var *) node);
		int			position = 0;
		ListCell   *lc;

		foreach(lc, context->vars)
		{
			Var		   *known = lfirst_node(Var, lc);

			if (known->varno == var->varno && known->varattno == var->varattno)
				position = foreach_current_index(lc) + 1;
		}
		if (position == 0)
		{
			Var		   *column = copyObject(var);

			column->varlevelsup = 0;
			context->vars = lappend(context->vars, column);
			position = list_length(context->vars);
		}
		return (Node *) makeVar(context->rtindex, position, var->vartype, var->vartypmod, var->varcollid,
								context->level);
	}
	return expression_tree_mutator(node, move_mutator, context);
}

static char *
column_name(Query *query, Var *var)
{
	RangeTblEntry *rte = rt_fetch(var->varno, query->rtable);

	return var->varattno > 0 && var->varattno <= list_length(rte->eref->colnames)
		? pstrdup(strVal(list_nth(rte->eref->colnames, var->varattno - 1))) : NULL;
}

static List *
columns_of(Query *query, List *vars)
{
	List	   *targets = NIL;
	ListCell   *lc;

	foreach(lc, vars)
		targets = lappend(targets, makeTargetEntry(copyObject(lfirst(lc)), list_length(targets) + 1,
												   column_name(query, lfirst(lc)), false));
	/* nobody looks at a column, only at how many rows there are */
	if (targets == NIL)
		targets = list_make1(makeTargetEntry((Expr *) makeBoolConst(true, false), 1, pstrdup("row"), false));
	rename_targets(targets, target_column_names(targets));
	return targets;
}

Bitmapset *
joins_in(Node *node)
{
	Bitmapset  *joins = NULL;

	if (node == NULL)
		return NULL;
	if (IsA(node, JoinExpr))
		joins = bms_add_member(bms_union(joins_in(((JoinExpr *) node)->larg), joins_in(((JoinExpr *) node)->rarg)),
							   ((JoinExpr *) node)->rtindex);
	else if (IsA(node, FromExpr))
	{
		ListCell   *lc;

		foreach(lc, ((FromExpr *) node)->fromlist)
			joins = bms_add_members(joins, joins_in(lfirst(lc)));
	}
	return joins;
}

/* Nothing looks at these entries. */
static void
forget_entries(List *rtable, Bitmapset *kept, bool keep)
{
	ListCell   *lc;

	foreach(lc, rtable)
	{
		if (bms_is_member(foreach_current_index(lc) + 1, kept) != keep)
			lfirst(lc) = empty_rte();
	}
}

/*
 * Moves `item` and the conditions `quals` into a new subquery of `query`, and everything that refers to them to its columns.
 * The item must already be out of query->jointree.  Returns what stands in FROM for it.
 */
Node *
move_into_subquery(Query *query, Node *item, List *quals)
{
	Query	   *subquery = makeNode(Query);
	MoveContext context = {tables_below(item), list_length(query->rtable) + 1, NIL, 0};
	List	   *old_rtable = copyObject(query->rtable);
	List	   *items = NIL;
	List	   *conditions = NIL;

	/* flat, because one that reads no table stays as it is, and the server prints no FROM below a FROM */
	collect_from_items(item, &items, &conditions);
	subquery->commandType = CMD_SELECT;
	subquery->canSetTag = true;
	subquery->rtable = old_rtable;
	subquery->jointree = makeFromExpr(items, all_of(list_concat(conditions, quals)));

	/* each entry is in one of the two from here on; what has moved is looked at no more, so that it adds no columns */
	forget_entries(old_rtable, bms_union(context.moved, joins_in((Node *) subquery->jointree)), true);
	forget_entries(query->rtable, bms_union(context.moved, joins_in(item)), false);
	query_tree_mutator(query, move_mutator, &context, QTW_DONT_COPY_QUERY | QTW_IGNORE_JOINALIASES);
	subquery->targetList = columns_of(subquery, context.vars);
	/* what pointed above this level now has one more level to cross */
	IncrementVarSublevelsUp((Node *) subquery, 1, 1);

	query->rtable = lappend(query->rtable, subquery_rte(subquery, "joined"));
	return (Node *) reference_to(context.rtindex);
}

/* Takes the conditions that are about `tables` only out of a list. */
static List *
take_quals_about(List **quals, Bitmapset *tables)
{
	List	   *taken = NIL;
	List	   *left = NIL;
	ListCell   *lc;

	foreach(lc, *quals)
	{
		Node	   *qual = lfirst(lc);
		Relids		used = pull_varnos(NULL, qual);

		if (!bms_is_empty(used) && bms_is_subset(used, tables) && !contains_sublink(qual) &&
			!temporal_mentions_time(qual))
			taken = lappend(taken, qual);
		else
			left = lappend(left, qual);
	}
	*quals = left;
	return taken;
}

/* Tables outside of `item` that its LATERAL parts refer to. */
static Bitmapset *
lateral_references(Query *query, Node *item)
{
	Bitmapset  *inside = tables_below(item);
	Bitmapset  *used = NULL;
	int			member = -1;

	while ((member = bms_next_member(inside, member)) >= 0)
	{
		RangeTblEntry *rte = rt_fetch(member, query->rtable);

		used = bms_add_members(used, pull_varnos(NULL, (Node *) rte->functions));
		used = bms_add_members(used, pull_varnos(NULL, (Node *) rte->values_lists));
		used = bms_add_members(used, pull_varnos(NULL, (Node *) rte->tablefunc));
		if (rte->rtekind == RTE_SUBQUERY)
			used = bms_add_members(used, pull_varnos_of_level(NULL, (Node *) rte->subquery, 1));
	}
	return bms_difference(used, inside);
}

/* A side of an outer join as a single input; NULL when that has no rule. */
static Node *
single_input(Compiler *compiler, Query *query, Node *side)
{
	if (IsA(side, RangeTblRef))
		return side;
	if (!bms_is_empty(lateral_references(query, side)))
		return compile_cannot(compiler, "a LATERAL reference from a join below one side of an outer join to the other side has no delta rule");
	return move_into_subquery(query, side, NIL);
}

static bool
with_single_inputs(Compiler *compiler, Query *query)
{
	JoinExpr   *join = linitial_node(JoinExpr, query->jointree->fromlist);
	Node	   *left = join->larg;
	Node	   *right = join->rarg;

	/* A moved side must be out of the tree while references to it are changed, but ON must be in it. */
	join->larg = join->rarg = NULL;
	left = single_input(compiler, query, left);
	right = left == NULL ? NULL : single_input(compiler, query, right);
	if (right == NULL)
		return false;

	/* the tree has been copied on the way */
	join = linitial_node(JoinExpr, query->jointree->fromlist);
	join->larg = left;
	join->rarg = right;
	if (join->jointype == JOIN_RIGHT)
	{
		join->jointype = JOIN_LEFT;
		join->larg = right;
		join->rarg = left;
	}
	return true;
}

/* ---- the pass ---- */

static bool
is_outer_join(Node *item)
{
	return IsA(item, JoinExpr) && ((JoinExpr *) item)->jointype != JOIN_INNER;
}

bool
level_is_outer_join(Query *query)
{
	return list_length(query->jointree->fromlist) == 1 && is_outer_join(linitial(query->jointree->fromlist)) &&
		!temporal_mentions_time(query->jointree->quals) &&
		!query->hasAggs && query->groupClause == NIL && query->groupingSets == NIL && query->havingQual == NULL;
}

/*
 * FROM a, LATERAL f(a) LEFT JOIN c: what the join's left side refers to must be inside of the subquery too.  The items before it are joined to
 * its left side, which changes nothing: an outer join passes on the rows of the side that it preserves.
 */
static Node *
take_in_lateral(Query *query, List **items, Node *item)
{
	JoinExpr   *join = (JoinExpr *) item;
	List	   *kept = NIL;
	Bitmapset  *needed = lateral_references(query, item);
	ListCell   *lc;

	while (!bms_is_empty(needed))
	{
		Bitmapset  *still = NULL;

		kept = NIL;
		foreach(lc, *items)
		{
			Node	   *other = lfirst(lc);
			Node	  **side = join->jointype == JOIN_RIGHT ? &join->rarg : &join->larg;

			if (!bms_overlap(tables_below(other), needed))
			{
				kept = lappend(kept, other);
				continue;
			}
			still = bms_add_members(still, lateral_references(query, other));
			*side = (Node *) makeFromExpr(list_make2(other, *side), NULL);
		}
		*items = kept;
		needed = bms_difference(still, tables_below(item));
	}
	return item;
}

bool
isolate_outer_joins(Compiler *compiler, Query *query)
{
	List	   *from_items = NIL;
	List	   *quals_of_from = NIL;
	List	   *items = NIL;
	Bitmapset  *wanted = NULL;
	bool		any_outer = false;
	ListCell   *lc;

	resolve_all_aliases(query);
	collect_from_items((Node *) query->jointree, &from_items, &quals_of_from);
	wanted = find_nonnullable_rels((Node *) quals_of_from);
	foreach(lc, from_items)
		reduce_outer_joins(lfirst(lc), wanted);

	/* some are inner joins now */
	query->jointree = makeFromExpr(from_items, all_of(quals_of_from));
	from_items = quals_of_from = NIL;
	collect_from_items((Node *) query->jointree, &from_items, &quals_of_from);
	foreach(lc, from_items)
		any_outer |= is_outer_join(lfirst(lc));
	query->jointree = makeFromExpr(from_items, all_of(quals_of_from));
	if (!any_outer)
		return true;

	if (level_is_outer_join(query))
		return with_single_inputs(compiler, query);
	for (int i = 0; i < list_length(query->jointree->fromlist); i++)
	{
		Node	   *item = list_nth(query->jointree->fromlist, i);
		List	   *quals = make_ands_implicit((Expr *) query->jointree->quals);
		List	   *inside;
		Node	   *reference;

		if (!is_outer_join(item))
		{
			items = lappend(items, item);
			continue;
		}
		item = take_in_lateral(query, &items, item);
		inside = take_quals_about(&quals, tables_below(item));
		/* while it moves, it is in neither place; the ones before and after it are what refers to it */
		query->jointree = makeFromExpr(list_concat(list_copy(items),
												   list_copy_tail(query->jointree->fromlist, i + 1)),
									   all_of(quals));
		reference = move_into_subquery(query, item, inside);
		items = list_concat(list_copy(items), list_make1(reference));
		query->jointree = makeFromExpr(list_concat(list_copy(items),
												   list_copy_tail(query->jointree->fromlist,
																  list_length(items) - 1)),
									   query->jointree->quals);
		i = list_length(items) - 1;
	}
	return true;
}
