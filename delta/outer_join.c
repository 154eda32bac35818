/*
 * delta/outer_join.c
 *     Delta rule for outer joins, and so for anti joins.
 *
 * An outer join is a sum of inner joins and lookups (Larson and Zhou, ICDE 2007):
 *
 *     L left join R on c   =  (L >< R)  +  (L without a match in R) x NULLs
 *     L full join R on c   =  ... + NULLs x (R without a match in L)
 *
 * The first part is an inner join and follows join.c.  For the second, let m(l) be the number of matches of l.  If it is never above one,
 * "without a match" is the factor 1 - m(l), which is linear in R, so the rule of the inner join holds for it with the sign of R's delta
 * turned round: d(L x (1 - m)) = dL x (1 - m') - L' x dm + dL x dm.  outer_join_lookup.c makes what m counts match at most once.
 *
 * A filter above the join stays with it.  For rows without a match it is folded with NULL in place of the missing side: what
 * becomes false needs no second part (the join is an inner one in effect); a filter "R.column IS NULL" on a column that is never NULL in R
 * makes the first part go (an anti join).
 */
#include "postgres.h"

#include "access/table.h"
#include "block.h"
#include "compat.h"
#include "lib/stringinfo.h"
#include "lock_pairs.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "outer_join.h"
#include "rewrite/rewriteManip.h"
#include "tree_build.h"

typedef struct OuterJoin
{
	Compiler   *compiler;
	Query	   *query;
	JoinType	type;			/* JOIN_LEFT or JOIN_FULL */
	BlockInput *sides[3];		/* [LEFT_INPUT], [RIGHT_INPUT] */
	List	   *on;				/* of Expr, ANDed */
	List	   *filter;			/* of Expr, ANDed */
	List	   *targets;
	List	   *parts;			/* of JoinPart */
} OuterJoin;

/* A summand of the join. */
typedef struct JoinPart
{
	QueryBlock *block;
	List	   *targets;
} JoinPart;

/* ---- what NULLs in place of a side come to ---- */

typedef struct NullsContext
{
	int			rtindex;
	int			level;
} NullsContext;

static Node *
nulls_mutator(Node *node, NullsContext *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		Query	   *result;

		context->level++;
		result = query_tree_mutator((Query *) node, nulls_mutator, context, 0);
		context->level--;
		return (Node *) result;
	}
	if (IsA(node, Var) && ((Var *) node)->varlevelsup == (Index) context->level &&
		((Var *) node)->varno == context->rtindex)
	{
		Var		   *var = (Var *) node;

		return (Node *) makeNullConst(var->vartype, var->vartypmod, var->varcollid);
	}
	return expression_tree_mutator(node, nulls_mutator, context);
}

/* With NULL for every column of that input. */
static void *
with_nulls(void *node, int rtindex)
{
	NullsContext context = {rtindex, 0};

	return nulls_mutator((Node *) node, &context);
}

static bool
never_true(Node *qual)
{
	return IsA(qual, Const) && (((Const *) qual)->constisnull || !DatumGetBool(((Const *) qual)->constvalue));
}

/*
 * Leaves out conditions that are always true; sets `impossible` when they can never all be.  The others stay as they were written: what the server folds
 * is made for its planner, and printed it may lack a COLLATE, or be no longer allowed where it stands (x IN (SELECT ...) with a constant for x).
 */
static List *
that_matter(List *quals, bool *impossible)
{
	List	   *result = NIL;
	ListCell   *lc;

	*impossible = false;
	foreach(lc, quals)
	{
		Node	   *qual = eval_const_expressions(NULL, copyObject(lfirst(lc)));

		if (never_true(qual))
			*impossible = true;
		if (!IsA(qual, Const))
			result = lappend(result, lfirst(lc));
	}
	return result;
}

/* ---- columns that are never NULL ---- */

static bool
column_is_never_null(BlockInput *input, AttrNumber attno)
{
	if (attno <= 0)
		return false;
	if (input->rte->rtekind == RTE_RELATION)
	{
		Relation	relation = table_open(input->rte->relid, AccessShareLock);
		bool		not_null = compat_is_never_null(RelationGetDescr(relation), attno);

		table_close(relation, NoLock);
		return not_null;
	}
	if (input->rte->rtekind == RTE_SUBQUERY && input->rte->subquery->setOperations == NULL)
	{
		Node	   *expr = (Node *) list_nth_node(TargetEntry, input->rte->subquery->targetList, attno - 1)->expr;

		return IsA(expr, Const) && !((Const *) expr)->constisnull;
	}
	return false;
}

static Node *
never_null_mutator(Node *node, OuterJoin *join)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, NullTest) && IsA(((NullTest *) node)->arg, Var) && !((NullTest *) node)->argisrow)
	{
		Var		   *var = (Var *) ((NullTest *) node)->arg;

		if (var->varlevelsup == 0 && column_is_never_null(join->sides[var->varno], var->varattno))
			return makeBoolConst(((NullTest *) node)->nulltesttype == IS_NOT_NULL, false);
	}
	return expression_tree_mutator(node, never_null_mutator, join);
}

/* ---- the parts ---- */

QueryBlock *
outer_join_block(Compiler *compiler, List *inputs, List *quals, List *targets)
{
	QueryBlock *block = palloc0(sizeof(QueryBlock));
	List	   *rtable = NIL;
	ListCell   *lc;

	block->program = compiler->program;
	block->inputs = inputs;
	block->quals = quals;
	foreach(lc, inputs)
	{
		BlockInput *input = lfirst(lc);

		rtable = lappend(rtable, input->rte);
		block->states = list_union_ptr(block->states, input->states);
	}
	block->query = simple_query(rtable, quals, targets);
	return block;
}

static void
add_part(OuterJoin *join, QueryBlock *block, List *targets)
{
	JoinPart   *part = palloc0(sizeof(JoinPart));

	part->block = block;
	part->targets = targets;
	join->parts = lappend(join->parts, part);
}

static void
add_matches(OuterJoin *join)
{
	bool		impossible;
	List	   *quals = list_concat(copyObject(join->on),
									(List *) never_null_mutator((Node *) join->filter, join));

	quals = that_matter(quals, &impossible);
	if (!impossible)
		add_part(join, outer_join_block(join->compiler, list_make2(join->sides[LEFT_INPUT], join->sides[RIGHT_INPUT]), quals,
								  join->targets), join->targets);
}

/* The rows of `kept` without a match.  False when there is no rule. */
static bool
add_rows_without_match(OuterJoin *join, int kept)
{
	int			missing = kept == LEFT_INPUT ? RIGHT_INPUT : LEFT_INPUT;
	List	   *quals = with_nulls(join->filter, missing);
	List	   *targets = with_nulls(join->targets, missing);
	List	   *on = join->on;
	BlockInput *lookup;
	bool		impossible;

	quals = that_matter(quals, &impossible);
	if (impossible)
		return true;
	if (kept == RIGHT_INPUT)
	{
		quals = sides_exchanged(quals);
		targets = sides_exchanged(targets);
		on = sides_exchanged(on);
	}
	lookup = outer_join_lookup(join->compiler, join->sides[kept], join->sides[missing], on);
	if (lookup == NULL)
		return false;
	add_part(join, outer_join_block(join->compiler, list_make2(join->sides[kept], lookup), quals, targets), targets);
	return true;
}

/* ---- key ---- */

static List *
visible_key_of(OuterJoin *join, int side, List *key)
{
	ListCell   *lc;

	if (key == NIL || join->sides[side]->key == NIL)
		return NIL;
	foreach(lc, join->sides[side]->key)
	{
		int			column = output_column(join->targets, side - 1, lfirst_int(lc));

		if (column == 0)
			return NIL;
		key = list_append_unique_int(key, column);
	}
	return key;
}

/*
 * Rows of an outer join are identified by the keys of both sides, where NULLs count as equal.  The right key can be left out of a left
 * join that finds at most one match.  An equated column cannot stand for the other one here: rows without a match have only one of them.
 */
static List *
outer_join_key(OuterJoin *join)
{
	List	   *key = list_make1_int(0);	/* not NIL, which means: none */

	if (expression_returns_set((Node *) join->targets))
		return NIL;
	key = visible_key_of(join, LEFT_INPUT, key);
	if (join->type == JOIN_FULL || !outer_join_matches_once(join->sides[RIGHT_INPUT], join->on))
		key = visible_key_of(join, RIGHT_INPUT, key);
	return key == NIL ? NIL : list_delete_first(key);
}

/* ---- the new state ---- */

/* As the parser would make it: the deparser goes through both sides' columns by it, also of a side that reads no table. */
static RangeTblEntry *
join_rte(OuterJoin *join)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	List	   *names[3];
	List	   *vars[3];
	ListCell   *lc;

	for (int side = LEFT_INPUT; side <= RIGHT_INPUT; side++)
		entry_columns(join->sides[side]->rte, side, 0, false, &names[side], &vars[side]);
	rte->rtekind = RTE_JOIN;
	rte->jointype = join->type;
	foreach(lc, vars[LEFT_INPUT])
		rte->joinleftcols = lappend_int(rte->joinleftcols, lfirst_node(Var, lc)->varattno);
	foreach(lc, vars[RIGHT_INPUT])
		rte->joinrightcols = lappend_int(rte->joinrightcols, lfirst_node(Var, lc)->varattno);
	rte->joinaliasvars = list_concat(vars[LEFT_INPUT], vars[RIGHT_INPUT]);
	rte->eref = makeAlias("unnamed_join", list_concat(names[LEFT_INPUT], names[RIGHT_INPUT]));
	rte->inFromCl = true;
	return rte;
}

static Query *
new_state(OuterJoin *join)
{
	JoinExpr   *expr;
	Query	   *query;

	if (list_length(join->parts) == 1)
	{
		JoinPart   *part = linitial(join->parts);

		return join_new_state(part->block, part->targets);
	}
	query = simple_query(list_make3(copyObject(join->sides[LEFT_INPUT]->rte),
									copyObject(join->sides[RIGHT_INPUT]->rte), join_rte(join)),
						 copyObject(join->filter), copyObject(join->targets));
	expr = makeNode(JoinExpr);
	expr->jointype = join->type;
	expr->larg = (Node *) reference_to(LEFT_INPUT);
	expr->rarg = (Node *) reference_to(RIGHT_INPUT);
	expr->quals = join->on == NIL ? makeBoolConst(true, false)
		: (Node *) make_ands_explicit(copyObject(join->on));
	expr->rtindex = 3;
	query->jointree->fromlist = list_make1(expr);
	return query;
}

/* ---- the step ---- */

static char *
print_outer_join(ProgramStep *step, uint64 nonempty)
{
	OuterJoin  *join = step->build;
	StringInfoData sql;
	ListCell   *lc;

	initStringInfo(&sql);
	foreach(lc, join->parts)
	{
		JoinPart   *part = lfirst(lc);
		uint64		changed = join_changed_inputs(part->block, step, nonempty);

		if (changed != 0)
			appendStringInfo(&sql, "%s%s", sql.len > 0 ? "\nUNION ALL\n" : "",
							 join_delta_sql(part->block, changed, part->targets));
	}
	return sql.data;
}

static bool
step_has_input(ProgramStep *step, int rowset)
{
	for (int i = 0; i < step->ninputs; i++)
	{
		if (step->inputs[i] == rowset)
			return true;
	}
	return false;
}

static void
add_step(OuterJoin *join, Compiled *compiled)
{
	ProgramStep *step;
	ListCell   *lc;
	ListCell   *other;

	step = program_add_step(join->compiler, STEP_QUERY,
							list_length(join->parts) == 1 ? "anti join" :
							join->type == JOIN_FULL ? "full join" : "left join",
							"matches, and rows without one");
	foreach(lc, join->parts)
	{
		JoinPart   *part = lfirst(lc);

		step->states_read = list_union_ptr(step->states_read, part->block->states);
		step_lock_block(step, part->block);
		foreach(other, part->block->inputs)
		{
			BlockInput *input = lfirst(other);

			if (input->rowset >= 0 && !step_has_input(step, input->rowset))
				step_add_input(step, input->rowset);
		}
	}
	step->print = print_outer_join;
	step->subtracts = true;
	step->build = join;
	step->output = compiled->rowset =
		program_add_rowset(join->compiler, program_new_rowset_name(join->compiler, "rows"), InvalidOid);
}

static bool
describe_join(OuterJoin *join, Query *query)
{
	JoinExpr   *expr = linitial_node(JoinExpr, query->jointree->fromlist);
	ListCell   *lc;

	join->query = query;
	join->type = expr->jointype;
	block_renumber_inputs(query, list_make2_int(((RangeTblRef *) expr->larg)->rtindex,
												((RangeTblRef *) expr->rarg)->rtindex));
	join->on = make_ands_implicit((Expr *) expr->quals);
	join->filter = make_ands_implicit((Expr *) query->jointree->quals);
	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (target->resjunk)
			continue;
		target = copyObject(target);
		target->resno = list_length(join->targets) + 1;
		target->ressortgroupref = 0;
		join->targets = lappend(join->targets, target);
	}
	rename_targets(join->targets, target_column_names(join->targets));
	for (int side = LEFT_INPUT; side <= RIGHT_INPUT; side++)
		join->sides[side] = block_describe_input(join->compiler, query, side);
	return join->sides[LEFT_INPUT] != NULL && join->sides[RIGHT_INPUT] != NULL;
}

Compiled *
compile_outer_join(Compiler *compiler, Query *query)
{
	OuterJoin  *join = palloc0(sizeof(OuterJoin));
	Compiled   *compiled = palloc0(sizeof(Compiled));
	ListCell   *lc;

	join->compiler = compiler;
	if (!block_level_is_supported(compiler, query))
	{
		note_all_sources(compiler, query);
		return NULL;
	}
	if (!describe_join(join, query))
		return NULL;
	add_matches(join);
	if (!add_rows_without_match(join, LEFT_INPUT) ||
		(join->type == JOIN_FULL && !add_rows_without_match(join, RIGHT_INPUT)))
		return NULL;
	if (join->parts == NIL)
		return compile_cannot(compiler, "a join whose conditions are never true has no delta rule");

	compiled->new_query = new_state(join);
	foreach(lc, join->parts)
		compiled->states = list_union_ptr(compiled->states, ((JoinPart *) lfirst(lc))->block->states);
	compiled->key = outer_join_key(join);
	compiled->rowset = -1;
	if (join->sides[LEFT_INPUT]->rowset >= 0 || join->sides[RIGHT_INPUT]->rowset >= 0)
		add_step(join, compiled);
	return compiled;
}
