/*
 * delta/index_advice.c
 *     Which indexes would make the steps of a stream table's program cheaper.
 *
 * For each source in turn, the program is planned as if a thousandth of that source had changed, and nothing else.  Where a plan joins
 * something small with a table that it reads from end to end, by equality, an index on the table's columns in that equality would let
 * it look up the few rows instead.  Advice is given only if
 *
 *     the columns are plain, compared by the operators and the collation that a btree on them has;
 *     no valid index begins with one of them: the planner has seen such an index and decided against it;
 *     looking up what the planner expects on the other side, at two random pages for each look and one for each row found, costs
 *     less than half the scan;
 *     the scan is worth mentioning (ADVICE_SCAN_COST_MIN).
 *
 * State tables are never advised upon: they have the indexes that they need.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_class_d.h"
#include "catalog/pg_index.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "privileged.h"
#include "run.h"
#include "stream_table.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

#define ADVICE_SCAN_COST_MIN 500.0
#define ADVICE_GAIN_MIN 2.0

PG_FUNCTION_INFO_V1(pgtrickle_index_advice);

typedef struct Advice
{
	Oid			relid;			/* of the table to index */
	List	   *attnos;			/* of int, in ascending order */
	int			step;			/* from 1; where the scan costs most */
	Oid			changed_relid;	/* when this source changes */
	double		scan_cost;
	double		probe_cost;
} Advice;

typedef struct Advisor
{
	List	   *advices;		/* of Advice */
	MemoryContext context;
	LoadedTable *table;
	Oid			changed_relid;
	int			step;
	PlannedStmt *statement;
} Advisor;

/* ---- from a join to a column of a scanned table ---- */

/* The scan from end to end that one side of a join consists of, or NULL. */
static Plan *
scan_below(Plan *plan)
{
	while (plan != NULL)
	{
		switch (nodeTag(plan))
		{
			case T_SeqScan:
				return plan;
			case T_Hash:
			case T_Sort:
			case T_IncrementalSort:
			case T_Material:
			case T_Gather:
			case T_GatherMerge:
				plan = outerPlan(plan);
				break;
			default:
				return NULL;
		}
	}
	return NULL;
}

static Node *
strip_relabel(Node *node)
{
	while (node != NULL && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	return node;
}

/* Which column of the scan is an operand of a join whose one side (`varno`: inner or outer) the scan is?  0: none. */
static AttrNumber
scanned_column(Node *operand, int varno, Plan *side, Plan *scan)
{
	Var		   *var = (Var *) strip_relabel(operand);

	if (var == NULL || !IsA(var, Var) || var->varno != varno)
		return 0;
	for (;;)
	{
		TargetEntry *entry = list_nth_node(TargetEntry, side->targetlist, var->varattno - 1);

		var = (Var *) strip_relabel((Node *) entry->expr);
		if (!IsA(var, Var))
			return 0;
		if (side == scan)
			return (Index) var->varno == ((Scan *) scan)->scanrelid ? var->varattno : 0;
		side = outerPlan(side);
	}
}

static bool
btree_has_equality(Oid operator_oid, Oid type)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_BTREE_OPFAMILY);

	return OidIsValid(entry->btree_opf) && op_in_opfamily(operator_oid, entry->btree_opf);
}

/* The columns of the scan that the clauses of a join compare by equality with the other side. */
static List *
compared_columns(List *clauses, int varno, Plan *side, Plan *scan, Oid relid)
{
	List	   *attnos = NIL;
	ListCell   *lc;

	foreach(lc, clauses)
	{
		OpExpr	   *clause = lfirst(lc);

		if (!IsA(clause, OpExpr) || list_length(clause->args) != 2)
			continue;
		for (int i = 0; i < 2; i++)
		{
			Node	   *operand = list_nth(clause->args, i);
			AttrNumber	attno = scanned_column(operand, varno, side, scan);

			if (attno <= 0 || !op_mergejoinable(clause->opno, exprType(linitial(clause->args))) ||
				!btree_has_equality(clause->opno, get_atttype(relid, attno)) ||
				(OidIsValid(clause->inputcollid) && clause->inputcollid != exprCollation(strip_relabel(operand))))
				continue;
			attnos = list_append_unique_int(attnos, attno);
		}
	}
	list_sort(attnos, list_int_cmp);
	return attnos;
}

/* ---- is it worth it? ---- */

static bool
is_indexed(Oid relid, List *attnos)
{
	Relation	relation = table_open(relid, AccessShareLock);
	List	   *indexes = RelationGetIndexList(relation);
	bool		found = false;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (index->rd_index->indisvalid && list_member_int(attnos, index->rd_index->indkey.values[0]))
			found = true;
		index_close(index, AccessShareLock);
	}
	table_close(relation, NoLock);
	return found;
}

static bool
may_be_advised_upon(Oid relid)
{
	char		kind = get_rel_relkind(relid);
	char	   *schema = get_namespace_name(get_rel_namespace(relid));

	return (kind == RELKIND_RELATION || kind == RELKIND_MATVIEW) && schema != NULL && strcmp(schema, "pgtrickle") != 0;
}

static Advice *
find_advice(Advisor *advisor, Oid relid, List *attnos)
{
	ListCell   *lc;

	foreach(lc, advisor->advices)
	{
		Advice	   *advice = lfirst(lc);

		if (advice->relid == relid && equal(advice->attnos, attnos))
			return advice;
	}
	return NULL;
}

static void
advise(Advisor *advisor, Oid relid, List *attnos, double scan_cost, double probe_cost)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(advisor->context);
	Advice	   *advice = find_advice(advisor, relid, attnos);

	if (advice == NULL)
	{
		advice = palloc0(sizeof(Advice));
		advice->relid = relid;
		advice->attnos = list_copy(attnos);
		advisor->advices = lappend(advisor->advices, advice);
	}
	if (scan_cost - probe_cost > advice->scan_cost - advice->probe_cost)
	{
		advice->step = advisor->step + 1;
		advice->changed_relid = advisor->changed_relid;
		advice->scan_cost = scan_cost;
		advice->probe_cost = probe_cost;
	}
	MemoryContextSwitchTo(oldcontext);
}

/* One side of a join: is it a scan that looks for what the other side has few of? */
static void
consider_side(Advisor *advisor, Join *join, List *clauses, int varno)
{
	Plan	   *side = varno == OUTER_VAR ? outerPlan(join) : innerPlan(join);
	Plan	   *other = varno == OUTER_VAR ? innerPlan(join) : outerPlan(join);
	Plan	   *scan = scan_below(side);
	Oid			relid;
	List	   *attnos;
	double		probe_cost;

	if (scan == NULL || scan->total_cost < ADVICE_SCAN_COST_MIN)
		return;
	relid = rt_fetch(((Scan *) scan)->scanrelid, advisor->statement->rtable)->relid;
	probe_cost = (other->plan_rows * 2 + join->plan.plan_rows) * random_page_cost;
	if (probe_cost * ADVICE_GAIN_MIN > scan->total_cost || !may_be_advised_upon(relid))
		return;
	attnos = compared_columns(clauses, varno, side, scan, relid);
	if (attnos != NIL && !is_indexed(relid, attnos))
		advise(advisor, relid, attnos, scan->total_cost, probe_cost);
}

static void
consider_join(Advisor *advisor, Join *join)
{
	List	   *clauses = list_copy(join->joinqual);

	if (IsA(join, HashJoin))
		clauses = list_concat(clauses, ((HashJoin *) join)->hashclauses);
	if (IsA(join, MergeJoin))
		clauses = list_concat(clauses, ((MergeJoin *) join)->mergeclauses);
	consider_side(advisor, join, clauses, OUTER_VAR);
	consider_side(advisor, join, clauses, INNER_VAR);
}

/* ---- walking plans ---- */

static void consider_plan(Advisor *advisor, Plan *plan);

static void
consider_plans(Advisor *advisor, List *plans)
{
	ListCell   *lc;

	foreach(lc, plans)
		consider_plan(advisor, lfirst(lc));
}

static void
consider_plan(Advisor *advisor, Plan *plan)
{
	if (plan == NULL)
		return;
	check_stack_depth();
	switch (nodeTag(plan))
	{
		case T_NestLoop:
		case T_HashJoin:
		case T_MergeJoin:
			consider_join(advisor, (Join *) plan);
			break;
		case T_Append:
			consider_plans(advisor, ((Append *) plan)->appendplans);
			break;
		case T_MergeAppend:
			consider_plans(advisor, ((MergeAppend *) plan)->mergeplans);
			break;
		case T_SubqueryScan:
			consider_plan(advisor, ((SubqueryScan *) plan)->subplan);
			break;
		default:
			break;
	}
	consider_plan(advisor, outerPlan(plan));
	consider_plan(advisor, innerPlan(plan));
}

static void
consider_step(void *arg, LoadedTable *table, int step_no, uint64 variant, PlannedStmt *plan)
{
	Advisor    *advisor = arg;

	advisor->step = step_no;
	advisor->statement = plan;
	consider_plan(advisor, plan->planTree);
	consider_plans(advisor, plan->subplans);
}

/* ---- telling ---- */

static char *
relation_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
}

static char *
column_list(Advice *advice)
{
	StringInfoData text;
	ListCell   *lc;

	initStringInfo(&text);
	foreach(lc, advice->attnos)
		appendStringInfo(&text, "%s%s", text.len > 0 ? ", " : "",
						 quote_identifier(get_attname(advice->relid, lfirst_int(lc), false)));
	return text.data;
}

/* source_table, columns, step, scan_cost, probe_cost, advice, statement */
static void
return_advice(ReturnSetInfo *rsinfo, Advice *advice)
{
	Datum		values[7];
	bool		nulls[7] = {false};
	char	   *table = relation_name(advice->relid);
	char	   *columns = column_list(advice);

	values[0] = CStringGetTextDatum(table);
	values[1] = CStringGetTextDatum(columns);
	values[2] = Int32GetDatum(advice->step);
	values[3] = Float8GetDatum(advice->scan_cost);
	values[4] = Float8GetDatum(advice->probe_cost);
	values[5] = CStringGetTextDatum(psprintf("step %d scans %s when %s changes; an index on (%s) would make it an index probe",
											 advice->step, table, relation_name(advice->changed_relid), columns));
	values[6] = CStringGetTextDatum(psprintf("CREATE INDEX ON %s (%s)", table, columns));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* pgtrickle.index_advice(name text): for whoever may read the stream table. */
Datum
pgtrickle_index_advice(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	StreamTableName found = stream_table_resolve(text_to_cstring(PG_GETARG_TEXT_PP(0)), STREAM_TABLE_SEE);
	Advisor		advisor = {NIL, CurrentMemoryContext, NULL, InvalidOid, 0, NULL};
	PrivilegedSection section;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	privileged_begin(&section);
	advisor.table = table_load(found.pgt_id);
	if (advisor.table != NULL)
		cost_visit_each_source(advisor.table, consider_step, &advisor, &advisor.changed_relid);
	foreach(lc, advisor.advices)
		return_advice(rsinfo, lfirst(lc));
	privileged_end(&section);
	return (Datum) 0;
}
