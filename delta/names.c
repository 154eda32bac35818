/*
 * delta/names.c
 *     Column names for rowsets, states and the subqueries around them.
 *
 * A target list may repeat names ("SELECT a.id, b.id") or have none; statements need distinct ones.  Names are
 * kept where they can be, because people read the programs.
 */
#include "postgres.h"

#include "block.h"
#include "nodes/nodeFuncs.h"
#include "nodes/value.h"
#include "rowset.h"

static bool
is_taken(List *names, const char *name)
{
	ListCell   *lc;

	if (strcmp(name, ROWSET_WEIGHT_COLUMN) == 0)
		return true;
	foreach(lc, names)
	{
		if (strcmp(strVal(lfirst(lc)), name) == 0)
			return true;
	}
	return false;
}

List *
target_column_names(List *targets)
{
	List	   *names = NIL;
	ListCell   *lc;

	foreach(lc, targets)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);
		const char *wanted = target->resname;
		char	   *name;

		if (target->resjunk)
			continue;
		if (wanted == NULL || wanted[0] == '\0' || strcmp(wanted, "?column?") == 0)
			wanted = psprintf("c%d", list_length(names) + 1);
		name = pstrdup(wanted);
		for (int i = 1; is_taken(names, name); i++)
			name = psprintf("%.*s_%d", NAMEDATALEN - 8, wanted, i);
		names = lappend(names, makeString(name));
	}
	return names;
}

/* Gives the visible targets these names. */
void
rename_targets(List *targets, List *names)
{
	ListCell   *lc;
	int			i = 0;

	foreach(lc, targets)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (!target->resjunk)
			target->resname = pstrdup(strVal(list_nth(names, i++)));
	}
}

void
target_column_types(List *targets, List **types, List **typmods, List **collations)
{
	ListCell   *lc;

	*types = *typmods = *collations = NIL;
	foreach(lc, targets)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (target->resjunk)
			continue;
		*types = lappend_oid(*types, exprType((Node *) target->expr));
		*typmods = lappend_int(*typmods, exprTypmod((Node *) target->expr));
		*collations = lappend_oid(*collations, exprCollation((Node *) target->expr));
	}
}
