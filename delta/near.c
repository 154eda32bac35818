/*
 * delta/near.c
 *     Rows near a change: one scan of a big table in place of one for each term that needs it.
 *
 * Of an input F in its new state, a term with the delta of X reads only rows that fulfil the conditions between F and X.  With an index on F's
 * side of them that is a probe.  Without one it is a scan of F, and in a join of many changed inputs it would be one scan for each
 * term and each such X.  So the rows of F that match the delta of at least one such X are looked up first, all in one scan,
 *
 *     near(F) = SELECT ... FROM F' WHERE EXISTS (SELECT FROM dX WHERE conditions) OR EXISTS (SELECT FROM dY WHERE conditions)
 *
 * into a rowset, whose size the planner knows.  A term whose changed inputs include X (or Y) reads near(F) for F': it leaves out only
 * rows that the term's own conditions would reject (a semijoin reduction; Bernstein and Chiu, JACM 1981).  If near(F) is empty, so is the term, and
 * it is not run.
 *
 * Several stream tables of a tick often look for the same rows of F, of which they want different columns.  So where the conditions contain
 * equalities of columns, the places of the rows that match by these alone are looked up for all of them (shared_rows.c), and near(F) fetches
 * from there what fulfils the conditions on F.  That may be more rows than near(F) has otherwise, which changes nothing.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "block.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_operator_d.h"
#include "catalog/pg_type_d.h"
#include "fk_prune.h"
#include "keyed.h"
#include "lib/stringinfo.h"
#include "lock_pairs.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "query.h"
#include "rewrite/rewriteManip.h"
#include "rowset.h"
#include "settings.h"
#include "shared_rows.h"
#include "storage/bufmgr.h"
#include "temporal.h"
#include "tree_build.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#define INPUTS_MIN 3			/* in a join of two inputs each scan serves one term already, and is worth it only when it is shared */

/* ---- what is joined with what ---- */

static bool
is_equality_between(Node *qual, int one, int other)
{
	OpExpr	   *condition = (OpExpr *) qual;
	Bitmapset  *left;
	Bitmapset  *right;

	if (!IsA(qual, OpExpr) || list_length(condition->args) != 2 ||
		!op_hashjoinable(condition->opno, exprType(linitial(condition->args))))
		return false;
	left = pull_varnos(NULL, linitial(condition->args));
	right = pull_varnos(NULL, lsecond(condition->args));
	return (bms_equal(left, bms_make_singleton(one)) && bms_equal(right, bms_make_singleton(other))) ||
		(bms_equal(left, bms_make_singleton(other)) && bms_equal(right, bms_make_singleton(one)));
}

/* Conditions about these two inputs and no other; `just`: about that one alone. */
static List *
quals_about(QueryBlock *block, Bitmapset *tables)
{
	List	   *found = NIL;
	ListCell   *lc;

	foreach(lc, block->quals)
	{
		Node	   *qual = lfirst(lc);
		Bitmapset  *used = pull_varnos(NULL, qual);

		if (!bms_is_empty(used) && bms_is_subset(used, tables) && !contains_sublink(qual) &&
			!temporal_mentions_time(qual))
			found = lappend(found, qual);
	}
	return found;
}

/* Columns of `rtindex` in equalities with the other input. */
static Bitmapset *
equated_columns(List *quals, int rtindex, int other)
{
	Bitmapset  *columns = NULL;
	ListCell   *lc;

	foreach(lc, quals)
	{
		ListCell   *arg;

		if (!is_equality_between(lfirst(lc), rtindex, other))
			continue;
		foreach(arg, ((OpExpr *) lfirst(lc))->args)
		{
			Var		   *var = lfirst(arg);

			columns = bms_add_member(columns, IsA(var, Var) && var->varno == rtindex ? var->varattno : 0);
		}
	}
	return columns;
}

/* Is there an index that finds rows by (some of) these columns?  Expressions count as not indexed. */
static bool
has_index_for(Relation relation, Bitmapset *columns)
{
	bool		found = false;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(relation))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		found |= index->rd_index->indisvalid && RelationGetIndexPredicate(index) == NIL &&
			index->rd_index->indkey.values[0] > 0 &&
			bms_is_member(index->rd_index->indkey.values[0], columns);
		index_close(index, AccessShareLock);
	}
	return found;
}

/* Do these columns hold a key of the input?  Then a row of the other input has one match, as a fact has one row of a dimension. */
static bool
hold_key(BlockInput *input, Bitmapset *columns)
{
	ListCell   *lc;

	foreach(lc, input->key)
	{
		if (!bms_is_member(lfirst_int(lc), columns))
			return false;
	}
	return input->key != NIL;
}

/*
 * The changing inputs whose deltas lead to a scan of this one.  Not those that are joined many to many: what is near to them may be
 * most of the table, and the planner knows nothing of a rowset's values.
 */
static uint64
scanning_inputs(QueryBlock *block, int input_no, Relation relation)
{
	uint64		edges = 0;

	for (int other = 0; other < list_length(block->inputs); other++)
	{
		BlockInput *input = list_nth(block->inputs, other);
		Bitmapset  *pair = bms_add_member(bms_make_singleton(input_no + 1), other + 1);
		Bitmapset  *columns;

		if (other == input_no || input->rowset < 0 || input->anti)
			continue;
		if (!hold_key(input, equated_columns(quals_about(block, pair), other + 1, input_no + 1)))
			continue;
		columns = equated_columns(quals_about(block, pair), input_no + 1, other + 1);
		if (!has_index_for(relation, columns))
			edges |= UINT64CONST(1) << other;
	}
	return edges;
}

/* ---- places ---- */

static Node *
place_var(int rtindex)
{
	return (Node *) makeVar(rtindex, SelfItemPointerAttributeNumber, TIDOID, -1, InvalidOid, 0);
}

/* The first equality of this column with one of the other input, column first; NULL: there is none. */
static Node *
column_equality(List *quals, int rtindex, AttrNumber attno, int other)
{
	ListCell   *lc;

	foreach(lc, quals)
	{
		OpExpr	   *equality = lfirst(lc);
		Var		   *left;
		Var		   *right;

		if (!is_equality_between((Node *) equality, rtindex, other))
			continue;
		left = linitial(equality->args);
		right = lsecond(equality->args);
		if (!IsA(left, Var) || !IsA(right, Var))
			continue;
		if (left->varno == rtindex && left->varattno == attno)
			return copyObject((Node *) equality);
		if (right->varno == rtindex && right->varattno == attno && OidIsValid(get_commutator(equality->opno)))
		{
			equality = copyObject(equality);
			CommuteOpExpr(equality);
			return (Node *) equality;
		}
	}
	return NULL;
}

/* All of them, in the order of the columns, so that every level that joins the two tables says the same. */
static List *
column_equalities(QueryBlock *block, int input_no, int other)
{
	BlockInput *input = list_nth(block->inputs, input_no);
	List	   *quals = quals_about(block, bms_add_member(bms_make_singleton(input_no + 1), other + 1));
	List	   *equalities = NIL;

	for (AttrNumber attno = 1; attno <= list_length(input->colnames); attno++)
	{
		Node	   *equality = column_equality(quals, input_no + 1, attno, other + 1);

		if (equality != NULL)
			equalities = lappend(equalities, equality);
	}
	return equalities;
}

static void
rename_entry(RangeTblEntry *rte, const char *alias)
{
	rte->alias = makeAlias(alias, NIL);
	rte->eref->aliasname = pstrdup(alias);
}

/* Are rows known by their places?  Not with child tables, whose places are numbered alike. */
static bool
has_places(RangeTblEntry *rte)
{
	return rte->securityQuals == NIL && rte->tablesample == NULL && !(rte->inh && has_subclass(rte->relid));
}

static bool
is_source_rowset(QueryBlock *block, int rowset)
{
	return OidIsValid(((ProgramRowset *) list_nth(block->program->rowsets, rowset))->source_relid);
}

static Query *
select_from_one(QueryBlock *block, int input_no, List *quals, List *targets)
{
	List	   *rtable = NIL;
	Query	   *query;

	/*
	 * The input keeps its number; the entries before it only take up their places.  So does the one behind it: the server prints
	 * columns without their table when there is but one entry, and the same lookup must always be printed alike.
	 */
	for (int i = 0; i <= Max(input_no, 1); i++)
		rtable = lappend(rtable, copyObject(((BlockInput *) list_nth(block->inputs, i))->rte));
	query = simple_query(rtable, quals, targets);
	query->jointree->fromlist = list_make1(reference_to(input_no + 1));
	query->hasSubLinks = true;
	return query;
}

static TargetEntry *
weight_of_one(int resno)
{
	return makeTargetEntry((Expr *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(1), false, true), resno,
						   pstrdup(ROWSET_WEIGHT_COLUMN), false);
}

/* The lookup that may be shared; NULL: there is none. */
static char *
places_sql(QueryBlock *block, int input_no, int other)
{
	BlockInput *input = list_nth(block->inputs, input_no);
	List	   *equalities = column_equalities(block, input_no, other);
	RangeTblEntry *delta;
	Query	   *query;

	if (equalities == NIL || !has_places(input->rte) ||
		!is_source_rowset(block, ((BlockInput *) list_nth(block->inputs, other))->rowset))
		return NULL;
	delta = join_delta_rte(block, other);
	rename_entry(delta, "d");
	query = select_from_one(block, input_no, list_make1(join_exists(delta, other + 1, equalities)),
							list_make2(makeTargetEntry((Expr *) place_var(input_no + 1), 1, pstrdup("tid"), false), weight_of_one(2)));
	rename_entry(list_nth_node(RangeTblEntry, query->rtable, input_no), "f");
	return query_print(query);
}

static uint64
edges_with_places(QueryBlock *block, int input_no, uint64 edges)
{
	uint64		found = 0;

	for (int other = 0; other < list_length(block->inputs); other++)
	{
		uint64		bit = UINT64CONST(1) << other;

		if ((edges & bit) != 0 && places_sql(block, input_no, other) != NULL)
			found |= bit;
	}
	return found;
}

/* Is the row at one of the places that were looked up? */
static Node *
is_at_a_place(QueryBlock *block, int input_no)
{
	int			places = list_length(block->inputs) + 1;
	RangeTblEntry *rte = named_rte(SHARED_ROWS_NAME, "places",
										list_make2(makeString(pstrdup("tid")), makeString(pstrdup(ROWSET_WEIGHT_COLUMN))),
										list_make2_oid(TIDOID, INT4OID), list_make2_int(-1, -1), list_make2_oid(InvalidOid, InvalidOid));
	Expr	   *same = make_opclause(TIDEqualOperator, BOOLOID, false, (Expr *) place_var(input_no + 1),
									 (Expr *) makeVar(places, 1, TIDOID, -1, InvalidOid, 0), InvalidOid, InvalidOid);

	return join_exists(rte, places, list_make1(same));
}

/* ---- the statement ---- */

static Node *
some_match(QueryBlock *block, int input_no, int other)
{
	Bitmapset  *pair = bms_add_member(bms_make_singleton(input_no + 1), other + 1);
	List	   *quals = list_difference_ptr(quals_about(block, pair),
											quals_about(block, bms_make_singleton(input_no + 1)));

	return join_exists(join_delta_rte(block, other), other + 1, copyObject(quals));
}

static Node *
matches_some(NearRows *near, uint64 changed)
{
	List	   *matches = NIL;

	for (int other = 0; other < list_length(near->block->inputs); other++)
	{
		if ((changed & near->edges & (UINT64CONST(1) << other)) != 0)
			matches = lappend(matches, some_match(near->block, near->input, other));
	}
	return list_length(matches) == 1 ? linitial(matches) : (Node *) makeBoolExpr(OR_EXPR, matches, -1);
}

static char *
print_near(ProgramStep *step, uint64 nonempty)
{
	NearRows   *near = step->build;
	QueryBlock *block = near->block;
	BlockInput *input = list_nth(block->inputs, near->input);
	uint64		changed = join_changed_inputs(block, step, nonempty);
	List	   *targets = NIL;
	List	   *quals = copyObject(quals_about(block, bms_make_singleton(near->input + 1)));
	int			attno = -1;

	if ((nonempty & STEP_SHARED) != 0)
		quals = lappend(quals, is_at_a_place(block, near->input));
	else
		quals = lappend(quals, matches_some(near, changed));
	while ((attno = bms_next_member(near->columns, attno)) >= 0)
	{
		Var		   *var = makeVar(near->input + 1, attno, list_nth_oid(input->coltypes, attno - 1),
								  list_nth_int(input->coltypmods, attno - 1),
								  list_nth_oid(input->colcollations, attno - 1), 0);

		targets = lappend(targets, makeTargetEntry((Expr *) var, list_length(targets) + 1,
												   pstrdup(strVal(list_nth(input->colnames, attno - 1))), false));
	}
	targets = lappend(targets, weight_of_one(list_length(targets) + 1));
	return query_print(select_from_one(block, near->input, quals, targets));
}

/* ---- the pass ---- */

static void
add_near_rows(Compiler *compiler, QueryBlock *block, int input_no, uint64 edges, Bitmapset *columns)
{
	NearRows   *near = palloc0(sizeof(NearRows));
	ProgramStep *step = program_add_step(compiler, STEP_QUERY, "rows near a change", "one scan");

	near->block = block;
	near->input = input_no;
	near->edges = edges;
	near->columns = columns;
	for (int other = 0; other < list_length(block->inputs); other++)
	{
		if ((edges & (UINT64CONST(1) << other)) == 0)
			continue;
		step_add_input(step, ((BlockInput *) list_nth(block->inputs, other))->rowset);
		step->shared = lappend(step->shared, places_sql(block, input_no, other));
	}
	fk_prune_step(block, step);
	step_lock_block(step, block);
	step->build = near;
	step->print = print_near;
	step->output = near->rowset =
		program_add_rowset(compiler, program_new_rowset_name(compiler, "near"), InvalidOid);
	block->near = lappend(block->near, near);
}

void
block_add_near_rows(Compiler *compiler, QueryBlock *block)
{
	for (int i = 0; i < list_length(block->inputs); i++)
	{
		BlockInput *input = list_nth(block->inputs, i);
		Relation	relation;
		uint64		edges = 0;

		if (input->rte->rtekind != RTE_RELATION || input->rte->relkind != RELKIND_RELATION ||
			list_length(block->inputs) + list_length(block->near) >= BLOCK_INPUTS_MAX)
			continue;
		relation = table_open(input->rte->relid, AccessShareLock);
		if (RelationGetNumberOfBlocks(relation) >= (BlockNumber) pgtrickle_near_rows_min_pages)
			edges = scanning_inputs(block, i, relation);
		if (list_length(block->inputs) < INPUTS_MIN)
			edges = edges_with_places(block, i, edges);
		table_close(relation, NoLock);
		if (edges != 0)
			add_near_rows(compiler, block, i, edges, used_columns(block->query, i + 1));
	}
}

NearRows *
block_near_rows(QueryBlock *block, int input_no, uint64 delta)
{
	ListCell   *lc;

	foreach(lc, block->near)
	{
		NearRows   *near = lfirst(lc);

		if (near->input == input_no && (near->edges & delta) != 0)
			return near;
	}
	return NULL;
}

bool
near_rows_are_there(QueryBlock *block, NearRows *near, uint64 changed)
{
	int			number = list_length(block->inputs);
	ListCell   *lc;

	foreach(lc, block->near)
	{
		if (lfirst(lc) == near)
			return (changed & (UINT64CONST(1) << (number + foreach_current_index(lc)))) != 0;
	}
	return false;
}

bool
near_rows_are_empty(QueryBlock *block, uint64 delta, uint64 old, uint64 changed)
{
	ListCell   *lc;

	foreach(lc, block->near)
	{
		NearRows   *near = lfirst(lc);

		if ((near->edges & delta) != 0 && ((delta | old) & (UINT64CONST(1) << near->input)) == 0 &&
			!near_rows_are_there(block, near, changed))
			return true;
	}
	return false;
}
