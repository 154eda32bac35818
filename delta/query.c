/*
 * delta/query.c
 *     From query text to a tree that the compiler's operators can work on.
 *
 * Uses the server's own parser, analyser and rewriter, so a defining query means exactly what it means in psql.
 * Three passes follow: views have become subqueries (rewriter), WITH queries are put in place of their names (here),
 * and what can never define a stream table is refused (query_check.c).  Joins, grouping and the rest belong to compile.c.
 */
#include "postgres.h"

#include "block.h"
#include "canonical.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "query.h"
#include "program.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rewriteManip.h"
#include "tcop/tcopprot.h"
#include "tree_build.h"
#include "utils/guc.h"
#include "utils/ruleutils.h"

static void inline_with_queries(Query *query);

Query *
query_analyze(const char *text)
{
	List	   *statements = pg_parse_query(text);

	if (list_length(statements) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("a defining query must be one statement, got %d", list_length(statements)),
				 errhint("Pass a single SELECT without a semicolon after it.")));

	RawStmt    *statement = linitial_node(RawStmt, statements);

	if (!IsA(statement->stmt, SelectStmt))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a defining query must be a SELECT"),
				 errhint("Pass a SELECT, VALUES or TABLE statement.")));
	if (((SelectStmt *) statement->stmt)->intoClause != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a defining query cannot have an INTO clause"),
				 errhint("The stream table's name is the first argument of create_stream_table.")));

	Query	   *query = parse_analyze_fixedparams(statement, text, NULL, 0, NULL);

	if (query->commandType != CMD_SELECT)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a defining query must be a SELECT")));
	return query;
}

static Query *
expand_views(Query *query)
{
	List	   *rewritten;

	AcquireRewriteLocks(query, true, false);
	rewritten = QueryRewrite(query);
	if (list_length(rewritten) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a defining query cannot use relations with rules that yield several queries")));
	query = linitial_node(Query, rewritten);
	if (query->commandType != CMD_SELECT)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a defining query must be a SELECT")));
	return query;
}

/*
 * Orders are completed twice, so that all who come here complete them alike, whether they need views expanded or not: in the query as
 * it is written, then in what is in views.
 */
Query *
query_analyze_and_expand(const char *text, char **open_reason)
{
	Query	   *query = query_analyze(text);
	Canonical	canonical = {0};

	canonicalize(query, &canonical);
	query = expand_views(query);
	canonicalize(query, &canonical);
	query = fold_current_user(query);
	inline_with_queries(query);
	if (open_reason != NULL)
		*open_reason = canonical.open_reason;
	return query;
}

static bool
row_security_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
		return ((RangeTblEntry *) node)->securityQuals != NIL;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, row_security_walker, context, QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, row_security_walker, context);
}

Query *
query_analyze_to_run(const char *text)
{
	Query	   *query = query_analyze(text);
	Query	   *expanded;
	Canonical	canonical = {0};
	Canonical	inside = {0};

	canonicalize(query, &canonical);
	expanded = expand_views(copyObject(query));
	canonicalize(expanded, &inside);
	/* views are read as views where that is possible: with the rights of their owners, and with row-level security */
	return inside.changed && !row_security_walker((Node *) expanded, NULL) ? expanded : query;
}

/*
 * The deparser looks up the sides of every join in the range table, in FROM or not; rewrites take joins out of FROM and leave their entries
 * where they are, since the places of all others count.
 */
static bool
forget_lost_joins(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;
		Bitmapset  *joins = joins_in((Node *) query->jointree);
		ListCell   *lc;

		foreach(lc, query->rtable)
		{
			if (lfirst_node(RangeTblEntry, lc)->rtekind == RTE_JOIN &&
				!bms_is_member(foreach_current_index(lc) + 1, joins))
				lfirst(lc) = empty_rte();
		}
		return query_tree_walker(query, forget_lost_joins, context, 0);
	}
	return expression_tree_walker(node, forget_lost_joins, context);
}

/*
 * The deparser leaves out the schema of what the search_path finds.  With an empty one it leaves out nothing (pg_catalog
 * is searched anyway, first, so its names are safe without).
 */
char *
query_print(Query *query)
{
	int			nest_level = NewGUCNestLevel();
	char	   *text;

	/* The deparser takes locks on the tree's relations and may scribble on it. */
	query = copyObject(query);
	(void) forget_lost_joins((Node *) query, NULL);
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	text = pg_get_querydef(query, false);
	AtEOXact_GUC(true, nest_level);
	return text;
}

/*
 * Twice, because names that the deparser leaves out (of columns of later UNION branches, say) are not always those that the parser
 * comes to by itself: only the second text stays what it is when it is read and printed again.
 */
char *
query_normalize(const char *query_text)
{
	return query_print(query_analyze(query_print(query_analyze(query_text))));
}

/* ---- WITH queries in place of their names ---- */

typedef struct InlineContext
{
	const char *name;
	Query	   *definition;
	int			level;			/* how many query levels below the WITH clause we are */
} InlineContext;

static bool
inline_one_walker(Node *node, InlineContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		context->level++;
		(void) query_tree_walker((Query *) node, inline_one_walker, context,
								 QTW_EXAMINE_RTES_BEFORE);
		context->level--;
		return false;
	}
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		if (rte->rtekind == RTE_CTE &&
			rte->ctelevelsup == (Index) context->level &&
			!rte->self_reference &&
			strcmp(rte->ctename, context->name) == 0)
		{
			Query	   *body = copyObject(context->definition);

			if (context->level > 0)
				IncrementVarSublevelsUp((Node *) body, context->level, 1);
			rte->rtekind = RTE_SUBQUERY;
			rte->subquery = body;
			rte->security_barrier = false;
			rte->ctename = NULL;
			rte->ctelevelsup = 0;
			rte->self_reference = false;
			rte->coltypes = rte->coltypmods = rte->colcollations = NIL;
		}
		return false;			/* the walker goes on into the subquery by itself */
	}
	return expression_tree_walker(node, inline_one_walker, context);
}

static bool
inline_levels_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		inline_with_queries((Query *) node);
		return false;
	}
	return expression_tree_walker(node, inline_levels_walker, context);
}

/*
 * (WITH RECURSIVE r AS (...) SELECT all columns FROM r).  What the definition refers to outside of the clause is one level further up
 * there than it was.
 */
static Query *
recursive_subquery(CommonTableExpr *cte)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	List	   *targets = NIL;
	Query	   *query;

	cte = copyObject(cte);
	IncrementVarSublevelsUp(cte->ctequery, 1, 2);
	/* the rewriter has already made ordinary columns of these */
	cte->search_clause = NULL;
	cte->cycle_clause = NULL;
	rte->rtekind = RTE_CTE;
	rte->ctename = pstrdup(cte->ctename);
	rte->coltypes = list_copy(cte->ctecoltypes);
	rte->coltypmods = list_copy(cte->ctecoltypmods);
	rte->colcollations = list_copy(cte->ctecolcollations);
	rte->eref = makeAlias(cte->ctename, copyObject(cte->ctecolnames));
	rte->inFromCl = true;
	for (int i = 0; i < list_length(cte->ctecolnames); i++)
		targets = lappend(targets, makeTargetEntry((Expr *) makeVar(1, i + 1, list_nth_oid(rte->coltypes, i),
																	list_nth_int(rte->coltypmods, i),
																	list_nth_oid(rte->colcollations, i), 0),
												   i + 1, pstrdup(strVal(list_nth(cte->ctecolnames, i))), false));
	query = simple_query(list_make1(rte), NIL, targets);
	query->cteList = list_make1(cte);
	query->hasRecursive = true;
	return query;
}

/*
 * Replaces every reference to a WITH query by the query itself, innermost first.  Volatile functions are refused, so
 * computing it once or several times makes no difference (and equal levels are compiled once).  A recursive one becomes a subquery that
 * defines it and selects from it.
 */
static void
inline_with_queries(Query *query)
{
	ListCell   *lc;

	/* The inner levels, and the WITH queries themselves, first. */
	(void) query_tree_walker(query, inline_levels_walker, NULL, 0);

	foreach(lc, query->cteList)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, lc);
		InlineContext context;

		if (!IsA(cte->ctequery, Query) || ((Query *) cte->ctequery)->commandType != CMD_SELECT)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a defining query cannot modify data in a WITH query"),
					 errdetail("The WITH query \"%s\" is not a SELECT.", cte->ctename)));
		context.name = cte->ctename;
		context.definition = query->hasRecursive && cte->cterecursive ? recursive_subquery(cte)
			: (Query *) cte->ctequery;
		/* later WITH queries of the same clause refer to this one from one level below */
		context.level = 0;
		(void) query_tree_walker(query, inline_one_walker, &context, QTW_EXAMINE_RTES_BEFORE);
	}
	query->cteList = NIL;
	query->hasRecursive = false;
}
