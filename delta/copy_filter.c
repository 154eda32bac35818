/*
 * delta/copy_filter.c
 *     Which rows of a remote's table are kept in a copy.
 *
 * The condition is SQL over the copy's columns.  The program puts it into the query by which a table is copied; the changes after that are
 * looked at here.  Only immutable conditions will do: one that changes its mind about a row would leave it where it does not belong.
 */
#include "copy_filter.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "compat.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_clause.h"
#include "parser/parse_collate.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(pgtrickle_check_row_filter);

struct CopyFilter
{
	EState	   *estate;
	ExprState  *state;
	TupleTableSlot *slot;		/* a row of the copy */
	const AttrNumber *attnos;
	int			ncolumns;
};

/* The tree of `SELECT WHERE <condition>`, which must be one condition and nothing else. */
static Node *
parse_condition(const char *condition)
{
	List	   *statements = raw_parser(psprintf("SELECT WHERE %s", condition), RAW_PARSE_DEFAULT);
	SelectStmt *select = list_length(statements) == 1 ? (SelectStmt *) linitial_node(RawStmt, statements)->stmt : NULL;

	if (select == NULL || !IsA(select, SelectStmt) || select->whereClause == NULL || select->op != SETOP_NONE ||
		select->groupClause != NIL || select->havingClause != NULL || select->windowClause != NIL || select->sortClause != NIL ||
		select->limitCount != NULL || select->limitOffset != NULL || select->lockingClause != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("row filter \"%s\" is not a condition", condition)));
	return select->whereClause;
}

static Expr *
analyze_condition(const char *condition, Relation relation)
{
	ParseState *pstate = make_parsestate(NULL);
	ParseNamespaceItem *item = addRangeTableEntryForRelation(pstate, relation, AccessShareLock, NULL, false, false);
	Node	   *node;

	addNSItemToQuery(pstate, item, false, true, true);
	node = transformWhereClause(pstate, parse_condition(condition), EXPR_KIND_WHERE, "row filter");
	assign_expr_collations(pstate, node);
	if (pstate->p_hasSubLinks || contain_mutable_functions(node) || expression_returns_set(node))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("row filter \"%s\" does not depend on the row alone", condition),
				 errhint("Use columns, constants and immutable functions.")));
	free_parsestate(pstate);
	return expression_planner((Expr *) node);
}

CopyFilter *
copy_filter_create(const char *condition, Oid relid, const AttrNumber *attnos, int ncolumns)
{
	CopyFilter *filter = palloc0(sizeof(CopyFilter));
	Relation	relation = table_open(relid, AccessShareLock);
	int			level = NewGUCNestLevel();
	Expr	   *expr;

	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	expr = analyze_condition(condition, relation);
	filter->estate = CreateExecutorState();
	filter->state = ExecPrepareQual(make_ands_implicit(expr), filter->estate);
	filter->slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(relation)), &TTSOpsVirtual);
	filter->attnos = attnos;
	filter->ncolumns = ncolumns;
	AtEOXact_GUC(false, level);
	table_close(relation, NoLock);
	return filter;
}

bool
copy_filter_passes(CopyFilter *filter, const Datum *values, const bool *nulls)
{
	TupleTableSlot *slot = filter->slot;
	ExprContext *econtext = GetPerTupleExprContext(filter->estate);
	bool		passes;

	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	for (int i = 0; i < filter->ncolumns; i++)
	{
		slot->tts_values[filter->attnos[i] - 1] = values[i];
		slot->tts_isnull[filter->attnos[i] - 1] = nulls[i];
	}
	ExecStoreVirtualTuple(slot);
	econtext->ecxt_scantuple = slot;
	passes = ExecQual(filter->state, econtext);
	ResetPerTupleExprContext(filter->estate);
	return passes;
}

void
copy_filter_free(CopyFilter *filter)
{
	ExecDropSingleTupleTableSlot(filter->slot);
	FreeExecutorState(filter->estate);
}

/* pgtrickle.check_row_filter(relid oid, condition text): an error if it cannot be one. */
Datum
pgtrickle_check_row_filter(PG_FUNCTION_ARGS)
{
	AttrNumber	none = 0;

	copy_filter_free(copy_filter_create(text_to_cstring(PG_GETARG_TEXT_PP(1)), PG_GETARG_OID(0), &none, 0));
	PG_RETURN_VOID();
}
