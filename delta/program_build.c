/*
 * delta/program_build.c
 *     Adding parts to a program under construction, and the names of its parts.
 */
#include "postgres.h"

#include "access/relation.h"
#include "block.h"
#include "catalog/pg_class.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

int
program_add_rowset(Compiler *compiler, char *name, Oid source_relid)
{
	ProgramRowset *rowset = palloc0(sizeof(ProgramRowset));

	rowset->name = name;
	rowset->source_relid = source_relid;
	compiler->program->rowsets = lappend(compiler->program->rowsets, rowset);
	return list_length(compiler->program->rowsets) - 1;
}

char *
program_new_rowset_name(Compiler *compiler, const char *what)
{
	return psprintf("__pgt_%s_%d", what, compiler->next_node++);
}

int
program_source_rowset(Compiler *compiler, Oid relid, bool only)
{
	ListCell   *lc;
	int			number;

	foreach(lc, compiler->program->rowsets)
	{
		ProgramRowset *rowset = lfirst(lc);

		if (rowset->source_relid == relid && rowset->source_only == only)
			return foreach_current_index(lc);
	}
	number = program_add_rowset(compiler, psprintf("__pgt_delta_%u%s", relid, only ? "_only" : ""), relid);
	((ProgramRowset *) list_nth(compiler->program->rowsets, number))->source_only = only;
	return number;
}

static const char *
source_type_of(Oid relid)
{
	switch (get_rel_relkind(relid))
	{
		case RELKIND_MATVIEW:
			return "MATVIEW";
		case RELKIND_FOREIGN_TABLE:
			return "FOREIGN_TABLE";
		case RELKIND_PARTITIONED_TABLE:
			return "PARTITIONED_TABLE";
		default:
			return "TABLE";
	}
}

ProgramSource *
program_note_source(Compiler *compiler, Oid relid, const Bitmapset *used_attnos, bool by_delta)
{
	ProgramSource *source = NULL;
	ListCell   *lc;

	foreach(lc, compiler->program->sources)
	{
		if (((ProgramSource *) lfirst(lc))->relid == relid)
			source = lfirst(lc);
	}
	if (source == NULL)
	{
		source = palloc0(sizeof(ProgramSource));
		source->relid = relid;
		source->schema_name = get_namespace_name(get_rel_namespace(relid));
		source->relation_name = get_rel_name(relid);
		source->source_type = source_type_of(relid);
		source->by_delta = by_delta;
		compiler->program->sources = lappend(compiler->program->sources, source);
	}
	source->used_attnos = bms_add_members(source->used_attnos, used_attnos);
	source->by_delta &= by_delta;
	return source;
}

ProgramStep *
program_add_step(Compiler *compiler, StepKind kind, const char *operator_name, const char *strategy)
{
	ProgramStep *step = palloc0(sizeof(ProgramStep));

	step->kind = kind;
	step->operator_name = operator_name;
	step->strategy = strategy;
	step->output = -1;
	step->recompute_output = -1;
	compiler->program->steps = lappend(compiler->program->steps, step);
	return step;
}

void
step_add_input(ProgramStep *step, int rowset)
{
	int		   *inputs = palloc((step->ninputs + 1) * sizeof(int));

	if (step->ninputs > 0)
		memcpy(inputs, step->inputs, step->ninputs * sizeof(int));
	inputs[step->ninputs++] = rowset;
	step->inputs = inputs;
}

char *
program_state_table_name(int64 pgt_id, int number)
{
	return psprintf("pgt_state_" INT64_FORMAT "_%d", pgt_id, number);
}

char *
program_state_binding(List *states, int64 pgt_id)
{
	StringInfoData sql;
	ListCell   *lc;
	const char *separator = "WITH ";

	initStringInfo(&sql);
	foreach(lc, states)
	{
		ProgramState *state = lfirst(lc);

		appendStringInfo(&sql, "%s%s AS NOT MATERIALIZED (SELECT * FROM pgtrickle.%s)\n", separator,
						 quote_identifier(state->name),
						 quote_identifier(program_state_table_name(pgt_id, state->number)));
		separator = ", ";
	}
	return sql.data;
}
