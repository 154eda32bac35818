/*
 * delta/memo.c
 *     Equal query levels are compiled once.
 *
 * A WITH query is put in place of each of its references, a view may be read twice, and some rewrites (grouping sets, sets of
 * counts) read one subquery from several places.  All of these come to the compiler as equal trees.  The first one is compiled;
 * the others get the same delta rowset, the same state tables and a copy of the new state's query: the work of a tick is done once.
 *
 * Right because a level has no references to levels above it (LATERAL and correlated subqueries are rewritten before they get here), so
 * equal trees mean equal rows, and because a rowset or a state may be read by any number of steps: steps are in the order in which
 * they were compiled, and rowsets live until the end of the program.
 *
 * equal() does not look at positions in the text, but at everything else, names of aliases included.
 */
#include "postgres.h"

#include "block.h"
#include "nodes/nodeFuncs.h"

typedef struct MemoEntry
{
	Query	   *query;			/* as it came, before compiling scribbled on it */
	Compiled   *compiled;
} MemoEntry;

/* Callers rename the targets of new_query and build it into their own. */
static Compiled *
copy_compiled(Compiled *compiled)
{
	Compiled   *copy = palloc(sizeof(Compiled));

	*copy = *compiled;
	copy->new_query = copyObject(compiled->new_query);
	copy->states = list_copy(compiled->states);
	copy->key = list_copy(compiled->key);
	return copy;
}

Compiled *
memo_find(Compiler *compiler, Query *query)
{
	ListCell   *lc;

	foreach(lc, compiler->memo)
	{
		MemoEntry  *entry = lfirst(lc);

		if (equal(entry->query, query))
			return copy_compiled(entry->compiled);
	}
	return NULL;
}

void
memo_add(Compiler *compiler, Query *query, Compiled *compiled)
{
	MemoEntry  *entry = palloc(sizeof(MemoEntry));

	entry->query = query;
	entry->compiled = copy_compiled(compiled);
	compiler->memo = lappend(compiler->memo, entry);
}
