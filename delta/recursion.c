/*
 * delta/recursion.c
 *     Delta rule for WITH RECURSIVE.
 *
 * r = B UNION T(r): the least set of rows that holds the base's and is closed under the term.  The server allows one reference of T to r, so
 * T distributes over unions, and where r is an input of an inner join, a row of T(r) is derived from one row of r and rows of the other
 * inputs.  The node keeps r's rows in a state table S, and follows changes in the two ways of Gupta, Mumick and Subrahmanian (Maintaining Views
 * Incrementally, SIGMOD 1993):
 *
 *     lost      delete: all rows of S with a derivation from something that went, directly or through other such rows.  That may be
 *               too many, since they may have other derivations; and it reads the other inputs as new state and what went together, which is
 *               never less than what was there.  These rows leave S.  What stays in S is derivable: no derivation of it was touched.
 *     gained    rederive and insert: the lost rows that the base or T(S) still yields, and what follows from rows that came, and what
 *               follows from these (semi-naive).  A row of the new r that is not in S has a derivation; walk down it to the first row in S,
 *               or to the base: the row above is derived from what came, or was lost and is still derived.  So it is found.
 *
 * Both closures are WITH RECURSIVE statements that start from what changed (recursion_sql.c).  The first stops at the rows of S, so it ends even
 * where old and new inputs together would go on for ever.
 *
 * Otherwise the node is computed anew and compared (recompute.c): bags (UNION ALL), SEARCH and CYCLE, r below an outer join, in a subquery,
 * under windows or grouping, subqueries in the term's expressions, and columns whose values can be equal without being identical (numeric), because
 * which of them r shows depends on the derivation that came first.
 */
#include "recursion.h"

#include "canonical.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_type.h"
#include "keyed.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"

#define RECURSION_COLUMNS_MAX 32	/* columns of an index, and bits of a pattern of NULLs */

/* ---- which rule ---- */

static bool
self_references_walker(Node *node, int *count)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		*count += rte->rtekind == RTE_CTE && rte->self_reference;
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, self_references_walker, count, QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, self_references_walker, count);
}

/* Is r an item of FROM that only inner joins lie above? */
static bool
self_is_inner_joined(Node *node, Query *query)
{
	ListCell   *lc;

	if (IsA(node, RangeTblRef))
	{
		RangeTblEntry *rte = rt_fetch(((RangeTblRef *) node)->rtindex, query->rtable);

		return rte->rtekind == RTE_CTE && rte->self_reference;
	}
	if (IsA(node, JoinExpr))
		return ((JoinExpr *) node)->jointype == JOIN_INNER &&
			(self_is_inner_joined(((JoinExpr *) node)->larg, query) || self_is_inner_joined(((JoinExpr *) node)->rarg, query));
	foreach(lc, castNode(FromExpr, node)->fromlist)
	{
		if (self_is_inner_joined(lfirst(lc), query))
			return true;
	}
	return false;
}

static bool
reads_laterally(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_SUBQUERY && rte->lateral)
			return true;
	}
	return false;
}

static bool
term_is_linear(Query *term)
{
	int			count = 0;

	(void) query_tree_walker(term, self_references_walker, &count, QTW_EXAMINE_RTES_BEFORE);
	return term->setOperations == NULL && term->groupClause == NIL && term->groupingSets == NIL && !term->hasAggs &&
		term->havingQual == NULL && !term->hasWindowFuncs && !term->hasDistinctOn && term->limitCount == NULL &&
		term->limitOffset == NULL && term->cteList == NIL && !term->hasSubLinks && !reads_laterally(term) &&
		count == 1 && self_is_inner_joined((Node *) term->jointree, term);
}

static bool
columns_are_usable(Query *query)
{
	List	   *exprs = NIL;
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		if (!IsA(lfirst_node(TargetEntry, lc)->expr, Var))
			return false;		/* in place of what cannot be stored */
		exprs = lappend(exprs, lfirst_node(TargetEntry, lc)->expr);
	}
	return list_length(exprs) <= RECURSION_COLUMNS_MAX && !order_needs_hash(exprs);
}

/* The term of a recursion over sets; NULL: it has another shape. */
static Query *
set_recursion_term(Query *query, Query *definition)
{
	SetOperationStmt *top = (SetOperationStmt *) definition->setOperations;
	Query	   *term;

	if (top == NULL || top->op != SETOP_UNION || top->all || !IsA(top->rarg, RangeTblRef) ||
		definition->limitCount != NULL || definition->limitOffset != NULL || !columns_are_usable(query))
		return NULL;
	term = rt_fetch(((RangeTblRef *) top->rarg)->rtindex, definition->rtable)->subquery;
	return term_is_linear(term) ? copyObject(term) : NULL;
}

/* ---- base and term ---- */

static Query *
base_query(Query *definition)
{
	SetOperationStmt *top = castNode(SetOperationStmt, definition->setOperations);
	Query	   *base;

	if (IsA(top->larg, RangeTblRef))
		return copyObject(rt_fetch(((RangeTblRef *) top->larg)->rtindex, definition->rtable)->subquery);
	base = copyObject(definition);
	top = castNode(SetOperationStmt, base->setOperations);
	/* the term is no part of it */
	rt_fetch(((RangeTblRef *) top->rarg)->rtindex, base->rtable)->subquery = NULL;
	rt_fetch(((RangeTblRef *) top->rarg)->rtindex, base->rtable)->rtekind = RTE_RESULT;
	base->setOperations = top->larg;
	return base;
}

static bool
compile_term(Compiler *compiler, RecursionBuild *build, Query *term)
{
	ListCell   *lc;

	term->distinctClause = NIL; /* a set anyway */
	term->sortClause = NIL;
	if (!isolate_outer_joins(compiler, term))
	{
		note_all_sources(compiler, term);
		return false;
	}
	build->term = block_from_query(compiler, term);
	if (build->term == NULL)
		return false;
	foreach(lc, build->term->inputs)
	{
		BlockInput *input = lfirst(lc);

		if (input->rte->rtekind == RTE_CTE && input->rte->self_reference)
			build->self = foreach_current_index(lc);
	}
	foreach(lc, term->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (!target->resjunk)
			build->targets = lappend(build->targets,
									 makeTargetEntry(target->expr, list_length(build->targets) + 1,
													 psprintf("k%d", list_length(build->targets) + 1), false));
	}
	return true;
}

/* ---- the state ---- */

static bool
note_columns_walker(Node *node, RecursionBuild *build)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var) && ((Var *) node)->varno == build->self + 1)
		build->state->probe_columns = list_append_unique_int(build->state->probe_columns, ((Var *) node)->varattno);
	return expression_tree_walker(node, note_columns_walker, build);
}

/* What r is joined by gets an index; the key's own index serves its first column. */
static void
note_probe_columns(RecursionBuild *build)
{
	ListCell   *lc;

	foreach(lc, build->term->quals)
	{
		if (bms_num_members(pull_varnos(NULL, lfirst(lc))) > 1)
			(void) note_columns_walker(lfirst(lc), build);
	}
	build->state->probe_columns = list_delete_int(build->state->probe_columns, 1);
}

static void
make_state(Compiler *compiler, RecursionBuild *build, Query *query)
{
	ProgramState *state = build->state = palloc0(sizeof(ProgramState));
	ListCell   *lc;

	state->number = list_length(compiler->program->states) + 1;
	state->name = psprintf("__pgt_state_%d", state->number);
	state->nkeys = list_length(query->targetList);
	state->reads = list_union_ptr(build->base->states, build->term->states);
	foreach(lc, query->targetList)
	{
		Node	   *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;
		StateColumn *column = palloc0(sizeof(StateColumn));

		column->name = column->delta_name = psprintf("k%d", foreach_current_index(lc) + 1);
		column->type = exprType(expr);
		column->typmod = exprTypmod(expr);
		column->collation = exprCollation(expr);
		state->columns = lappend(state->columns, column);
	}
	note_probe_columns(build);
	state->fill_sql = recursion_fill_sql(build);
	compiler->program->states = lappend(compiler->program->states, state);
}

/* ---- steps ---- */

static int
add_output(Compiler *compiler, ProgramStep *step, const char *what)
{
	return step->output = program_add_rowset(compiler, program_new_rowset_name(compiler, what), InvalidOid);
}

static ProgramStep *
add_query_step(Compiler *compiler, RecursionBuild *build, const char *strategy, StepPrinter print)
{
	ProgramStep *step = program_add_step(compiler, STEP_QUERY, "recursion", strategy);

	step->build = build;
	step->print = print;
	step->states_read = list_append_unique_ptr(list_copy(build->state->reads), build->state);
	return step;
}

static void
add_changed_inputs(RecursionBuild *build, ProgramStep *step)
{
	if (build->base->rowset >= 0)
		step_add_input(step, build->base->rowset);
	join_add_inputs(build->term, step);
}

static int
add_replace_step(Compiler *compiler, RecursionBuild *build, const char *strategy, int keys,
				 char *(*print) (ProgramStep *, const char *, uint64), const char *what)
{
	ProgramStep *step = program_add_step(compiler, STEP_REPLACE, "recursion", strategy);

	step->build = build;
	step->state = build->state;
	step->print_recompute = print;
	step_add_input(step, keys);
	return add_output(compiler, step, what);
}

static List *
add_steps(Compiler *compiler, RecursionBuild *build)
{
	ProgramStep *step = add_query_step(compiler, build, "delete and rederive: rows that may be lost", recursion_print_lost);
	int			gone;
	int			gained;

	add_changed_inputs(build, step);
	build->lost = add_output(compiler, step, "lost");
	step = add_query_step(compiler, build, "delete and rederive: those with NULLs", recursion_print_lost_with_nulls);
	step_add_input(step, build->lost);
	build->lost_with_nulls = add_output(compiler, step, "lost_with_nulls");
	gone = add_replace_step(compiler, build, "delete and rederive: delete", build->lost, recursion_print_nothing, "gone");

	step = add_query_step(compiler, build, "semi-naive: rederived and new rows", recursion_print_gained);
	add_changed_inputs(build, step);
	step_add_input(step, build->lost);
	step_add_input(step, build->lost_with_nulls);
	gained = add_output(compiler, step, "gained");
	return list_make2_int(gone, add_replace_step(compiler, build, "semi-naive: insert", gained, recursion_print_rows, "come"));
}

static bool
has_changing_inputs(RecursionBuild *build)
{
	ListCell   *lc;

	if (build->base->rowset >= 0)
		return true;
	foreach(lc, build->term->inputs)
	{
		if (((BlockInput *) lfirst(lc))->rowset >= 0)
			return true;
	}
	return false;
}

static Compiled *
compile_set_recursion(Compiler *compiler, Query *query, Query *base, Query *term)
{
	RecursionBuild *build = palloc0(sizeof(RecursionBuild));
	List	   *names = target_column_names(query->targetList);
	List	   *targets = NIL;
	List	   *rowsets;
	Compiled   *compiled;
	ListCell   *lc;

	build->program = compiler->program;
	build->base = compile_level(compiler, base);
	if (!compile_term(compiler, build, term) || build->base == NULL)
		return NULL;
	build->base_names = target_column_names(build->base->new_query->targetList);
	if (!has_changing_inputs(build))
		return compile_recompute(compiler, query, "recursion");
	make_state(compiler, build, query);
	rowsets = add_steps(compiler, build);
	foreach(lc, build->state->columns)
	{
		StateColumn *column = lfirst(lc);
		int			i = foreach_current_index(lc) + 1;

		targets = lappend(targets, makeTargetEntry((Expr *) makeVar(1, i, column->type, column->typmod, column->collation, 0), i,
												   pstrdup(strVal(list_nth(names, i - 1))), false));
	}
	compiled = project_state(compiler, build->state, "recursion output", rowsets, targets, NIL);
	for (int i = 1; i <= build->state->nkeys; i++)
		compiled->key = lappend_int(compiled->key, i);
	compiled->key_is_unique = true;
	return compiled;
}

/* ---- columns that no table can hold ---- */

static bool
is_unstorable(TargetEntry *target)
{
	return get_typtype(exprType((Node *) target->expr)) == TYPTYPE_PSEUDO;
}

/*
 * SEARCH and CYCLE give a recursive query a column of rows.  Where the level above does not read it, it becomes NULL; where it does,
 * returns true: that level has to be computed anew as a whole.
 */
bool
level_reads_unstorable_recursion(Query *query)
{
	for (int i = 1; i <= list_length(query->rtable); i++)
	{
		RangeTblEntry *rte = rt_fetch(i, query->rtable);
		Bitmapset  *used;
		ListCell   *lc;

		if (rte->rtekind != RTE_SUBQUERY || !rte->subquery->hasRecursive)
			continue;
		used = used_columns(query, i);
		foreach(lc, rte->subquery->targetList)
		{
			TargetEntry *target = lfirst_node(TargetEntry, lc);

			if (!is_unstorable(target))
				continue;
			if (bms_is_member(target->resno, used) || bms_is_member(0, used))
				return true;
			target->expr = (Expr *) makeNullConst(TEXTOID, -1, DEFAULT_COLLATION_OID);
		}
	}
	return false;
}

Compiled *
compile_recursion(Compiler *compiler, Query *query)
{
	CommonTableExpr *cte = linitial_node(CommonTableExpr, query->cteList);
	Query	   *definition = castNode(Query, cte->ctequery);
	Query	   *term = level_follows_time(query) ? NULL : set_recursion_term(query, definition);

	if (term == NULL)
		return compile_recompute(compiler, query, "recursion");
	return compile_set_recursion(compiler, query, base_query(definition), term);
}
