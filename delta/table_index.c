/*
 * delta/table_index.c
 *     Which index of a table finds the rows to change.
 *
 * A locator names it by OID, as it was when the table was made.  Indexes come and go without anybody
 * telling us: REINDEX CONCURRENTLY puts a new one, with an OID of its own, in the place of the old one.
 * So what counts is what an index is on.
 */
#include "table_index.h"

#include "catalog/pg_am.h"
#include "compat.h"
#include "lib/stringinfo.h"
#include "nodes/primnodes.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* Every row of the table is in the index, and it can be searched. */
static bool
index_is_usable(Relation index)
{
	return index->rd_index->indisvalid && index->rd_rel->relam == BTREE_AM_OID &&
		   RelationGetIndexPredicate(index) == NIL;
}

/* The expression is row_hash(ROW(column, ...)) over the table's live columns in order. */
static bool
is_row_hash(TableWriter *writer, Node *expression)
{
	FuncExpr *call = (FuncExpr *) expression;

	if (!IsA(expression, FuncExpr) || list_length(call->args) != 1 ||
		!IsA(linitial(call->args), RowExpr))
		return false;

	char	 *name = get_func_name(call->funcid);
	List	 *columns = ((RowExpr *) linitial(call->args))->args;
	ListCell *lc;

	if (name == NULL || strcmp(name, "row_hash") != 0 || list_length(columns) != writer->nlive)
		return false;
	foreach(lc, columns)
	{
		int		   i = foreach_current_index(lc);
		AttrNumber attno = writer->live_attnos != NULL ? writer->live_attnos[i] : i + 1;

		if (!IsA(lfirst(lc), Var) || ((Var *) lfirst(lc))->varattno != attno)
			return false;
	}
	return true;
}

static bool
index_fits(TableWriter *writer, Relation index, const RowLocator *locator)
{
	Form_pg_index form = index->rd_index;

	if (!index_is_usable(index))
		return false;
	if (locator->by_row_hash)
		return form->indkey.values[0] == 0 &&
			   is_row_hash(writer, linitial(RelationGetIndexExpressions(index)));
	if (form->indnkeyatts < locator->nkeys)
		return false;
	for (int i = 0; i < locator->nkeys; i++)
	{
		AttrNumber attno = locator->key_attnos[i];

		if (form->indkey.values[i] != attno ||
			index->rd_indcollation[i] !=
				TupleDescAttr(RelationGetDescr(writer->relation), attno - 1)->attcollation)
			return false;
	}
	return true;
}

/* The statement that makes such an index. */
static char *
index_definition(TableWriter *writer, const RowLocator *locator)
{
	TupleDesc	   tupdesc = RelationGetDescr(writer->relation);
	int			   ncolumns = locator->by_row_hash ? writer->nlive : locator->nkeys;
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(
		&text, "CREATE INDEX ON %s (%s",
		quote_qualified_identifier(get_namespace_name(RelationGetNamespace(writer->relation)),
								   RelationGetRelationName(writer->relation)),
		locator->by_row_hash ? "pgtrickle.row_hash(ROW(" : "");
	for (int i = 0; i < ncolumns; i++)
	{
		AttrNumber attno = i + 1;

		if (!locator->by_row_hash)
			attno = locator->key_attnos[i];
		else if (writer->live_attnos != NULL)
			attno = writer->live_attnos[i];
		appendStringInfo(&text, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(NameStr(TupleDescAttr(tupdesc, attno - 1)->attname)));
	}
	appendStringInfoString(&text, locator->by_row_hash ? ")))" : ")");
	return text.data;
}

Relation
table_index_find(TableWriter *writer, const RowLocator *locator)
{
	ResultRelInfo *rri = writer->rri;

	for (int i = 0; i < rri->ri_NumIndices; i++)
	{
		if (RelationGetRelid(rri->ri_IndexRelationDescs[i]) == locator->index_oid &&
			index_is_usable(rri->ri_IndexRelationDescs[i]))
			return rri->ri_IndexRelationDescs[i];
	}
	for (int i = 0; i < rri->ri_NumIndices; i++)
	{
		if (index_fits(writer, rri->ri_IndexRelationDescs[i], locator))
			return rri->ri_IndexRelationDescs[i];
	}
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
					errmsg("table \"%s\" has lost the index by which a refresh finds its rows",
						   RelationGetRelationName(writer->relation)),
					errhint("Run %s.", index_definition(writer, locator))));
}

bool
table_index_other_is_unique(TableWriter *writer, Relation index)
{
	for (int i = 0; i < writer->rri->ri_NumIndices; i++)
	{
		Relation other = writer->rri->ri_IndexRelationDescs[i];

		if (other != index && (other->rd_index->indisunique || other->rd_index->indisexclusion))
			return true;
	}
	return false;
}
