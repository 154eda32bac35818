/*
 * delta/top_rows.c
 *     Rule for ORDER BY ... LIMIT with constants: the first rows and a reserve behind them are kept, and the input is read only when these run out.
 *
 * The state S is a prefix of the input R in the level's order, which is total (canonical.c): its first rows, at least as many as OFFSET and
 * LIMIT together need, or all there are.  A change behind the last row of S leaves a prefix a prefix.  Any other change is applied to S itself: what
 * came is put in its place, what went is taken out, and S is a prefix of the new R.  If too few rows are left, S is read anew, with a reserve as
 * large as what is needed, so that most deletes need no reading (Yi et al., Efficient Maintenance of Materialized Top-k Views, ICDE 2003).
 *
 * Which changed rows are not behind S is seen by sorting both together: those that have a row of S at or after their place.  Rows with equal
 * images are copies of one another, and copies at the end of S may go on behind it; a prefix it is all the same.
 */
#include "keyed.h"

#include "catalog/pg_type_d.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "query.h"
#include "rowset.h"
#include "tree_build.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

#define RESERVE_MIN 20

typedef struct TopRowsBuild
{
	DeltaProgram *program;
	Compiled   *input;
	List	   *names;			/* of String: the input's columns */
	Query	   *level;			/* ORDER BY, OFFSET and LIMIT over range-table entry 1, whose columns are the input's and the state's */
	ProgramState *state;
	int64		needed;			/* rows */
	int			first_before;	/* rowset of the visible rows before the refresh */
	int			replaced;		/* rowset of the state's changes */
} TopRowsBuild;

/* ---- statements ---- */

/* The level over something else that has the state's columns. */
static Query *
level_over_rows(TopRowsBuild *build, RangeTblEntry *rows)
{
	Query	   *query = copyObject(build->level);

	query->rtable = list_make1(rows);
	rename_targets(query->targetList, target_column_names(query->targetList));
	return query;
}

/* All columns of an RTE like the state, in the level's order; `limit` 0: all rows. */
static Query *
ordered_rows(TopRowsBuild *build, RangeTblEntry *rows, int64 limit)
{
	Query	   *query = level_over_rows(build, rows);
	List	   *targets = NIL;
	ListCell   *lc;

	/* the targets are Vars, junk ones included; visible columns that are shown twice are columns of the input twice */
	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		target->resjunk = false;
		target->resno = list_length(targets) + 1;
		target->resname = psprintf("v%d", target->resno);
		targets = lappend(targets, target);
	}
	query->targetList = targets;
	query->limitOffset = NULL;
	query->limitCount = limit == 0 ? NULL
		: (Node *) makeConst(INT8OID, -1, InvalidOid, sizeof(int64), Int64GetDatum(limit), false, FLOAT8PASSBYVAL);
	return query;
}

static int64
rows_kept(TopRowsBuild *build)
{
	return build->needed * 2 + RESERVE_MIN;
}

static char *
fill_sql(TopRowsBuild *build)
{
	return query_print(ordered_rows(build, subquery_rte(copyObject(build->input->new_query), "input"), rows_kept(build)));
}

/* "v1, v2", or as `prefix` says */
static char *
state_columns(TopRowsBuild *build)
{
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 1; i <= list_length(build->names); i++)
		appendStringInfo(&sql, "%sv%d", i > 1 ? ", " : "", i);
	return sql.data;
}

/* An RTE of a WITH query that has the state's columns, a weight, and whether the row is the state's. */
static RangeTblEntry *
both_rte(TopRowsBuild *build)
{
	RangeTblEntry *rte = state_rte(build->state, "__pgt_both", true);

	rte->eref->colnames = lappend(rte->eref->colnames, makeString(pstrdup("kept")));
	rte->coltypes = lappend_oid(rte->coltypes, INT4OID);
	rte->coltypmods = lappend_int(rte->coltypmods, -1);
	rte->colcollations = lappend_oid(rte->colcollations, InvalidOid);
	return rte;
}

/* Rows of both, and for each whether a row of the state is at or after its place. */
static char *
placed_rows_sql(TopRowsBuild *build)
{
	Query	   *query = ordered_rows(build, both_rte(build), 0);
	int			ncolumns = list_length(build->names);
	WindowClause *window = makeNode(WindowClause);
	WindowFunc *call = makeNode(WindowFunc);

	window->winref = 1;
	window->orderClause = query->sortClause;
	window->frameOptions = FRAMEOPTION_NONDEFAULT | FRAMEOPTION_RANGE | FRAMEOPTION_BETWEEN |
		FRAMEOPTION_START_CURRENT_ROW | FRAMEOPTION_END_UNBOUNDED_FOLLOWING;
	call->winfnoid = F_MAX_INT4;
	call->wintype = INT4OID;
	call->winagg = true;
	call->winref = 1;
	call->args = list_make1(makeVar(1, ncolumns + 2, INT4OID, -1, InvalidOid, 0));
	query->targetList = lappend(query->targetList,
								makeTargetEntry((Expr *) makeVar(1, ncolumns + 1, INT4OID, -1, InvalidOid, 0), ncolumns + 1,
												pstrdup(ROWSET_WEIGHT_COLUMN), false));
	query->targetList = lappend(query->targetList,
								makeTargetEntry((Expr *) call, ncolumns + 2, pstrdup("in_place"), false));
	query->sortClause = NIL;
	query->windowClause = list_make1(window);
	query->hasWindowFuncs = true;
	return query_print(query);
}

static char *
print_kept_rows(ProgramStep *step, const char *keys_name, uint64 null_keys)
{
	TopRowsBuild *build = step->build;
	char	   *columns = state_columns(build);
	StringInfoData sql;
	ListCell   *lc;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT q.*, 1 AS " ROWSET_WEIGHT_COLUMN " FROM (\n"
					 "WITH __pgt_both AS (SELECT %s, 1 AS " ROWSET_WEIGHT_COLUMN ", 1 AS kept FROM %s\n\tUNION ALL SELECT ",
					 columns, build->state->name);
	foreach(lc, build->names)
		appendStringInfo(&sql, "%s, ", quote_identifier(strVal(lfirst(lc))));
	appendStringInfo(&sql, ROWSET_WEIGHT_COLUMN ", 0 FROM %s),\n", quote_identifier(keys_name));
	appendStringInfo(&sql, "__pgt_images AS (SELECT *, pgtrickle.row_hash(ROW(%s)) AS image FROM (%s) p WHERE in_place = 1),\n",
					 columns, placed_rows_sql(build));
	appendStringInfo(&sql, "__pgt_kept AS (SELECT %s FROM (SELECT *, sum(" ROWSET_WEIGHT_COLUMN ") OVER (PARTITION BY image) AS copies,\n"
					 "\t\trow_number() OVER (PARTITION BY image) AS number FROM __pgt_images) i, generate_series(1, copies)\n\tWHERE number = 1)\n",
					 columns);
	appendStringInfo(&sql, "SELECT * FROM (%s) k WHERE (SELECT count(*) FROM __pgt_kept) >= " INT64_FORMAT "\n",
					 query_print(ordered_rows(build, state_rte(build->state, "__pgt_kept", false), rows_kept(build))), build->needed);
	appendStringInfo(&sql, "UNION ALL\nSELECT * FROM (%s) r WHERE (SELECT count(*) FROM __pgt_kept) < " INT64_FORMAT ") q",
					 fill_sql(build), build->needed);
	return sql.data;
}

static char *
visible_rows_sql(TopRowsBuild *build, int weight)
{
	return psprintf("SELECT t.*, %d AS " ROWSET_WEIGHT_COLUMN " FROM (%s) t", weight,
					query_print(level_over_rows(build, state_rte(build->state, build->state->name, false))));
}

static char *
print_first_before(ProgramStep *step, uint64 nonempty)
{
	return visible_rows_sql(step->build, -1);
}

static char *
print_difference(ProgramStep *step, uint64 nonempty)
{
	TopRowsBuild *build = step->build;
	ProgramRowset *before = list_nth(build->program->rowsets, build->first_before);
	bool		had_rows = (nonempty & 1) != 0;
	bool		has_changed = (nonempty & 2) != 0;

	Assert(step->inputs[0] == build->first_before && step->inputs[1] == build->replaced);
	if (!has_changed)
		return psprintf("SELECT * FROM %s WHERE false", quote_identifier(before->name));
	if (!had_rows)
		return visible_rows_sql(build, 1);
	return psprintf("SELECT * FROM %s\nUNION ALL\n%s", quote_identifier(before->name), visible_rows_sql(build, 1));
}

/* ---- the node ---- */

static void
make_state(Compiler *compiler, TopRowsBuild *build)
{
	ProgramState *state = build->state = palloc0(sizeof(ProgramState));
	ListCell   *lc;

	state->number = list_length(compiler->program->states) + 1;
	state->name = psprintf("__pgt_state_%d", state->number);
	state->is_bag = true;
	state->reads = build->input->states;
	foreach(lc, build->level->targetList)
	{
		Node	   *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;
		StateColumn *column = palloc0(sizeof(StateColumn));

		column->name = column->delta_name = psprintf("v%d", foreach_current_index(lc) + 1);
		column->type = exprType(expr);
		column->typmod = exprTypmod(expr);
		column->collation = exprCollation(expr);
		state->columns = lappend(state->columns, column);
	}
	state->fill_sql = fill_sql(build);
	compiler->program->states = lappend(compiler->program->states, state);
}

static ProgramStep *
add_step(Compiler *compiler, TopRowsBuild *build, StepKind kind, const char *strategy, int input, const char *output)
{
	ProgramStep *step = program_add_step(compiler, kind, "limit", strategy);

	step->build = build;
	step_add_input(step, input);
	step->output = program_add_rowset(compiler, program_new_rowset_name(compiler, output), InvalidOid);
	step->states_read = list_append_unique_ptr(list_copy(build->input->states), build->state);
	return step;
}

static int
add_steps(Compiler *compiler, TopRowsBuild *build)
{
	ProgramStep *step;

	step = add_step(compiler, build, STEP_QUERY, "first rows before", build->input->rowset, "first");
	step->print = print_first_before;
	build->first_before = step->output;
	step = add_step(compiler, build, STEP_REPLACE, "first rows and a reserve", build->input->rowset, "kept");
	step->print_recompute = print_kept_rows;
	step->state = build->state;
	build->replaced = step->output;
	step = add_step(compiler, build, STEP_QUERY, "first rows before and after", build->first_before, "rows");
	step_add_input(step, build->replaced);
	step->print = print_difference;
	return step->output;
}

/* The level's targets are the input's columns, each once and in order. */
static bool
targets_are_columns(Query *level, int ncolumns)
{
	ListCell   *lc;

	if (list_length(level->targetList) != ncolumns)
		return false;
	foreach(lc, level->targetList)
	{
		Var		   *var = (Var *) lfirst_node(TargetEntry, lc)->expr;

		if (!IsA(var, Var) || var->varattno != foreach_current_index(lc) + 1)
			return false;
	}
	return true;
}

Compiled *
compile_top_rows(Compiler *compiler, KeyedLevel *level, int64 needed)
{
	TopRowsBuild *build = palloc0(sizeof(TopRowsBuild));
	Compiled   *compiled = palloc0(sizeof(Compiled));

	build->names = target_column_names(level->input->new_query->targetList);
	if (level->input->rowset < 0 || !targets_are_columns(level->query, list_length(build->names)))
		return compile_keyed(compiler, level);
	rename_targets(level->input->new_query->targetList, build->names);
	build->program = compiler->program;
	build->input = level->input;
	build->level = copyObject(level->query);
	build->needed = needed;
	make_state(compiler, build);
	compiled->rowset = add_steps(compiler, build);
	compiled->new_query = level_over_rows(build, state_rte(build->state, build->state->name, false));
	compiled->states = list_make1(build->state);
	compiled->key = level->output_key;
	compiled->key_is_unique = level->key_is_unique && level->output_key != NIL;
	compiled->single_row = level->single_row;
	return compiled;
}
