/*
 * delta/direct_join.c
 *     Steps that look up the few rows of one rowset in one table, run without the executor.
 *
 *     hash join or nested loop -----> for each row of the rowset: the index's key from the row --> rows of the table
 *       scan of the rowset                --> all conditions --> the join's target list
 *       scan of the table
 *
 * It is the step between a changed row and its group when the group's name is in another table.  As in direct_step.c, starting and ending the
 * executor takes longer than the look-up does, and what is to be evaluated comes from the plan as the server has it, whose validity and
 * locks are its business.  A plan without a table, which only projects the rowset's rows, is run by the same means.  How the plan reads the table does not matter: a hash join of twenty rows reads all of them where an index finds the one.
 *
 * Every condition of the plan, whichever node has it, is evaluated for the pair of rows; those that the index serves, once more.  So it does not matter
 * for the result which of them have served.  As in the plan, a scan's conditions come first, and of these the ones that its index serves: others, and the key of the index here, may fail for rows that
 * those leave out.  To that end the expressions of all nodes are written over the two rows: the rowset's are OUTER_VAR, the table's
 * are INNER_VAR.
 *
 * Making this of a plan costs as much as starting the executor, so it is kept until the server makes another plan.  Only what needs nothing of a transaction can be
 * kept: expressions of a few kinds of nodes, over functions written in C.  The table and its index are opened for each run.
 */
#include "direct_join.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/table.h"
#include "catalog/pg_am.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "compat.h"
#include "isolation.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/plannodes.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#define LOOKUPS_MAX 64			/* rows of the rowset; beyond, the executor's start does not count */

struct DirectJoin
{
	MemoryContext context;		/* all of this */
	int			generation;		/* of the plan */
	bool		fits;			/* false: the plan is another one, there is nothing below */
	Oid			relid;			/* the table; InvalidOid: none, each row by itself */
	Oid			index_oid;
	int			nkeys;
	ScanKeyData keys[INDEX_MAX_KEYS];	/* the values to be filled in */
	ExprState  *key_values[INDEX_MAX_KEYS];
	bool		by_value;		/* all keys are */
	ExprState  *row_conditions; /* of the scan of the rowset */
	ExprState  *conditions;		/* all others, those of the table's scan first */
	ProjectionInfo *projection;
	ExprContext *econtext;
};

/* ---- the plan ---- */

/* The parts of a plan that fits, and what their expressions name. */
typedef struct Shape
{
	Plan	   *top;			/* the join, or the scan of the rowset if there is nothing else */
	NamedTuplestoreScan *rowset;
	Plan	   *table;			/* SeqScan, IndexScan or IndexOnlyScan; NULL: no join */
	Index		table_rtindex;
	int			rowset_side;	/* OUTER_VAR or INNER_VAR, as the join calls it */
	List	   *conditions;		/* of all nodes but the scan of the rowset */
	List	   *nest_params;	/* what an index scan gets from the rowset */
	List	   *index_columns;	/* what an index-only scan reads */
	bool		unsuitable;		/* some expression cannot be kept */
} Shape;

static bool
set_table(Shape *shape, Plan *plan)
{
	if (IsA(plan, Hash) || IsA(plan, Material))
		plan = outerPlan(plan);
	shape->table = plan;
	shape->conditions = list_copy(plan->qual);
	switch (nodeTag(plan))
	{
		case T_SeqScan:
			break;
		case T_IndexScan:
			shape->conditions = list_concat_copy(((IndexScan *) plan)->indexqualorig, plan->qual);
			break;
		case T_IndexOnlyScan:
			shape->index_columns = ((IndexOnlyScan *) plan)->indextlist;
			shape->conditions = list_concat_copy(((IndexOnlyScan *) plan)->recheckqual, plan->qual);
			break;
		default:
			return false;
	}
	shape->table_rtindex = ((Scan *) plan)->scanrelid;
	return true;
}

static NamedTuplestoreScan *
scan_of(Plan *plan, Rowset *input)
{
	if (IsA(plan, Hash) || IsA(plan, Material))
		plan = outerPlan(plan);
	return IsA(plan, NamedTuplestoreScan) && strcmp(((NamedTuplestoreScan *) plan)->enrname, input->name) == 0
		? (NamedTuplestoreScan *) plan : NULL;
}

static bool
find_join(Shape *shape, Plan *join, Rowset *input)
{
	if ((!IsA(join, HashJoin) && !IsA(join, NestLoop)) || ((Join *) join)->jointype != JOIN_INNER)
		return false;
	if (IsA(join, NestLoop))
		shape->nest_params = ((NestLoop *) join)->nestParams;
	shape->rowset_side = OUTER_VAR;
	shape->rowset = scan_of(outerPlan(join), input);
	if (shape->rowset == NULL)
	{
		shape->rowset_side = INNER_VAR;
		shape->rowset = scan_of(innerPlan(join), input);
	}
	if (shape->rowset == NULL || !set_table(shape, shape->rowset_side == OUTER_VAR ? innerPlan(join) : outerPlan(join)))
		return false;
	if (IsA(join, HashJoin))
		shape->conditions = list_concat(shape->conditions, ((HashJoin *) join)->hashclauses);
	shape->conditions = list_concat(shape->conditions, ((Join *) join)->joinqual);
	shape->conditions = list_concat(shape->conditions, join->qual);
	return true;
}

static bool
find_shape(Shape *shape, PlannedStmt *statement, Rowset *input)
{
	/* with row-level security, the order in which conditions are evaluated matters */
	if (statement->commandType != CMD_SELECT || statement->subplans != NIL || statement->dependsOnRole ||
		statement->rowMarks != NIL)
		return false;
	shape->top = statement->planTree;
	shape->rowset = scan_of(shape->top, input);
	if (shape->rowset == NULL && !find_join(shape, shape->top, input))
		return false;
	return shape->table == NULL || rt_fetch(shape->table_rtindex, statement->rtable)->relkind == RELKIND_RELATION;
}

/* ---- its expressions, over the two rows ---- */

/* Functions in other languages keep things in what calls them that end with the transaction. */
static bool
is_not_in_c(Oid function, void *context)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc form;
	bool		is_c;

	if (!HeapTupleIsValid(tuple))
		return true;
	form = (Form_pg_proc) GETSTRUCT(tuple);
	is_c = (form->prolang == INTERNALlanguageId || form->prolang == ClanguageId) && !form->proretset &&
		!form->prosecdef && heap_attisnull(tuple, Anum_pg_proc_proconfig, NULL);
	ReleaseSysCache(tuple);
	return !is_c;
}

static Node *
unsuitable(Shape *shape, Node *node)
{
	shape->unsuitable = true;
	return node;
}

static Node *over_rows_mutator(Node *node, Shape *shape);

static Node *
column_over_rows(Var *column, Shape *shape)
{
	List	   *targets = NIL;

	if (column->varno == OUTER_VAR || column->varno == INNER_VAR)
		targets = column->varno == shape->rowset_side ? shape->rowset->scan.plan.targetlist : shape->table->targetlist;
	else if (column->varno == INDEX_VAR)
		targets = shape->index_columns;
	if (targets != NIL)
		return over_rows_mutator((Node *) list_nth_node(TargetEntry, targets, column->varattno - 1)->expr, shape);
	if (column->varattno <= 0)
		return unsuitable(shape, (Node *) column);
	column = copyObject(column);
	column->varno = column->varno == (int) shape->table_rtindex ? INNER_VAR : OUTER_VAR;
	return (Node *) column;
}

static Node *
parameter_over_rows(Param *param, Shape *shape)
{
	ListCell   *lc;

	foreach(lc, shape->nest_params)
	{
		NestLoopParam *passed = lfirst(lc);

		if (param->paramkind == PARAM_EXEC && passed->paramno == param->paramid)
			return over_rows_mutator((Node *) passed->paramval, shape);
	}
	return unsuitable(shape, (Node *) param);
}

static Node *
over_rows_mutator(Node *node, Shape *shape)
{
	if (node == NULL)
		return NULL;
	switch (nodeTag(node))
	{
		case T_Var:
			return column_over_rows((Var *) node, shape);
		case T_Param:
			return parameter_over_rows((Param *) node, shape);
		case T_FuncExpr:
		case T_OpExpr:
		case T_DistinctExpr:
			if (check_functions_in_node(node, is_not_in_c, NULL))
				return unsuitable(shape, node);
			break;
		case T_Const:
		case T_BoolExpr:
		case T_NullTest:
		case T_BooleanTest:
		case T_RelabelType:
		case T_CaseExpr:
		case T_CaseWhen:
		case T_CoalesceExpr:
		case T_TargetEntry:
		case T_List:
			break;
		default:
			return unsuitable(shape, node);
	}
	return expression_tree_mutator(node, over_rows_mutator, shape);
}

/* ---- the index ---- */

typedef struct KeySearch
{
	Relation	index;
	int			column;			/* of the index, from 0 */
	Oid			operator;		/* result: column operator value */
	Expr	   *value;
} KeySearch;

static bool
reads_table_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varno == INNER_VAR;
	return expression_tree_walker(node, reads_table_walker, context);
}

/* Is it "column = value", either way round, with the value from the rowset's row and the index's own equality? */
static bool
condition_serves(KeySearch *search, OpExpr *condition)
{
	Relation	index = search->index;
	int			i = search->column;

	if (!IsA(condition, OpExpr) || list_length(condition->args) != 2)
		return false;
	for (int side = 0; side < 2; side++)
	{
		Var		   *column = list_nth(condition->args, side);
		Oid			operator = side == 0 ? condition->opno : get_commutator(condition->opno);

		search->value = list_nth(condition->args, 1 - side);
		search->operator = operator;
		if (IsA(column, Var) && column->varno == INNER_VAR && column->varattno == index->rd_index->indkey.values[i] &&
			OidIsValid(operator) && get_op_opfamily_strategy(operator, index->rd_opfamily[i]) == BTEqualStrategyNumber &&
			(!OidIsValid(index->rd_indcollation[i]) || index->rd_indcollation[i] == condition->inputcollid) &&
			!reads_table_walker((Node *) search->value, NULL))
			return true;
	}
	return false;
}

/* A unique index all of whose columns are given: it finds one row. */
static bool
use_index(DirectJoin *join, Relation index, List *conditions)
{
	Form_pg_index form = index->rd_index;

	if (index->rd_rel->relam != BTREE_AM_OID || !form->indisunique || !form->indimmediate || !form->indisvalid ||
		form->indcheckxmin || RelationGetIndexPredicate(index) != NIL)
		return false;
	join->by_value = true;
	for (int i = 0; i < form->indnkeyatts; i++)
	{
		KeySearch	search = {.index = index, .column = i};
		Oid			left_type;
		Oid			right_type;
		ListCell   *lc;

		foreach(lc, conditions)
		{
			if (condition_serves(&search, lfirst(lc)))
				break;
		}
		if (lc == NULL)
			return false;
		op_input_types(search.operator, &left_type, &right_type);
		ScanKeyEntryInitialize(&join->keys[i], 0, i + 1, BTEqualStrategyNumber, right_type, index->rd_indcollation[i],
							   get_opcode(search.operator), (Datum) 0);
		join->key_values[i] = ExecInitExpr(search.value, NULL);
		join->by_value &= get_typbyval(right_type);
	}
	join->index_oid = RelationGetRelid(index);
	join->nkeys = form->indnkeyatts;
	return true;
}

static bool
find_index(DirectJoin *join, List *conditions)
{
	Relation	relation = table_open(join->relid, NoLock);
	bool		found = false;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(relation))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		found = use_index(join, index, conditions);
		index_close(index, AccessShareLock);
		if (found)
			break;
	}
	table_close(relation, NoLock);
	return found;
}

/* ---- making one ---- */

static bool
make_of_plan(DirectJoin *join, PlannedStmt *statement, Rowset *input, Rowset *output)
{
	Shape		shape = {0};
	List	   *row_conditions;
	List	   *conditions;
	List	   *targets;

	if (!find_shape(&shape, statement, input))
		return false;
	row_conditions = (List *) over_rows_mutator((Node *) shape.rowset->scan.plan.qual, &shape);
	conditions = (List *) over_rows_mutator((Node *) shape.conditions, &shape);
	targets = (List *) over_rows_mutator((Node *) shape.top->targetlist, &shape);
	if (shape.unsuitable)
		return false;
	if (shape.table != NULL)
	{
		join->relid = rt_fetch(shape.table_rtindex, statement->rtable)->relid;
		if (!find_index(join, conditions))
			return false;
	}
	join->econtext = CreateStandaloneExprContext();
	join->row_conditions = ExecInitQual(row_conditions, NULL);
	join->conditions = ExecInitQual(conditions, NULL);
	join->projection = ExecBuildProjectionInfo(targets, join->econtext,
											   MakeSingleTupleTableSlot(CreateTupleDescCopy(output->tupdesc), &TTSOpsVirtual),
											   NULL, NULL);
	return true;
}

static DirectJoin *
make_join(CachedPlan *plan, MemoryContext parent, Rowset *input, Rowset *output)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "direct join", ALLOCSET_SMALL_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	DirectJoin *join = palloc0(sizeof(DirectJoin));

	join->context = context;
	join->generation = plan->generation;
	join->fits = list_length(plan->stmt_list) == 1 &&
		make_of_plan(join, linitial_node(PlannedStmt, plan->stmt_list), input, output);
	MemoryContextSwitchTo(oldcontext);
	/* only now: what an error leaves half made goes with the statement */
	MemoryContextSetParent(context, parent);
	return join;
}

/* ---- running ---- */

/* False: some value is NULL, which equals nothing.  *same: they are those of the row before. */
static bool
compute_keys(DirectJoin *join, bool *same)
{
	*same = join->by_value;
	for (int i = 0; i < join->nkeys; i++)
	{
		bool		isnull;
		Datum		value = ExecEvalExprSwitchContext(join->key_values[i], join->econtext, &isnull);

		*same &= value == join->keys[i].sk_argument;
		join->keys[i].sk_argument = value;
		if (isnull)
			return false;
	}
	return true;
}

static void
put_if_wanted(DirectJoin *join, Rowset *output)
{
	if (ExecQual(join->conditions, join->econtext))
		rowset_put_slot(output, ExecProject(join->projection));
}

/* What the table's rows are read with, for one run. */
typedef struct LookUp
{
	Relation	relation;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *found;		/* empty: there was no row */
	bool		searched;		/* for the keys that the join holds */
} LookUp;

static LookUp *
begin_look_up(DirectJoin *join)
{
	LookUp	   *look_up = palloc(sizeof(LookUp));

	look_up->relation = table_open(join->relid, NoLock);
	look_up->index = index_open(join->index_oid, AccessShareLock);
	look_up->scan = compat_index_beginscan(look_up->relation, look_up->index, GetActiveSnapshot(), join->nkeys);
	look_up->found = table_slot_create(look_up->relation, NULL);
	look_up->searched = false;
	join->econtext->ecxt_innertuple = look_up->found;
	return look_up;
}

static void
end_look_up(LookUp *look_up)
{
	index_endscan(look_up->scan);
	ExecDropSingleTupleTableSlot(look_up->found);
	index_close(look_up->index, AccessShareLock);
	table_close(look_up->relation, NoLock);
	pfree(look_up);
}

/* There is at most one row of a key.  An updated row has its old one's, most often. */
static void
look_up_row(DirectJoin *join, LookUp *look_up, Rowset *output)
{
	bool		same;

	if (!compute_keys(join, &same))
	{
		look_up->searched = false;
		return;
	}
	if (!look_up->searched || !same)
	{
		index_rescan(look_up->scan, join->keys, join->nkeys, NULL, 0);
		if (!index_getnext_slot(look_up->scan, ForwardScanDirection, look_up->found))
			ExecClearTuple(look_up->found);
		look_up->searched = true;
	}
	if (!TTS_EMPTY(look_up->found))
		put_if_wanted(join, output);
}

static void
run_join(DirectJoin *join, Rowset *input, Rowset *output)
{
	LookUp	   *look_up = OidIsValid(join->relid) ? begin_look_up(join) : NULL;
	TupleTableSlot *row = rowset_make_slot(input);

	join->econtext->ecxt_outertuple = row;
	rowset_rewind(input);
	while (rowset_next(input, row))
	{
		CHECK_FOR_INTERRUPTS();
		ResetExprContext(join->econtext);
		if (!ExecQual(join->row_conditions, join->econtext))
			continue;
		if (look_up != NULL)
			look_up_row(join, look_up, output);
		else
			put_if_wanted(join, output);
	}
	ResetExprContext(join->econtext);
	ExecClearTuple(join->projection->pi_state.resultslot);
	ExecDropSingleTupleTableSlot(row);
	if (look_up != NULL)
		end_look_up(look_up);
}

bool
direct_join_run(SPIPlanPtr plan, DirectJoin **kept, MemoryContext context, Rowset *input, Rowset *output)
{
	CachedPlan *cached;
	bool		fits;

	/* a transaction with one snapshot reads tables at two, and compares */
	if (input->row_count > LOOKUPS_MAX || isolation_older_snapshot() != NULL)
		return false;
	cached = SPI_plan_get_cached_plan(plan);
	if (cached == NULL)
		return false;
	if (*kept != NULL && (*kept)->generation != cached->generation)
	{
		MemoryContextDelete((*kept)->context);
		*kept = NULL;
	}
	if (*kept == NULL)
		*kept = make_join(cached, context, input, output);
	fits = (*kept)->fits;
	if (fits)
		run_join(*kept, input, output);
	ReleaseCachedPlan(cached, CurrentResourceOwner);
	return fits;
}
