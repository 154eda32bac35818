/*
 * delta/normalize.c
 *     One query level as a block: a list of inputs and one list of conditions.
 *
 * Inner joins in any writing (comma, JOIN ON, USING, NATURAL, nested) come out the same: their tables in the order in which
 * they were written, which keeps LATERAL references pointing backwards, and all conditions in one list.  Each input is compiled first, so
 * a view or a subquery is an input like a table is: something with a delta and a new state.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "block.h"
#include "catalog/catalog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type_d.h"
#include "compat.h"
#include "equality.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "rowset.h"
#include "sublink.h"
#include "temporal.h"
#include "tree_build.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* ---- what a level must not have ---- */

/* Does it read a table, or a WITH query from outside?  *depth: how many query levels we are inside of it. */
static bool
reads_tables_walker(Node *node, int *depth)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		return rte->rtekind == RTE_RELATION || (rte->rtekind == RTE_CTE && rte->ctelevelsup >= (Index) *depth);
	}
	if (IsA(node, Query))
	{
		bool		result;

		++*depth;
		result = query_tree_walker((Query *) node, reads_tables_walker, depth, QTW_EXAMINE_RTES_BEFORE);
		--*depth;
		return result;
	}
	return expression_tree_walker(node, reads_tables_walker, depth);
}

/* A subquery that reads no table is an expression, or an input, like any other that never changes by itself. */
bool
reads_tables(Node *node)
{
	int			depth = 0;

	return reads_tables_walker(node, &depth);
}

static bool
has_reading_sublink(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (reads_tables((Node *) rte->functions) || reads_tables((Node *) rte->values_lists) ||
			reads_tables((Node *) rte->tablefunc))
			return true;
	}
	return reads_tables((Node *) query->targetList) || reads_tables((Node *) query->jointree) ||
		reads_tables(query->havingQual);
}

bool
block_level_is_supported(Compiler *compiler, Query *query)
{
	if (has_reading_sublink(query))
		compile_cannot(compiler, "a subquery in ON of an outer join, or in an argument of a function in FROM, has no delta rule");
	else if (query->hasRecursive)
		compile_cannot(compiler, "WITH RECURSIVE has no delta rule yet");
	else
		return true;
	return false;
}

/* ---- flattening ---- */

typedef struct FlattenContext
{
	Compiler   *compiler;
	List	   *rtindexes;
	List	   *quals;
} FlattenContext;

static bool
flatten_from(FlattenContext *context, Node *node)
{
	if (node == NULL)
		return true;
	if (IsA(node, RangeTblRef))
	{
		context->rtindexes = lappend_int(context->rtindexes, ((RangeTblRef *) node)->rtindex);
		return true;
	}
	if (IsA(node, FromExpr))
	{
		FromExpr   *from = (FromExpr *) node;
		ListCell   *lc;

		foreach(lc, from->fromlist)
		{
			if (!flatten_from(context, lfirst(lc)))
				return false;
		}
		context->quals = list_concat(context->quals, make_ands_implicit((Expr *) from->quals));
		return true;
	}
	if (IsA(node, JoinExpr))
	{
		JoinExpr   *join = (JoinExpr *) node;

		if (join->jointype != JOIN_INNER)
			elog(ERROR, "an outer join is not in a level of its own");
		if (!flatten_from(context, join->larg) || !flatten_from(context, join->rarg))
			return false;
		context->quals = list_concat(context->quals, make_ands_implicit((Expr *) join->quals));
		return true;
	}
	elog(ERROR, "unrecognized node type in FROM: %d", (int) nodeTag(node));
	return false;
}

Node *
resolve_aliases(Query *query, Node *node)
{
#if PG_VERSION_NUM >= 180000
	if (query->hasGroupRTE)
		node = flatten_group_exprs(NULL, query, node);
#endif
#if PG_VERSION_NUM >= 160000
	return flatten_join_alias_vars(NULL, query, node);
#else
	return flatten_join_alias_vars(query, node);
#endif
}

#if PG_VERSION_NUM >= 160000
/* Which joins may have made a column NULL: the planner's notes, which comparing and counting columns must not see. */
static bool
forget_nulling_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		((Var *) node)->varnullingrels = NULL;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, forget_nulling_walker, context, 0);
	return expression_tree_walker(node, forget_nulling_walker, context);
}
#endif

void
resolve_all_aliases(Query *query)
{
	ListCell   *lc;

	query->jointree = (FromExpr *) resolve_aliases(query, (Node *) query->jointree);
	query->targetList = (List *) resolve_aliases(query, (Node *) query->targetList);
	query->havingQual = resolve_aliases(query, query->havingQual);
	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_FUNCTION)
			rte->functions = (List *) resolve_aliases(query, (Node *) rte->functions);
		else if (rte->rtekind == RTE_VALUES)
			rte->values_lists = (List *) resolve_aliases(query, (Node *) rte->values_lists);
		else if (rte->rtekind == RTE_TABLEFUNC)
			rte->tablefunc = (TableFunc *) resolve_aliases(query, (Node *) rte->tablefunc);
		else if (rte->rtekind == RTE_SUBQUERY && rte->lateral)
			rte->subquery = (Query *) resolve_aliases(query, (Node *) rte->subquery);
	}
#if PG_VERSION_NUM >= 160000
	(void) query_tree_walker(query, forget_nulling_walker, NULL, 0);
#endif
}

/* A Var also says through which join's alias it was written; the deparser would look there, and the joins are gone. */
static bool
forget_syntax_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		((Var *) node)->varnosyn = 0;
		((Var *) node)->varattnosyn = 0;
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, forget_syntax_walker, context, 0);
	return expression_tree_walker(node, forget_syntax_walker, context);
}

/*
 * Gives the inputs range-table indexes 1, 2, ... in the order of `rtindexes` and drops the other entries (joins, a view's
 * old and new row).
 */
void
block_renumber_inputs(Query *query, List *rtindexes)
{
	List	   *rtable = NIL;
	int			shift = list_length(query->rtable);
	ListCell   *lc;

	foreach(lc, rtindexes)
		rtable = lappend(rtable, rt_fetch(lfirst_int(lc), query->rtable));

	/* New and old numbers overlap; so move everything out of the way first. */
	for (int i = 0; i < list_length(rtindexes); i++)
		ChangeVarNodes((Node *) query, list_nth_int(rtindexes, i), shift + i + 1, 0);
	for (int i = 0; i < list_length(rtindexes); i++)
		ChangeVarNodes((Node *) query, shift + i + 1, i + 1, 0);
	query->rtable = rtable;
	(void) query_tree_walker(query, forget_syntax_walker, NULL, 0);
}

static FromExpr *
plain_from(List *rtindexes, List *quals)
{
	List	   *from = NIL;
	ListCell   *lc;

	foreach(lc, rtindexes)
		from = lappend(from, reference_to(lfirst_int(lc)));
	return makeFromExpr(from, (Node *) quals);
}

/* ---- inputs ---- */

/* The columns that make rows of a relation unique: primary key, or another unique index over NOT NULL columns. */
List *
relation_key(Relation relation)
{
	List	   *key = NIL;
	List	   *indexes = RelationGetIndexList(relation);
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		Form_pg_index form = index->rd_index;
		List	   *columns = NIL;
		bool		usable = form->indisunique && form->indimmediate && form->indisvalid &&
			RelationGetIndexPredicate(index) == NIL && RelationGetIndexExpressions(index) == NIL;

		for (int i = 0; usable && i < form->indnkeyatts; i++)
		{
			AttrNumber	attno = form->indkey.values[i];

			usable = attno > 0 && compat_is_never_null(RelationGetDescr(relation), attno) &&
				collations_agree(index->rd_indcollation[i], TupleDescAttr(RelationGetDescr(relation), attno - 1)->attcollation);
			columns = lappend_int(columns, attno);
		}
		if (usable && (key == NIL || form->indisprimary))
			key = columns;
		index_close(index, AccessShareLock);
	}
	return key;
}

static bool
relation_has_children(Oid relid)
{
	return has_subclass(relid) && list_length(find_all_inheritors(relid, NoLock, NULL)) > 1;
}

List *
relation_rte_key(RangeTblEntry *rte)
{
	Relation	relation = table_open(rte->relid, AccessShareLock);
	List	   *key = NIL;

	/* a child table may repeat its parent's keys */
	if (relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE || !rte->inh || !relation_has_children(rte->relid))
		key = relation_key(relation);
	table_close(relation, NoLock);
	return key;
}

static const char *
relation_without_delta(Relation relation)
{
	switch (relation->rd_rel->relkind)
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
			break;
		case RELKIND_FOREIGN_TABLE:
			return "is a foreign table, whose changes are not in the WAL";
		case RELKIND_MATVIEW:
			return "is a materialized view, whose changes are not decoded";
		default:
			return "is of a kind whose changes are not decoded";
	}
	if (relation->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
		return "is an unlogged table, whose changes are not in the WAL";
	if (IsCatalogRelation(relation) || RelationGetNamespace(relation) == PG_CATALOG_NAMESPACE)
		return "is a system catalog, whose changes are not decoded";
	return NULL;
}

static bool
describe_relation_input(Compiler *compiler, RangeTblEntry *rte, BlockInput *input)
{
	Relation	relation = table_open(rte->relid, AccessShareLock);
	TupleDesc	tupdesc = RelationGetDescr(relation);
	const char *obstacle = relation_without_delta(relation);
	bool		usable = true;

	if (relation->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a defining query cannot read temporary tables"),
				 errdetail("\"%s\" is gone when its session ends.", RelationGetRelationName(relation)),
				 errhint("Use an ordinary table as the source.")));
	if (obstacle != NULL)
	{
		compile_cannot(compiler, "source \"%s\" %s", RelationGetRelationName(relation), obstacle);
		usable = false;
	}
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(tupdesc, i);

		input->colnames = lappend(input->colnames, makeString(pstrdup(NameStr(attribute->attname))));
		input->coltypes = lappend_oid(input->coltypes,
									  attribute->attisdropped ? INT4OID : attribute->atttypid);
		input->coltypmods = lappend_int(input->coltypmods, attribute->atttypmod);
		input->colcollations = lappend_oid(input->colcollations, attribute->attcollation);
	}
	/* a child table may repeat its parent's keys */
	if (relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE || !rte->inh || !relation_has_children(rte->relid))
		input->key = relation_key(relation);
	table_close(relation, NoLock);
	return usable;
}

static bool
describe_subquery_input(Compiler *compiler, RangeTblEntry *rte, BlockInput *input)
{
	Compiled   *compiled;

	if (!reads_tables((Node *) rte->subquery))
		return true;
	/* the word alone means nothing */
	rte->lateral = is_correlated((Node *) rte->subquery, 1);
	if (rte->lateral)
	{
		compile_cannot(compiler, "a LATERAL subquery has no delta rule where it stands");
		return false;
	}
	/* what its columns are is asked first: compiling takes the query to pieces */
	input->colnames = target_column_names(rte->subquery->targetList);
	target_column_types(rte->subquery->targetList, &input->coltypes, &input->coltypmods, &input->colcollations);
	compiled = compile_level(compiler, rte->subquery);
	if (compiled == NULL)
		return false;
	input->rowset = compiled->rowset;
	input->states = compiled->states;
	input->key = compiled->key;

	rte->subquery = compiled->new_query;
	rte->eref = makeAlias(rte->eref->aliasname, copyObject(input->colnames));
	if (rte->alias != NULL)
		rte->alias = makeAlias(rte->alias->aliasname, NIL);
	rename_targets(compiled->new_query->targetList, input->colnames);
	return true;
}

typedef struct UsedColumns
{
	int			rtindex;
	int			sublevels_up;
	Bitmapset  *attnos;
} UsedColumns;

static bool
used_columns_walker(Node *node, UsedColumns *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		if (var->varno == context->rtindex && var->varlevelsup == (Index) context->sublevels_up && var->varattno > 0)
			context->attnos = bms_add_member(context->attnos, var->varattno);
		return false;
	}
	if (IsA(node, Query))
	{
		context->sublevels_up++;
		(void) query_tree_walker((Query *) node, used_columns_walker, context, 0);
		context->sublevels_up--;
		return false;
	}
	return expression_tree_walker(node, used_columns_walker, context);
}

BlockInput *
block_input_from_compiled(Compiled *compiled, const char *alias)
{
	BlockInput *input = palloc0(sizeof(BlockInput));
	List	   *targets = compiled->new_query->targetList;

	input->colnames = target_column_names(targets);
	rename_targets(targets, input->colnames);
	target_column_types(targets, &input->coltypes, &input->coltypmods, &input->colcollations);
	input->rowset = compiled->rowset;
	input->states = compiled->states;
	input->key = compiled->key;
	input->rte = makeNode(RangeTblEntry);
	input->rte->rtekind = RTE_SUBQUERY;
	input->rte->subquery = compiled->new_query;
	input->rte->alias = makeAlias(alias, NIL);
	input->rte->eref = makeAlias(alias, copyObject(input->colnames));
	input->rte->inFromCl = true;
	return input;
}

/* In all of the level, subqueries included. */
Bitmapset *
used_columns(Query *query, int rtindex)
{
	UsedColumns context = {rtindex, 0, NULL};

	(void) query_tree_walker(query, used_columns_walker, &context, 0);
	return context.attnos;
}

BlockInput *
block_describe_input(Compiler *compiler, Query *query, int rtindex)
{
	RangeTblEntry *rte = rt_fetch(rtindex, query->rtable);
	BlockInput *input = palloc0(sizeof(BlockInput));
	Bitmapset  *used_attnos;

	input->rte = rte;
	input->rowset = -1;
	switch (rte->rtekind)
	{
		case RTE_RELATION:
			used_attnos = used_columns(query, rtindex);
			if (compute_virtual_columns(rte, used_attnos))
				return describe_subquery_input(compiler, rte, input) ? input : NULL;
			if (!describe_relation_input(compiler, rte, input))
			{
				program_note_source(compiler, rte->relid, used_attnos, false);
				return NULL;
			}
			program_note_source(compiler, rte->relid, used_attnos, true);
			input->rowset = program_source_rowset(compiler, rte->relid, !rte->inh && relation_has_children(rte->relid));
			return input;
		case RTE_SUBQUERY:
			return describe_subquery_input(compiler, rte, input) ? input : NULL;
		case RTE_FUNCTION:
		case RTE_VALUES:
		case RTE_TABLEFUNC:
			/* never changes by itself; a LATERAL one follows the input that it refers to, in every term */
			return input;
		case RTE_RESULT:
			return input;
		case RTE_CTE:
			/* a recursive query's reference to itself, which recursion.c replaces */
			Assert(rte->self_reference);
			input->colnames = copyObject(rte->eref->colnames);
			input->coltypes = list_copy(rte->coltypes);
			input->coltypmods = list_copy(rte->coltypmods);
			input->colcollations = list_copy(rte->colcollations);
			return input;
		default:
			return compile_cannot(compiler, "a FROM item of kind %d has no delta rule yet", (int) rte->rtekind);
	}
}

QueryBlock *
block_from_query(Compiler *compiler, Query *query)
{
	FlattenContext context = {compiler, NIL, NIL};
	QueryBlock *block = palloc0(sizeof(QueryBlock));
	bool		complete = true;

	resolve_all_aliases(query);
	if (!block_level_is_supported(compiler, query) || !flatten_from(&context, (Node *) query->jointree))
	{
		note_all_sources(compiler, query);
		return NULL;
	}
	query->jointree = plain_from(context.rtindexes, context.quals);
	block_renumber_inputs(query, context.rtindexes);
	if (list_length(query->rtable) > BLOCK_INPUTS_MAX)
		return compile_cannot(compiler, "a join of more than %d inputs has no delta rule", BLOCK_INPUTS_MAX);

	block->program = compiler->program;
	block->query = query;
	block->quals = (List *) query->jointree->quals;
	temporal_note_quals(block);
	for (int i = 1; i <= list_length(query->rtable); i++)
	{
		BlockInput *input = block_describe_input(compiler, query, i);

		if (input == NULL)
			complete = false;	/* go on: the other sources must be known all the same */
		else
		{
			block->inputs = lappend(block->inputs, input);
			block->states = list_union_ptr(block->states, input->states);
		}
	}
	if (!complete)
		return NULL;
	block_add_near_rows(compiler, block);
	return block;
}
