/*
 * delta/compile.c
 *     From a defining query to a delta program.
 *
 * Passes: query.c analyses and expands the text; query_check.c refuses what has no single answer; then every query level, innermost
 * first, becomes steps: normalize.c turns FROM and WHERE into a block, and one operator file per construct adds its steps on top.
 * A construct without a rule ends in compile_cannot(): the program then has a full_reason and no steps.
 *
 * To add an operator: give it a file with its rule in the header, let compile_level call it, and take its refusal out of normalize.c.
 */
#include "postgres.h"

#include "access/table.h"
#include "block.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "clock.h"
#include "commands/extension.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "keyed.h"
#include "functions_used.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "query.h"
#include "sublink.h"
#include "temporal.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

void *
compile_cannot(Compiler *compiler, const char *reason,...)
{
	StringInfoData message;
	va_list		args;

	if (compiler->program->full_reason != NULL)
		return NULL;
	initStringInfo(&message);
	for (;;)
	{
		int			needed;

		va_start(args, reason);
		needed = appendStringInfoVA(&message, reason, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&message, needed);
	}
	compiler->program->full_reason = message.data;
	return NULL;
}

/* Sorting without LIMIT means nothing for a table. */
static void
drop_sorting(Query *query)
{
	if (query->limitCount == NULL && query->limitOffset == NULL && !query->hasDistinctOn)
		query->sortClause = NIL;
}

static Compiled *
compile_new_level(Compiler *compiler, Query *query)
{
	QueryBlock *block;
	Compiled   *compiled;

	if (query->hasRecursive)
		return compile_recursion(compiler, query);
	if (level_reads_unstorable_recursion(query))
		return compile_recompute(compiler, query, "recursion");
	if (query->limitCount != NULL || query->limitOffset != NULL)
		return compile_limit(compiler, query);
	if (query->hasDistinctOn)
		return compile_distinct_on(compiler, query);
	if (query->hasWindowFuncs)
		return compile_windows(compiler, query);

	if ((query = rewrite_grouping_sets(compiler, query)) == NULL ||
		(query = rewrite_set_operations(compiler, query)) == NULL)
		return NULL;
	if (query->setOperations != NULL)
		return is_bag_operation(query) ? compile_copies(compiler, query) : compile_union_all(compiler, query);

	query = rewrite_distinct_aggregates(query);
	query = rewrite_whole_rows(compiler, query);
	if (query == NULL)
		return NULL;
	query = rewrite_row_security(compiler, query);
	if (query == NULL)
		return NULL;
	query = rewrite_sublinks(compiler, query);
	if (query == NULL)
		return NULL;
	if (!isolate_outer_joins(compiler, query))
	{
		note_all_sources(compiler, query);
		return NULL;
	}
	if (level_is_outer_join(query))
	{
		compiled = compile_outer_join(compiler, query);
		return compiled != NULL && query->distinctClause != NIL ? compile_distinct(compiler, compiled) : compiled;
	}
	block = block_from_query(compiler, query);
	if (block == NULL)
		return NULL;
	if (query->hasAggs || query->groupClause != NIL || query->havingQual != NULL)
		compiled = compile_aggregate(compiler, block);
	else
		compiled = compile_projection(compiler, block);
	if (compiled != NULL && query->distinctClause != NIL)
		compiled = compile_distinct(compiler, compiled);
	return compiled;
}

Compiled *
compile_level(Compiler *compiler, Query *query)
{
	Compiled   *compiled;
	Query	   *untouched;

	check_stack_depth();
	drop_sorting(query);
	compiled = memo_find(compiler, query);
	if (compiled != NULL)
		return compiled;
	untouched = copyObject(query);
	compiled = compile_new_level(compiler, query);
	if (compiled != NULL)
		memo_add(compiler, untouched, compiled);
	return compiled;
}

/* ---- sources ---- */

static bool
note_sources_walker(Node *node, Compiler *compiler)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, note_sources_walker, compiler, QTW_EXAMINE_RTES_BEFORE);
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		if (rte->rtekind == RTE_RELATION && rte->relkind != RELKIND_VIEW)
			program_note_source(compiler, rte->relid, NULL, false);
		return false;
	}
	return expression_tree_walker(node, note_sources_walker, compiler);
}

void
note_all_sources(Compiler *compiler, Query *query)
{
	(void) note_sources_walker((Node *) query, compiler);
}

/* ---- the program ---- */

static void
finish_program(DeltaProgram *program, Compiled *compiled)
{
	program->result = compiled->rowset;
	program->new_sql = query_print(compiled->new_query);
	program->new_sql_states = compiled->states;
	program->key = compiled->key;
	program->single_row = compiled->single_row;
	program->key_is_unique = compiled->key_is_unique;
}

static void
forget_steps(DeltaProgram *program)
{
	program->steps = NIL;
	program->states = NIL;
	program->result = -1;
	program->key = NIL;
}

static void
check_result_columns(Query *query)
{
	ListCell   *lc;
	int			visible = 0;

	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (target->resjunk)
			continue;
		visible++;
		if (strncmp(target->resname, "__pgt_", 6) == 0 || strcmp(target->resname, "__w") == 0)
			ereport(ERROR,
					(errcode(ERRCODE_RESERVED_NAME),
					 errmsg("column name \"%s\" is reserved", target->resname),
					 errdetail("The prefix __pgt_ and the name __w belong to pgtrickle."),
					 errhint("Give the column another name with AS.")));
	}
	if (visible == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a defining query must have at least one column")));
}

/* A row without a type of its own can go through a program, but not into a table. */
static bool
states_can_be_stored(Compiler *compiler)
{
	ListCell   *lc;

	foreach(lc, compiler->program->states)
	{
		ListCell   *column_cell;

		foreach(column_cell, ((ProgramState *) lfirst(lc))->columns)
		{
			Oid			type = ((StateColumn *) lfirst(column_cell))->type;

			if (get_typtype(type) == TYPTYPE_PSEUDO)
				return compile_cannot(compiler, "a value of type %s cannot be kept in a state table", format_type_be(type)) != NULL;
		}
	}
	return true;
}

DeltaProgram *
program_compile(const char *query_text, MemoryContext parent)
{
	MemoryContext context = AllocSetContextCreate(parent, "delta program", ALLOCSET_SMALL_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	DeltaProgram *program = palloc0(sizeof(DeltaProgram));
	Compiler	compiler = {0};
	Query	   *query;
	char	   *open_reason;
	Compiled   *compiled = NULL;

	program->context = context;
	program->result = -1;
	compiler.program = program;
	compiler.next_node = 1;
	compiler.catalog_namespace = get_namespace_oid("pgtrickle", false);

	program->defining_query = query_normalize(query_text);
	/* not the caller's text: what is kept is compiled again later, and must give the same program */
	query = query_analyze_and_expand(program->defining_query, &open_reason);
	program->run_query = query_print(query_analyze_to_run(program->defining_query));
	check_result_columns(query);
	program->tupdesc = ExecCleanTypeFromTL(query->targetList);
	program->full_reason = query_check(temporal_without_time(query));
	if (program->full_reason == NULL)
		program->full_reason = open_reason;
	if (program->full_reason == NULL)
		program->full_reason = view_rights_reason(query);
	program->clock_reason = clock_query_reason(query);
	program->functions = functions_used(query);

	if (program->full_reason == NULL)
		compiled = compile_level(&compiler, copyObject(query));
	if (compiled != NULL && compiled->rowset < 0)
		compiled = compile_cannot(&compiler, "the query reads no table whose changes are decoded");
	if (compiled != NULL && !states_can_be_stored(&compiler))
		compiled = NULL;
	if (compiled != NULL)
		finish_program(program, compiled);
	else
	{
		note_all_sources(&compiler, query);
		forget_steps(program);
	}
	MemoryContextSwitchTo(oldcontext);
	return program;
}

/* What was chosen to be refreshed in full needs no steps and no states; it keeps its key, by which rows are found. */
void
program_refresh_in_full(DeltaProgram *program, const char *reason)
{
	List	   *key = program->key;

	if (program->full_reason != NULL)
		return;
	program->full_reason = MemoryContextStrdup(program->context, reason);
	forget_steps(program);
	program->new_sql_states = NIL;
	program->key = key;
}

void
program_free(DeltaProgram *program)
{
	MemoryContextDelete(program->context);
}
