/*
 * delta/join.c
 *     Delta rule for inner joins.
 *
 * With only the new state R' of each input at hand, and R = R' - dR, expanding the product gives for two inputs
 *
 *     d(L >< R) = dL >< R'  +  L' >< dR  -  dL >< dR
 *
 * and for k changed inputs the sum over all non-empty subsets M of them of the join with the inputs in M read from
 * their deltas and all others in the new state, with sign (-1)^(|M|+1); weights multiply (inclusion and exclusion;
 * Griffin and Libkin, SIGMOD 1995).  A filter is linear, so WHERE stays where it is.
 *
 * That is 2^k - 1 terms.  The sum can telescope instead: k terms, the i-th with the inputs before i in the new state, i's delta, and those
 * after i in the old state, written as R' UNION ALL -dR.  Fewer terms, but each probes more, and of a UNION ALL of six tables the planner knows so little
 * that it takes the wrong order (t/153: minutes where 63 terms take a second).  Near rows (near.c) are few and counted, and do no harm there.  So with these
 * the sum telescopes past FLAT_MAX_NEAR changed inputs, without them past FLAT_MAX.
 *
 * Which inputs changed is known only when a tick runs, so the statements are printed then, one per set of changed inputs, and kept.
 * Only builds statements: execution is run.c.  Outer joins are in outer_join.c; of theirs, only the lookup of what does not match
 * (anti inputs) is here, because its delta has the same terms.
 */
#include "postgres.h"

#include "block.h"
#include "catalog/pg_operator_d.h"
#include "catalog/pg_type_d.h"
#include "lib/stringinfo.h"
#include "lock_pairs.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "port/pg_bitutils.h"
#include "query.h"
#include "rowset.h"
#include "settings.h"
#include "temporal.h"
#include "tree_build.h"
#include "utils/builtins.h"

#define FLAT_MAX 8				/* changed inputs; 255 terms */
#define FLAT_MAX_NEAR 4
#define INT4_MULTIPLY_OPERATOR 514	/* int4 * int4, fixed in pg_operator.dat */

RangeTblEntry *
named_rte(const char *name, const char *alias, List *colnames, List *coltypes,
		  List *coltypmods, List *colcollations)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);

	/*
	 * The deparser has no word for an ephemeral named relation, but prints a reference to a WITH query as its bare name,
	 * which the parser then finds among the registered ones.
	 */
	rte->rtekind = RTE_CTE;
	rte->ctename = pstrdup(name);
	rte->ctelevelsup = 0;
	rte->coltypes = coltypes;
	rte->coltypmods = coltypmods;
	rte->colcollations = colcollations;
	rte->alias = makeAlias(alias, NIL);
	rte->eref = makeAlias(alias, copyObject(colnames));
	rte->inFromCl = true;
	return rte;
}

Query *
simple_query(List *rtable, List *quals, List *targets)
{
	Query	   *query = makeNode(Query);
	List	   *from = NIL;

	for (int i = 1; i <= list_length(rtable); i++)
		from = lappend(from, reference_to(i));
	query->commandType = CMD_SELECT;
	query->canSetTag = true;
	query->rtable = rtable;
	query->jointree = makeFromExpr(from, quals == NIL ? NULL : (Node *) make_ands_explicit(quals));
	query->targetList = targets;
	return query;
}

static Node *
multiply(Node *left, Node *right)
{
	if (left == NULL)
		return right;
	return (Node *) make_opclause(INT4_MULTIPLY_OPERATOR, INT4OID, false,
								  (Expr *) left, (Expr *) right, InvalidOid, InvalidOid);
}

static Node *
integer_constant(int32 value)
{
	return (Node *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(value), false, true);
}

/* The columns of an input with the weight behind them. */
static RangeTblEntry *
weighted_rte(BlockInput *input, const char *name)
{
	return named_rte(name, input->rte->eref->aliasname,
					 lappend(list_copy(input->colnames), makeString(ROWSET_WEIGHT_COLUMN)),
					 lappend_oid(list_copy(input->coltypes), INT4OID),
					 lappend_int(list_copy(input->coltypmods), -1),
					 lappend_oid(list_copy(input->colcollations), InvalidOid));
}

static const char *
rowset_name(QueryBlock *block, int rowset)
{
	return ((ProgramRowset *) list_nth(block->program->rowsets, rowset))->name;
}

static const char *
input_rowset_name(QueryBlock *block, int input_no)
{
	return rowset_name(block, ((BlockInput *) list_nth(block->inputs, input_no))->rowset);
}

RangeTblEntry *
join_delta_rte(QueryBlock *block, int input_no)
{
	return weighted_rte(list_nth(block->inputs, input_no), input_rowset_name(block, input_no));
}

static Node *
weight_var(BlockInput *input, int rtindex)
{
	return (Node *) makeVar(rtindex, list_length(input->colnames) + 1, INT4OID, -1, InvalidOid, 0);
}

/* ---- anti inputs ---- */

typedef struct ProbeContext
{
	int			rtindex;		/* of the anti input among the block's inputs */
	int			level;
} ProbeContext;

/* Moves an expression of the block into a subquery whose only table is the anti input. */
static Node *
probe_mutator(Node *node, ProbeContext *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		Query	   *result;

		context->level++;
		result = query_tree_mutator((Query *) node, probe_mutator, context, 0);
		context->level--;
		return (Node *) result;
	}
	if (IsA(node, Var) && ((Var *) node)->varlevelsup == (Index) context->level)
	{
		Var		   *var = copyObject((Var *) node);

		if (var->varno == context->rtindex)
			var->varno = 1;
		else
			var->varlevelsup++;
		var->varnosyn = 0;		/* the deparser would believe it */
		return (Node *) var;
	}
	return expression_tree_mutator(node, probe_mutator, context);
}

Node *
join_exists(RangeTblEntry *rte, int rtindex, List *quals)
{
	TargetEntry *found = makeTargetEntry((Expr *) makeBoolConst(true, false), 1, pstrdup("found"), false);
	Query	   *probe = simple_query(list_make1(rte), quals, list_make1(found));
	ProbeContext context = {rtindex, 0};
	SubLink    *exists = makeNode(SubLink);

	query_tree_mutator(probe, probe_mutator, &context, QTW_DONT_COPY_QUERY);
	exists->subLinkType = EXISTS_SUBLINK;
	exists->subselect = (Node *) probe;
	return (Node *) exists;
}

static Node *
nothing_matches(BlockInput *input, int rtindex)
{
	Node	   *exists = join_exists(copyObject(input->rte), rtindex, copyObject(input->unless));

	return (Node *) makeBoolExpr(NOT_EXPR, list_make1(exists), -1);
}

/* ---- terms ---- */

/*
 * One term: `delta` inputs from their deltas, `old` inputs from the telescoping sum's old states.  An anti input stands for a factor
 * of one minus the number of its matches, so its delta is that of its rows with the opposite sign.
 */
static Query *
join_term_general(QueryBlock *block, uint64 delta, uint64 old, bool negative, List *targets, bool weighted)
{
	List	   *rtable = NIL;
	List	   *quals = copyObject(block->quals);
	Node	   *weight = NULL;
	Query	   *query;

	for (int i = 0; i < list_length(block->inputs); i++)
	{
		BlockInput *input = list_nth(block->inputs, i);
		uint64		bit = UINT64CONST(1) << i;
		bool		changed = ((delta | old) & bit) != 0;
		NearRows   *near = block_near_rows(block, i, delta);

		if ((delta & bit) != 0)
			rtable = lappend(rtable, join_delta_rte(block, i));
		else if ((old & bit) != 0)
			rtable = lappend(rtable, weighted_rte(input, psprintf(near ? "__pgt_old_near_%d" : "__pgt_old_%d", i + 1)));
		else if (input->anti)
			quals = lappend(quals, nothing_matches(input, i + 1));
		else if (near != NULL)
			rtable = lappend(rtable, weighted_rte(input, rowset_name(block, near->rowset)));
		else
			rtable = lappend(rtable, copyObject(input->rte));
		if (changed)
			weight = multiply(weight, weight_var(input, i + 1));
		if (changed && input->anti)
		{
			quals = list_concat(quals, copyObject(input->unless));
			negative = !negative;
		}
	}
	if (weight == NULL)
		weight = integer_constant(1);
	else if (negative)
		weight = multiply(integer_constant(-1), weight);

	targets = copyObject(targets);
	if (weighted)
		targets = lappend(targets, makeTargetEntry((Expr *) weight, list_length(targets) + 1,
												   pstrdup(ROWSET_WEIGHT_COLUMN), false));
	query = simple_query(rtable, quals, targets);
	query->hasSubLinks = true;	/* there may be some */
	return query;
}

Query *
join_term(QueryBlock *block, uint64 changed, List *targets)
{
	bool		negative = changed != 0 && pg_popcount64(changed) % 2 == 0;

	return join_term_general(block, changed, 0, negative, targets, true);
}

Query *
join_new_state(QueryBlock *block, List *targets)
{
	return join_term_general(block, 0, 0, false, targets, false);
}

/*
 * The old state of an input is its new state (or the near rows of it) less its delta:
 *
 *     __pgt_old_3 AS NOT MATERIALIZED (SELECT ..., 1 AS __w FROM new UNION ALL SELECT ..., -__w FROM delta)
 *
 * Columns that the level does not use are left out.  `changed`: from join_changed_inputs; near rows of which there are none have no rowset.
 */
static char *
old_state_sql(QueryBlock *block, int input_no, NearRows *near, uint64 changed)
{
	BlockInput *input = list_nth(block->inputs, input_no);
	Bitmapset  *columns = used_columns(block->query, input_no + 1);
	List	   *targets = NIL;
	StringInfoData names;
	bool		no_near = near != NULL && !near_rows_are_there(block, near, changed);
	RangeTblEntry *rte = near && !no_near ? weighted_rte(input, rowset_name(block, near->rowset)) : copyObject(input->rte);
	List	   *quals = no_near ? list_make1(makeBoolConst(false, false)) : NIL;
	int			attno = -1;

	initStringInfo(&names);
	while ((attno = bms_next_member(columns, attno)) >= 0)
	{
		char	   *name = strVal(list_nth(input->colnames, attno - 1));
		Var		   *var = makeVar(1, attno, list_nth_oid(input->coltypes, attno - 1),
								  list_nth_int(input->coltypmods, attno - 1),
								  list_nth_oid(input->colcollations, attno - 1), 0);

		targets = lappend(targets, makeTargetEntry((Expr *) var, list_length(targets) + 1, pstrdup(name), false));
		appendStringInfo(&names, "%s, ", quote_identifier(name));
	}
	targets = lappend(targets, makeTargetEntry((Expr *) integer_constant(1), list_length(targets) + 1,
											   pstrdup(ROWSET_WEIGHT_COLUMN), false));
	return psprintf("__pgt_old_%s%d AS NOT MATERIALIZED (%s\n\tUNION ALL SELECT %s-" ROWSET_WEIGHT_COLUMN " FROM %s)\n",
					near ? "near_" : "", input_no + 1, query_print(simple_query(list_make1(rte), quals, targets)),
					names.data, quote_identifier(input_rowset_name(block, input_no)));
}

/* "WITH ..." for all old states that some term may name: of the inputs in `old`. */
static void
append_old_states(StringInfo sql, QueryBlock *block, uint64 old, uint64 changed)
{
	const char *separator = "WITH ";

	for (int i = 0; i < list_length(block->inputs); i++)
	{
		NearRows   *near = block_near_rows(block, i, ~UINT64CONST(0));

		if ((old & (UINT64CONST(1) << i)) == 0)
			continue;
		appendStringInfo(sql, "%s%s", separator, old_state_sql(block, i, NULL, changed));
		separator = ", ";
		if (near != NULL)
			appendStringInfo(sql, "%s%s", separator, old_state_sql(block, i, near, changed));
	}
}

/* A statement of the terms' form that yields nothing: for when all of them are empty. */
static char *
no_rows_sql(QueryBlock *block, List *targets)
{
	Query	   *query = join_term(block, 0, targets);

	query->jointree->quals = (Node *) makeBoolConst(false, false);
	return query_print(query);
}

/* Up to how many changed inputs the sum does not telescope. */
static int
flat_inputs_max(QueryBlock *block, uint64 inputs)
{
	if (pgtrickle_flat_join_inputs_max >= 0)
		return pgtrickle_flat_join_inputs_max;
	for (int i = 0; i < list_length(block->inputs); i++)
	{
		if ((inputs & (UINT64CONST(1) << i)) != 0 && block_near_rows(block, i, ~UINT64CONST(0)) != NULL)
			return FLAT_MAX_NEAR;
	}
	return FLAT_MAX;
}

/* In a subquery, because what uses the statement may put a WITH of its own in front. */
static char *
join_telescoping_sql(QueryBlock *block, uint64 inputs, uint64 changed, List *targets)
{
	StringInfoData sql;
	StringInfoData terms;
	int			first = pg_rightmost_one_pos64(inputs);
	uint64		rest = inputs;

	initStringInfo(&sql);
	initStringInfo(&terms);
	while (rest != 0)
	{
		int			i = pg_rightmost_one_pos64(rest);
		uint64		bit = UINT64CONST(1) << i;

		rest &= ~bit;
		if (!near_rows_are_empty(block, bit, rest, changed))
			appendStringInfo(&terms, "%s%s", terms.len > 0 ? "\nUNION ALL\n" : "",
							 query_print(join_term_general(block, bit, rest, false, targets, true)));
	}
	if (terms.len == 0)
		return no_rows_sql(block, targets);
	appendStringInfoString(&sql, "SELECT * FROM (");
	append_old_states(&sql, block, inputs & ~(UINT64CONST(1) << first), changed);
	appendStringInfo(&sql, "%s) terms", terms.data);
	return sql.data;
}

char *
join_delta_sql(QueryBlock *block, uint64 changed, List *targets)
{
	StringInfoData sql;
	uint64		inputs = changed & ((UINT64CONST(1) << list_length(block->inputs)) - 1);
	uint64		subset;

	Assert(changed != 0);
	if ((changed & BLOCK_TIME_CHANGED) != 0)
		return temporal_delta_sql(block, changed & ~BLOCK_TIME_CHANGED, targets);
	if (pg_popcount64(inputs) > flat_inputs_max(block, inputs))
		return join_telescoping_sql(block, inputs, changed, targets);

	initStringInfo(&sql);
	/* all non-empty subsets of the changed inputs, in falling order */
	for (subset = inputs; subset != 0; subset = (subset - 1) & inputs)
	{
		if (!near_rows_are_empty(block, subset, 0, changed))
			appendStringInfo(&sql, "%s%s", sql.len > 0 ? "\nUNION ALL\n" : "",
							 query_print(join_term(block, subset, targets)));
	}
	return sql.len > 0 ? sql.data : no_rows_sql(block, targets);
}

void
join_add_inputs(QueryBlock *block, ProgramStep *step)
{
	ListCell   *lc;

	foreach(lc, block->inputs)
	{
		BlockInput *input = lfirst(lc);

		if (input->rowset >= 0)
			step_add_input(step, input->rowset);
	}
	foreach(lc, block->near)
		step_add_input(step, ((NearRows *) lfirst(lc))->rowset);
	step_lock_block(step, block);
	if (block->temporal != NIL)
		step->follows_time = block->program->follows_time = true;
}

static bool
step_input_is_nonempty(ProgramStep *step, uint64 nonempty, int rowset)
{
	for (int number = 0; number < step->ninputs; number++)
	{
		if (step->inputs[number] == rowset && (nonempty & (UINT64CONST(1) << number)) != 0)
			return true;
	}
	return false;
}

uint64
join_changed_inputs(QueryBlock *block, ProgramStep *step, uint64 nonempty)
{
	uint64		changed = nonempty & BLOCK_TIME_CHANGED;
	int			number = 0;
	ListCell   *lc;

	foreach(lc, block->inputs)
	{
		BlockInput *input = lfirst(lc);

		if (input->rowset >= 0 && step_input_is_nonempty(step, nonempty, input->rowset))
			changed |= UINT64CONST(1) << number;
		number++;
	}
	foreach(lc, block->near)
	{
		if (step_input_is_nonempty(step, nonempty, ((NearRows *) lfirst(lc))->rowset))
			changed |= UINT64CONST(1) << number;
		number++;
	}
	return changed;
}
