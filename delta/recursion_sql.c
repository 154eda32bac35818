/*
 * delta/recursion_sql.c
 *     The statements of the recursion operator; recursion.c says what they do and why.
 *
 * With T(x) for the term's rows where r is read from x, S the state, and for each other input E of the term its new state E', its delta dE,
 * and E" = E' and the rows that went (at least all that was there before):
 *
 *     lost    WITH RECURSIVE lost AS (rows that went from the base, T(S) over what went of some E, the other inputs being E"   -- in S only
 *                                     UNION T(lost) over all E")                                                              -- in S only
 *     gained  WITH RECURSIVE gained AS (rows that came to the base, T(S) over what came to some E, and lost rows that
 *                                       are in the base or in T(S) still        -- not in S, from which what was lost is gone by now
 *                                       UNION T(gained))                        -- not in S
 *
 * A row is looked up in S by its key's index: by `=` when it has no NULL.
 */
#include "recursion.h"

#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "query.h"
#include "rowset.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"
#include "catalog/pg_type_d.h"

/* ---- columns ---- */

/* "t.k1, t.k2" */
static char *
columns_of(RecursionBuild *build, const char *alias)
{
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 1; i <= build->state->nkeys; i++)
		appendStringInfo(&sql, "%s%s%sk%d", i > 1 ? ", " : "", alias, alias[0] ? "." : "", i);
	return sql.data;
}

static char *
equality(RecursionBuild *build, int column, const char *left, const char *right)
{
	StateColumn *key = list_nth(build->state->columns, column - 1);
	Oid			operator_oid = lookup_type_cache(key->type, TYPECACHE_EQ_OPR)->eq_opr;

	return psprintf("%s.k%d OPERATOR(%s.%s) %s.k%d", left, column,
					quote_identifier(get_namespace_name(get_func_namespace(get_opcode(operator_oid)))),
					get_opname(operator_oid), right, column);
}

/* All columns equal; with `nulls` NULL equals NULL. */
static char *
same_row(RecursionBuild *build, const char *left, const char *right, bool nulls)
{
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 1; i <= build->state->nkeys; i++)
	{
		char	   *equal_values = equality(build, i, left, right);

		appendStringInfoString(&sql, i > 1 ? " AND " : "");
		if (nulls)
			appendStringInfo(&sql, "(%s OR (%s.k%d IS NULL AND %s.k%d IS NULL))", equal_values, left, i, right, i);
		else
			appendStringInfoString(&sql, equal_values);
	}
	return sql.data;
}

static char *
has_null(RecursionBuild *build, const char *alias)
{
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 1; i <= build->state->nkeys; i++)
		appendStringInfo(&sql, "%s%s.k%d IS NULL", i > 1 ? " OR " : "", alias, i);
	return sql.data;
}

/* CASE keeps the planner from making a join of it, which would read all of the state. */
static char *
is_in_state(RecursionBuild *build, const char *alias)
{
	const char *state = build->state->name;

	return psprintf("CASE WHEN %s\n\t\tTHEN EXISTS (SELECT FROM %s s WHERE %s)\n\t\tELSE EXISTS (SELECT FROM %s s WHERE %s) END",
					has_null(build, alias),
					state, same_row(build, "s", alias, true), state, same_row(build, "s", alias, false));
}

/* ---- base and term ---- */

static const char *
rowset_name(RecursionBuild *build, int rowset)
{
	return quote_identifier(((ProgramRowset *) list_nth(build->program->rowsets, rowset))->name);
}

static char *
base_rows(RecursionBuild *build)
{
	Query	   *query = copyObject(build->base->new_query);
	List	   *names = NIL;

	for (int i = 1; i <= build->state->nkeys; i++)
		names = lappend(names, makeString(psprintf("k%d", i)));
	rename_targets(query->targetList, names);
	return query_print(query);
}

/* "a, b": the columns that have values; a dropped column of a relation has only a place. */
static char *
column_list(List *names)
{
	StringInfoData sql;
	ListCell   *lc;

	initStringInfo(&sql);
	foreach(lc, names)
	{
		if (strncmp(strVal(lfirst(lc)), "........pg.dropped.", 19) != 0)
			appendStringInfo(&sql, "%s%s", sql.len > 0 ? ", " : "", quote_identifier(strVal(lfirst(lc))));
	}
	return sql.data;
}

/*
 * The rows of a delta that went: at least all that are gone.  Or those that came and are there: a row that came and went in the same tick
 * may be in the delta twice.
 */
static char *
changed_rows(RecursionBuild *build, int rowset, List *names, bool came)
{
	char	   *columns = column_list(names);

	if (!came)
		return psprintf("SELECT %s FROM %s WHERE " ROWSET_WEIGHT_COLUMN " < 0", columns, rowset_name(build, rowset));
	return psprintf("SELECT %s FROM (SELECT *, sum(" ROWSET_WEIGHT_COLUMN ") OVER (PARTITION BY pgtrickle.row_hash(ROW(%s)))"
					" AS __pgt_net FROM %s) c WHERE " ROWSET_WEIGHT_COLUMN " > 0 AND __pgt_net > 0", columns, columns,
					rowset_name(build, rowset));
}

static char *
base_delta(RecursionBuild *build, bool came)
{
	return psprintf("SELECT * FROM (%s) b (%s)", changed_rows(build, build->base->rowset, build->base_names, came),
					columns_of(build, ""));
}

static RangeTblEntry *
self_rte(RecursionBuild *build, const char *name)
{
	RangeTblEntry *rte = state_rte(build->state, name, false);
	const char *alias = ((BlockInput *) list_nth(build->term->inputs, build->self))->rte->eref->aliasname;

	rte->alias = makeAlias(alias, NIL);
	rte->eref->aliasname = pstrdup(alias);
	return rte;
}

/*
 * The term's rows with r read from `self`, and input `delta` (-1: none) from the rows that came or went; the other inputs in `wide` with what went,
 * too.
 */
static char *
term_rows(RecursionBuild *build, const char *self, int delta, uint64 wide)
{
	List	   *rtable = NIL;

	for (int i = 0; i < list_length(build->term->inputs); i++)
	{
		BlockInput *input = list_nth(build->term->inputs, i);

		if (i == build->self)
			rtable = lappend(rtable, self_rte(build, self));
		else if (i == delta || (wide & (UINT64CONST(1) << i)) != 0)
			rtable = lappend(rtable, named_rte(psprintf(i == delta ? "__pgt_changed_%d" : "__pgt_wide_%d", i + 1),
											   input->rte->eref->aliasname, input->colnames,
											   input->coltypes, input->coltypmods, input->colcollations));
		else
			rtable = lappend(rtable, copyObject(input->rte));
	}
	return query_print(simple_query(rtable, copyObject(build->term->quals), copyObject(build->targets)));
}

/*
 * "__pgt_changed_2 AS (what went or came), __pgt_wide_2 AS NOT MATERIALIZED (new state UNION ALL what went), " for each input in
 * `changed`; the wide ones only for what went.  OFFSET keeps a subquery there: the planner can look up rows by an index below UNION ALL only if
 * it can look them up in all branches, and it cannot do that in the bare result of a WITH query.
 */
static void
append_changed_inputs(StringInfo sql, RecursionBuild *build, uint64 changed, bool came)
{
	for (int i = 0; i < list_length(build->term->inputs); i++)
	{
		BlockInput *input = list_nth(build->term->inputs, i);
		List	   *targets = NIL;

		if ((changed & (UINT64CONST(1) << i)) == 0)
			continue;
		appendStringInfo(sql, "__pgt_changed_%d AS (%s),\n", i + 1, changed_rows(build, input->rowset, input->colnames, came));
		if (came)
			continue;
		for (int attno = 1; attno <= list_length(input->colnames); attno++)
		{
			char	   *column = strVal(list_nth(input->colnames, attno - 1));

			if (strncmp(column, "........pg.dropped.", 19) != 0)
				targets = lappend(targets, makeTargetEntry((Expr *) makeVar(1, attno, list_nth_oid(input->coltypes, attno - 1),
																			list_nth_int(input->coltypmods, attno - 1),
																			list_nth_oid(input->colcollations, attno - 1), 0),
														   list_length(targets) + 1, column, false));
		}
		appendStringInfo(sql, "__pgt_wide_%d AS NOT MATERIALIZED (%s\n\tUNION ALL (TABLE __pgt_changed_%d OFFSET 0)),\n", i + 1,
						 query_print(simple_query(list_make1(copyObject(input->rte)), NIL, targets)), i + 1);
	}
}

/* ---- inputs of the steps ---- */

static bool
input_has_changed(ProgramStep *step, int rowset, uint64 nonempty)
{
	for (int i = 0; i < step->ninputs; i++)
	{
		if (step->inputs[i] == rowset)
			return (nonempty & (UINT64CONST(1) << i)) != 0;
	}
	return false;
}

static void
append_seed(StringInfo seeds, const char *sql)
{
	appendStringInfo(seeds, "%s%s", seeds->len > 0 ? "\n\tUNION ALL\n" : "", sql);
}

/* What comes or goes without r having changed. */
static void
append_direct_changes(StringInfo seeds, ProgramStep *step, uint64 nonempty, bool came)
{
	RecursionBuild *build = step->build;
	uint64		changed = join_changed_inputs(build->term, step, nonempty);

	if (input_has_changed(step, build->base->rowset, nonempty))
		append_seed(seeds, base_delta(build, came));
	for (int i = 0; i < list_length(build->term->inputs); i++)
	{
		uint64		bit = UINT64CONST(1) << i;

		if ((changed & bit) != 0)
			append_seed(seeds, term_rows(build, build->state->name, i, came ? 0 : changed & ~bit));
	}
}

/* WITH RECURSIVE name AS (seeds UNION term), both restricted; in parentheses, since a WITH clause comes in front. */
static char *
closure_sql(RecursionBuild *build, const char *name, const char *seeds, uint64 changed, bool came)
{
	StringInfoData sql;
	char	   *condition = psprintf("%s%s", came ? "NOT " : "", is_in_state(build, "t"));
	char	   *columns = columns_of(build, "");

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT q.*, 1 AS " ROWSET_WEIGHT_COLUMN " FROM (\nWITH RECURSIVE ");
	append_changed_inputs(&sql, build, changed, came);
	appendStringInfo(&sql, "%s (%s) AS (\n\tSELECT %s FROM (%s) t (%s)\n\tWHERE %s\n", name, columns, columns_of(build, "t"),
					 seeds, columns, condition);
	appendStringInfo(&sql, "\tUNION\n\tSELECT %s FROM (%s) t (%s)\n\tWHERE %s)\nSELECT %s FROM %s) q", columns_of(build, "t"),
					 term_rows(build, name, -1, came ? 0 : changed), columns, condition, columns, name);
	return sql.data;
}

/* ---- statements ---- */

char *
recursion_print_lost(ProgramStep *step, uint64 nonempty)
{
	RecursionBuild *build = step->build;
	StringInfoData seeds;

	initStringInfo(&seeds);
	append_direct_changes(&seeds, step, nonempty, false);
	return closure_sql(build, "__pgt_lost", seeds.data, join_changed_inputs(build->term, step, nonempty), false);
}

char *
recursion_print_lost_with_nulls(ProgramStep *step, uint64 nonempty)
{
	RecursionBuild *build = step->build;

	return psprintf("SELECT d.* FROM %s d WHERE %s", rowset_name(build, build->lost), has_null(build, "d"));
}

/* The rows that may have lost their derivations go; those that have others come back as gained. */
char *
recursion_print_nothing(ProgramStep *step, const char *keys_name, uint64 null_keys)
{
	RecursionBuild *build = step->build;

	return psprintf("SELECT %s, 1 AS " ROWSET_WEIGHT_COLUMN " FROM %s d WHERE false", columns_of(build, "d"),
					quote_identifier(keys_name));
}

/* Lost rows that the base or the term still yields. */
static void
append_rederived(StringInfo seeds, RecursionBuild *build, int lost, bool nulls)
{
	char	   *sources[2] = {base_rows(build), term_rows(build, build->state->name, -1, 0)};

	for (int i = 0; i < 2; i++)
		append_seed(seeds, psprintf("SELECT %s FROM %s d, (%s) x (%s) WHERE %s", columns_of(build, "x"),
									rowset_name(build, lost), sources[i], columns_of(build, ""),
									same_row(build, "x", "d", nulls)));
}

char *
recursion_print_gained(ProgramStep *step, uint64 nonempty)
{
	RecursionBuild *build = step->build;
	StringInfoData seeds;

	initStringInfo(&seeds);
	append_direct_changes(&seeds, step, nonempty, true);
	if (input_has_changed(step, build->lost, nonempty))
		append_rederived(&seeds, build, build->lost, false);
	if (input_has_changed(step, build->lost_with_nulls, nonempty))
		append_rederived(&seeds, build, build->lost_with_nulls, true);
	return closure_sql(build, "__pgt_gained", seeds.data, join_changed_inputs(build->term, step, nonempty), true);
}

/* The gained rows themselves, of one pattern of NULLs. */
char *
recursion_print_rows(ProgramStep *step, const char *keys_name, uint64 null_keys)
{
	RecursionBuild *build = step->build;
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s, 1 AS " ROWSET_WEIGHT_COLUMN " FROM %s g WHERE ", columns_of(build, "g"),
					 quote_identifier(keys_name));
	for (int i = 0; i < build->state->nkeys; i++)
		appendStringInfo(&sql, "%sg.k%d IS %sNULL", i > 0 ? " AND " : "", i + 1,
						 (null_keys & (UINT64CONST(1) << i)) != 0 ? "" : "NOT ");
	return sql.data;
}

char *
recursion_fill_sql(RecursionBuild *build)
{
	char	   *columns = columns_of(build, "");

	return psprintf("WITH RECURSIVE __pgt_all (%s) AS (\n\tSELECT * FROM (%s) t\n\tUNION\n\tSELECT * FROM (%s) t)\nSELECT %s FROM __pgt_all",
					columns, base_rows(build), term_rows(build, "__pgt_all", -1, 0), columns);
}
