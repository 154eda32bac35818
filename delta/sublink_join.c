/*
 * delta/sublink_join.c
 *     A subquery of an expression as a join of its level.
 *
 * Without its correlation (decorrelate.c, magic.c) it becomes an entry of the range table: joined for a row that must be there, or
 * by a LEFT JOIN on top of FROM for a value that may not be.  Several follow one another in the order in which they were found.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "parser/parsetree.h"
#include "sublink.h"
#include "tree_build.h"

void *
sublink_no_rule(SublinkRewrite *rewrite, const char *what)
{
	rewrite->failed = true;
	return compile_cannot(rewrite->compiler, "a subquery in an expression has no delta rule: %s", what);
}

/* The subquery without references to this level; NULL, and noted, when there is no rule. */
Detached *
sublink_detach(SublinkRewrite *rewrite, SubLink *sublink)
{
	Detached   *detached = detach_subquery(copyObject((Query *) sublink->subselect));

	if (detached == NULL && rewrite->is_wrapped)
		detached = detach_by_magic(rt_fetch(((RangeTblRef *) linitial(rewrite->items))->rtindex, rewrite->query->rtable),
								   copyObject((Query *) sublink->subselect));
	if (detached == NULL)
		return sublink_no_rule(rewrite, "it is correlated by other than equalities, and by values, or in a place, for which there is no other rule");
	return detached;
}

static int
add_entry(SublinkRewrite *rewrite, Query *query, const char *alias)
{
	rewrite->query->rtable = lappend(rewrite->query->rtable, subquery_rte(query, alias));
	return list_length(rewrite->query->rtable);
}

int
sublink_left_join(SublinkRewrite *rewrite, Detached *detached, const char *alias)
{
	AddedJoin  *join = palloc0(sizeof(AddedJoin));

	join->rtindex = add_entry(rewrite, detached->query, alias);
	join->on = detached_quals(detached, join->rtindex);
	rewrite->joins = lappend(rewrite->joins, join);
	return join->rtindex;
}

int
sublink_inner_join(SublinkRewrite *rewrite, Detached *detached, const char *alias)
{
	int			rtindex = add_entry(rewrite, detached->query, alias);

	rewrite->items = lappend(rewrite->items, (Node *) reference_to(rtindex));
	rewrite->quals = list_concat(rewrite->quals, detached_quals(detached, rtindex));
	return rtindex;
}

/* A column of an aggregate's row, or what it shows over nothing where the row is missing. */
Node *
sublink_value_or_empty(Detached *detached, int rtindex, int column)
{
	Var		   *value = subquery_var(detached->query, rtindex, column, 0);
	NullTest   *matched;
	CaseExpr   *choice;
	CaseWhen   *when;

	if (detached->outer == NIL || detached->empty == NIL)
		return (Node *) value;
	matched = makeNode(NullTest);
	matched->arg = (Expr *) subquery_var(detached->query, rtindex, detached->ncolumns + 1, 0);
	matched->nulltesttype = IS_NOT_NULL;
	when = makeNode(CaseWhen);
	when->expr = (Expr *) matched;
	when->result = (Expr *) value;
	choice = makeNode(CaseExpr);
	choice->casetype = value->vartype;
	choice->casecollid = value->varcollid;
	choice->args = list_make1(when);
	choice->defresult = copyObject(list_nth(detached->empty, column - 1));
	return (Node *) choice;
}

void
sublink_build_from(SublinkRewrite *rewrite)
{
	FromExpr   *from = makeFromExpr(rewrite->items, rewrite->quals == NIL ? NULL
									: (Node *) make_ands_explicit(rewrite->quals));
	ListCell   *lc;

	foreach(lc, rewrite->joins)
	{
		AddedJoin  *added = lfirst(lc);
		JoinExpr   *join = makeNode(JoinExpr);

		join->jointype = JOIN_LEFT;
		join->larg = (Node *) from;
		join->rarg = (Node *) reference_to(added->rtindex);
		join->quals = added->on == NIL ? makeBoolConst(true, false) : (Node *) make_ands_explicit(added->on);
		from = makeFromExpr(list_make1(join), NULL);
	}
	if (rewrite->outer_quals != NIL)
		from->quals = (Node *) make_ands_explicit(list_concat(make_ands_implicit((Expr *) from->quals),
															  rewrite->outer_quals));
	rewrite->query->jointree = from;
}

