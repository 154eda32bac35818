/*
 * delta/recompute.c
 *     The rule for what has no finer one: compute this level anew whenever one of its sources changes.
 *
 * The level is taken as it is, down to its tables.  Its rows are kept in a state (keyed.c without keys), and what differs from them is its
 * delta.  What stands above is maintained from that delta as usual, so a construct that is costly to maintain does not force the whole
 * query into full refreshes.  Used for recursion that is not over sets.
 */
#include "keyed.h"

#include "catalog/pg_class_d.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "temporal.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

typedef struct SourceContext
{
	Compiler   *compiler;
	List	   *rowsets;		/* of int */
	bool		failed;
} SourceContext;

static bool
sources_walker(Node *node, SourceContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;

		for (int i = 1; i <= list_length(query->rtable); i++)
		{
			RangeTblEntry *rte = rt_fetch(i, query->rtable);
			BlockInput *input;

			if (rte->rtekind != RTE_RELATION || rte->relkind == RELKIND_VIEW)
				continue;
			input = block_describe_input(context->compiler, query, i);
			if (input == NULL)
				context->failed = true;
			else
				context->rowsets = list_append_unique_int(context->rowsets, input->rowset);
		}
		return query_tree_walker(query, sources_walker, context, 0);
	}
	return expression_tree_walker(node, sources_walker, context);
}

static bool
time_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return temporal_mentions_time((Node *) ((Query *) node)->targetList) ||
			temporal_mentions_time((Node *) ((Query *) node)->jointree) ||
			query_tree_walker((Query *) node, time_walker, NULL, 0);
	return expression_tree_walker(node, time_walker, context);
}

bool
level_follows_time(Query *query)
{
	return time_walker((Node *) query, NULL);
}

static bool
can_be_stored(Compiler *compiler, Query *query)
{
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);
		Oid			type = exprType((Node *) target->expr);

		if (!target->resjunk && get_typtype(type) == TYPTYPE_PSEUDO)
			return compile_cannot(compiler, "column \"%s\" of a recursive query is of type %s, which no table can hold",
								  target->resname, format_type_be(type)) != NULL;
	}
	return true;
}

Compiled *
compile_recompute(Compiler *compiler, Query *query, const char *operator_name)
{
	KeyedLevel *level = palloc0(sizeof(KeyedLevel));
	SourceContext context = {compiler, NIL, false};

	if (level_follows_time(query))
	{
		note_all_sources(compiler, query);
		return compile_cannot(compiler, "a recursive query that looks at the clock has no delta rule");
	}
	(void) sources_walker((Node *) query, &context);
	if (context.failed || !can_be_stored(compiler, query))
		return NULL;
	level->operator_name = operator_name;
	level->query = copyObject(query);
	level->rowsets = context.rowsets;
	return compile_keyed(compiler, level);
}
