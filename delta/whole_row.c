/*
 * delta/whole_row.c
 *     Rewrites references to whole rows: to_jsonb(t), t IS NOT NULL, count(t), t::text.
 *
 * A delta has the columns of its input and a weight, so "the row of t" cannot stand as it is.  What replaces it is built from columns:
 *
 *     a table's row          ROW(t.a, t.b)::t
 *     a subquery's, a join's (SELECT r FROM (SELECT s.a AS a, s.b AS b) r)      reads no table; keeps the names that to_jsonb(s) shows
 *
 * A table or subquery that an outer join can extend by NULLs is wrapped first: its row is then one more of its columns,
 *
 *     ... LEFT JOIN (SELECT t.a, t.b, ROW(t.a, t.b)::t AS whole FROM t) t ON ...
 *
 * because the row of what was not there is NULL, and not a row of NULLs.  Rows of functions and VALUES stay: these are never read from a delta.
 * IS [NOT] NULL of a row asks for each column, and so becomes one test for each, with and without an outer join.
 */
#include "postgres.h"

#include "block.h"
#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "tree_build.h"

typedef struct WholeRowContext
{
	Compiler   *compiler;
	Query	   *query;
	Bitmapset  *nullable;		/* range-table indexes that an outer join can extend by NULLs */
	Bitmapset  *wrapped;		/* of these, the ones whose row is asked for */
	int			sublevels_up;
	bool		found;
	bool		failed;
} WholeRowContext;

static void
note_nullable(Node *node, bool nullable, Bitmapset **result)
{
	ListCell   *lc;

	if (node == NULL)
		return;
	if (IsA(node, RangeTblRef))
	{
		if (nullable)
			*result = bms_add_member(*result, ((RangeTblRef *) node)->rtindex);
		return;
	}
	if (IsA(node, FromExpr))
	{
		foreach(lc, ((FromExpr *) node)->fromlist)
			note_nullable(lfirst(lc), nullable, result);
		return;
	}

	JoinExpr   *join = castNode(JoinExpr, node);
	bool		is_full = join->jointype == JOIN_FULL;

	note_nullable(join->larg, nullable || is_full || join->jointype == JOIN_RIGHT, result);
	note_nullable(join->rarg, nullable || is_full || join->jointype == JOIN_LEFT, result);
	if (nullable && join->rtindex > 0)
		*result = bms_add_member(*result, join->rtindex);
}

/* ---- a row from its columns ---- */

static Node *
named_row(RangeTblEntry *rte, int rtindex, Oid type, int sublevels_up)
{
	RowExpr    *row = makeNode(RowExpr);
	List	   *names;

	entry_columns(rte, rtindex, sublevels_up, true, &names, &row->args);
	row->row_typeid = type;
	row->row_format = COERCE_EXPLICIT_CAST;
	row->location = -1;
	return (Node *) row;
}

static Node *
anonymous_row(RangeTblEntry *rte, int rtindex, int sublevels_up)
{
	SubLink    *sublink = makeNode(SubLink);
	Query	   *columns = makeNode(Query);
	Query	   *row;
	List	   *names;
	List	   *vars;
	ListCell   *name_cell;
	ListCell   *var_cell;

	entry_columns(rte, rtindex, sublevels_up + 2, false, &names, &vars);
	columns->commandType = CMD_SELECT;
	columns->canSetTag = true;
	columns->jointree = makeFromExpr(NIL, NULL);
	forboth(name_cell, names, var_cell, vars)
		columns->targetList = lappend(columns->targetList,
									  makeTargetEntry(lfirst(var_cell), list_length(columns->targetList) + 1,
													  pstrdup(strVal(lfirst(name_cell))), false));
	row = simple_query(list_make1(subquery_rte(columns, "whole_row")), NIL,
					   list_make1(makeTargetEntry((Expr *) makeVar(1, 0, RECORDOID, -1, InvalidOid, 0), 1,
												  pstrdup("whole_row"), false)));
	/* exactly the names, also when some are equal */
	linitial_node(RangeTblEntry, row->rtable)->eref->colnames = copyObject(names);
	sublink->subLinkType = EXPR_SUBLINK;
	sublink->subselect = (Node *) row;
	sublink->location = -1;
	return (Node *) sublink;
}

static Node *
row_from_columns(RangeTblEntry *rte, int rtindex, Oid type, int sublevels_up)
{
	return type == RECORDOID ? anonymous_row(rte, rtindex, sublevels_up) : named_row(rte, rtindex, type, sublevels_up);
}

/* t IS NULL: a IS NULL AND b IS NULL; t IS NOT NULL: a IS NOT NULL AND b IS NOT NULL.  A row inside of the row is only looked at as a whole. */
static Node *
tests_of_columns(NullTest *whole, RangeTblEntry *rte, int rtindex, int sublevels_up)
{
	List	   *tests = NIL;
	List	   *names;
	List	   *vars;
	ListCell   *lc;

	entry_columns(rte, rtindex, sublevels_up, false, &names, &vars);
	foreach(lc, vars)
	{
		NullTest   *test = makeNode(NullTest);

		test->arg = lfirst(lc);
		test->nulltesttype = whole->nulltesttype;
		test->argisrow = false;
		test->location = -1;
		tests = lappend(tests, test);
	}
	return (Node *) make_ands_explicit(tests);
}

/* ---- replacing ---- */

static int
column_count(RangeTblEntry *rte)
{
	List	   *names;
	List	   *vars;

	entry_columns(rte, 1, 0, true, &names, &vars);
	return list_length(names);
}

static Node *
replace_whole_row(WholeRowContext *context, Var *var)
{
	RangeTblEntry *rte = rt_fetch(var->varno, context->query->rtable);

	context->found = true;
	if (!bms_is_member(var->varno, context->nullable))
		return row_from_columns(rte, var->varno, var->vartype, context->sublevels_up);
	if (rte->rtekind == RTE_JOIN)
	{
		context->failed = true;
		return (Node *) var;
	}
	context->wrapped = bms_add_member(context->wrapped, var->varno);
	var = copyObject(var);
	var->varattno = column_count(rte) + 1;
	return (Node *) var;
}

/* A row that can come from a delta, and so has to be replaced? */
static bool
is_whole_row(Node *node, WholeRowContext *context)
{
	Var		   *var = (Var *) node;
	RTEKind		kind;

	if (!IsA(var, Var) || var->varattno != 0 || var->varlevelsup != (Index) context->sublevels_up)
		return false;
	kind = rt_fetch(var->varno, context->query->rtable)->rtekind;
	return kind == RTE_RELATION || kind == RTE_SUBQUERY || kind == RTE_JOIN;
}

static Node *
whole_row_mutator(Node *node, WholeRowContext *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, NullTest) && ((NullTest *) node)->argisrow && is_whole_row((Node *) ((NullTest *) node)->arg, context))
	{
		Var		   *var = (Var *) ((NullTest *) node)->arg;

		context->found = true;
		return tests_of_columns((NullTest *) node, rt_fetch(var->varno, context->query->rtable), var->varno,
								context->sublevels_up);
	}
	if (is_whole_row(node, context))
		return replace_whole_row(context, (Var *) node);
	if (IsA(node, Query))
	{
		Query	   *query;

		context->sublevels_up++;
		query = query_tree_mutator((Query *) node, whole_row_mutator, context, 0);
		context->sublevels_up--;
		return (Node *) query;
	}
	return expression_tree_mutator(node, whole_row_mutator, context);
}

/* The entry becomes a subquery over itself, with all columns in their places and the row behind them. */
static void
wrap_entry(RangeTblEntry *rte, int rtindex, Oid type)
{
	Query	   *query = entry_as_query(rte, rtindex);
	RangeTblEntry *inner = linitial_node(RangeTblEntry, query->rtable);

	query->targetList = lappend(query->targetList,
								makeTargetEntry((Expr *) row_from_columns(inner, 1, type, 0), list_length(query->targetList) + 1,
												pstrdup("whole"), false));
	query->hasSubLinks = type == RECORDOID;
	entry_becomes_subquery(rte, query);
}

static Oid
row_type(RangeTblEntry *rte)
{
	Var		   *var = makeWholeRowVar(rte, 1, 0, false);

	return var->vartype;
}

Query *
rewrite_whole_rows(Compiler *compiler, Query *query)
{
	WholeRowContext context = {0};
	Query	   *rewritten;
	int			rtindex = -1;

	context.compiler = compiler;
	context.query = query;
	note_nullable((Node *) query->jointree, false, &context.nullable);
	rewritten = query_tree_mutator(query, whole_row_mutator, &context, 0);
	if (!context.found)
		return query;
	if (context.failed)
		return compile_cannot(compiler, "the whole row of a join below an outer join has no delta rule");
	while ((rtindex = bms_next_member(context.wrapped, rtindex)) >= 0)
	{
		RangeTblEntry *rte = rt_fetch(rtindex, rewritten->rtable);

		if (rte->lateral)
			return compile_cannot(compiler, "the whole row of a LATERAL subquery below an outer join has no delta rule");
		wrap_entry(rte, rtindex, row_type(rt_fetch(rtindex, query->rtable)));
	}
	rewritten->hasSubLinks = true;
	return rewritten;
}
