/*
 * delta/fk_prune.c
 *     Foreign keys: deltas of referenced tables that join with nothing new.
 *
 * F references D, and a block joins them by the foreign key.  Every row of F has its row of D, at each snapshot.
 *
 * If D only got rows, their keys are new (D's key is unique, and none went), so no old row of F joins them:  F' >< dD = dF >< dD.  Take
 * the terms of the block's delta that contain dD: those without dF and those with it come in pairs of opposite signs, the other
 * inputs alike, and each pair is that equation times the same rest.  All of them cancel, and what is left is the delta as if D had
 * always been what it is now.  If F did not change, both sides are empty.
 *
 * If D only lost rows and F did not change, no row of F joins a row that went:  F' >< dD  is empty, and with it every term with dD.
 *
 * (Svingos, Hernich, Gildhoff, Papakonstantinou, Ioannidis, "Foreign keys open the door for faster incremental view maintenance", SIGMOD 2023.)
 *
 * So the step is run as if D's delta were empty.  An update of D is a row that went and one that came: nothing is ignored then.
 * A table that stands in the block several times must be joined so each time, because all of them share one delta.
 *
 * Both equations need the foreign key to hold at the old frontier and at the tick's snapshot.  Snapshots see whole transactions, and at
 * the end of each the server has checked it, deferred or not, unless somebody kept it from doing so.  So a foreign key counts only if
 *
 *     it is validated (and, since 18, enforced);
 *     it was made by a transaction that the frontier includes entirely (fk_step_ignores), so it held there, too;
 *     its triggers are all there, fire, and have not been touched since, nor has the constraint: all these catalog rows were
 *     written by one transaction.  DISABLE TRIGGER, even if enabled again, renaming and VALIDATE CONSTRAINT leave another one;
 *     neither table has partitions, children, or a subscription, whose worker fires no such triggers.
 *
 * What leaves no trace is loading in a session with session_replication_role = replica.  Who breaks foreign keys that way has to switch
 * pgtrickle.trust_foreign_keys off.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/indexing.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_subscription_rel.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "fk_prune.h"
#include "settings.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

#define TRIGGERS_OF_FOREIGN_KEY 4	/* two on each table */

/* ---- is it to be trusted? ---- */

static bool
is_subscribed(Oid relid)
{
	Relation	catalog = table_open(SubscriptionRelRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	bool		found;

	ScanKeyInit(&key, Anum_pg_subscription_rel_srrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(catalog, InvalidOid, false, NULL, 1, &key);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return found;
}

/* All triggers of the constraint fire, and were last written by this transaction. */
static bool
triggers_untouched(Oid constraint, TransactionId made_by)
{
	Relation	catalog = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	int			count = 0;

	ScanKeyInit(&key, Anum_pg_trigger_tgconstraint, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(constraint));
	scan = systable_beginscan(catalog, TriggerConstraintIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		char		enabled = ((Form_pg_trigger) GETSTRUCT(tuple))->tgenabled;

		if ((enabled == TRIGGER_FIRES_ON_ORIGIN || enabled == TRIGGER_FIRES_ALWAYS) &&
			HeapTupleHeaderGetRawXmin(tuple->t_data) == made_by)
			count++;
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return count == TRIGGERS_OF_FOREIGN_KEY;
}

/* Who made the foreign key, if it can be trusted since then. */
static TransactionId
trusted_since(Oid constraint)
{
	HeapTuple	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
	Form_pg_constraint form;
	TransactionId made_by;
	bool		is_valid;

	if (!HeapTupleIsValid(tuple))
		return InvalidTransactionId;
	form = (Form_pg_constraint) GETSTRUCT(tuple);
	made_by = HeapTupleHeaderGetRawXmin(tuple->t_data);
	is_valid = form->convalidated && !OidIsValid(form->conparentid);
#if PG_VERSION_NUM >= 180000
	is_valid &= form->conenforced && !form->conperiod;
#endif
	ReleaseSysCache(tuple);
	return is_valid && triggers_untouched(constraint, made_by) ? made_by : InvalidTransactionId;
}

/* ---- does the block join by it? ---- */

static Node *
strip_relabel(Node *node)
{
	while (node != NULL && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	return node;
}

static bool
is_column(Node *node, int input_no, AttrNumber attno)
{
	Var		   *var = (Var *) strip_relabel(node);

	return IsA(var, Var) && var->varno == input_no + 1 && var->varattno == attno && var->varlevelsup == 0;
}

/* Is some condition this very comparison: key column = referencing column, or the other way round? */
static bool
has_comparison(QueryBlock *block, int referencing, AttrNumber fk_attno, int referenced, AttrNumber pk_attno, Oid equality)
{
	ListCell   *lc;

	foreach(lc, block->quals)
	{
		OpExpr	   *qual = lfirst(lc);
		Node	   *left;
		Node	   *right;

		if (!IsA(qual, OpExpr) || list_length(qual->args) != 2 ||
			(OidIsValid(qual->inputcollid) && !get_collation_isdeterministic(qual->inputcollid)))
			continue;
		left = linitial(qual->args);
		right = lsecond(qual->args);
		if (qual->opno == equality && is_column(left, referenced, pk_attno) && is_column(right, referencing, fk_attno))
			return true;
		if (get_commutator(qual->opno) == equality && is_column(right, referenced, pk_attno) &&
			is_column(left, referencing, fk_attno))
			return true;
	}
	return false;
}

static bool
is_deterministic(Oid relid, AttrNumber attno)
{
	Oid			type;
	int32		typmod;
	Oid			collation;

	get_atttypetypmodcoll(relid, attno, &type, &typmod, &collation);
	return !OidIsValid(collation) || get_collation_isdeterministic(collation);
}

static bool
joins_by(QueryBlock *block, int referencing, int referenced, ForeignKeyCacheInfo *key)
{
	for (int i = 0; i < key->nkeys; i++)
	{
		if (!is_deterministic(key->conrelid, key->conkey[i]) || !is_deterministic(key->confrelid, key->confkey[i]) ||
			!has_comparison(block, referencing, key->conkey[i], referenced, key->confkey[i], key->conpfeqop[i]))
			return false;
	}
	return true;
}

/* A table as a whole, with all rows that it has. */
static bool
is_whole_table(QueryBlock *block, BlockInput *input)
{
	ProgramRowset *rowset;

	if (input->rowset < 0 || input->anti || input->rte->rtekind != RTE_RELATION || input->rte->relkind != RELKIND_RELATION)
		return false;
	rowset = list_nth(block->program->rowsets, input->rowset);
	return rowset->source_relid == input->rte->relid && !has_subclass(input->rte->relid);
}

/* The foreign key by which the block joins two of its inputs, if there is one to be trusted: who made it. */
static TransactionId
trusted_key_between(QueryBlock *block, int referencing, int referenced)
{
	BlockInput *fact = list_nth(block->inputs, referencing);
	BlockInput *dimension = list_nth(block->inputs, referenced);
	Relation	relation = table_open(fact->rte->relid, AccessShareLock);
	TransactionId made_by = InvalidTransactionId;
	ListCell   *lc;

	foreach(lc, RelationGetFKeyList(relation))
	{
		ForeignKeyCacheInfo *key = lfirst(lc);

		if (!TransactionIdIsValid(made_by) && key->confrelid == dimension->rte->relid &&
			joins_by(block, referencing, referenced, key) &&
			!is_subscribed(key->conrelid) && !is_subscribed(key->confrelid))
			made_by = trusted_since(key->conoid);
	}
	table_close(relation, NoLock);
	return made_by;
}

/* An edge from any input to this one; NULL: none. */
static ForeignKeyEdge *
edge_to(QueryBlock *block, int referenced)
{
	BlockInput *dimension = list_nth(block->inputs, referenced);
	ForeignKeyEdge *edge;

	for (int i = 0; i < list_length(block->inputs); i++)
	{
		BlockInput *fact = list_nth(block->inputs, i);
		TransactionId made_by;

		if (i == referenced || fact->rowset == dimension->rowset || !is_whole_table(block, fact))
			continue;
		made_by = trusted_key_between(block, i, referenced);
		if (!TransactionIdIsValid(made_by))
			continue;
		edge = palloc(sizeof(ForeignKeyEdge));
		edge->referencing = fact->rowset;
		edge->referenced = dimension->rowset;
		edge->made_by = made_by;
		return edge;
	}
	return NULL;
}

static bool
has_anti_input(QueryBlock *block)
{
	ListCell   *lc;

	foreach(lc, block->inputs)
	{
		if (((BlockInput *) lfirst(lc))->anti)
			return true;
	}
	return false;
}

/* One edge for each place where the rowset stands; NIL when some place has none. */
static List *
edges_to_rowset(QueryBlock *block, int rowset)
{
	List	   *edges = NIL;

	for (int i = 0; i < list_length(block->inputs); i++)
	{
		BlockInput *input = list_nth(block->inputs, i);
		ForeignKeyEdge *edge;

		if (input->rowset != rowset)
			continue;
		edge = is_whole_table(block, input) ? edge_to(block, i) : NULL;
		if (edge == NULL)
			return NIL;
		edges = lappend(edges, edge);
	}
	return edges;
}

void
fk_prune_step(QueryBlock *block, ProgramStep *step)
{
	if (!pgtrickle_trust_foreign_keys || list_length(block->inputs) < 2 || has_anti_input(block))
		return;
	for (int i = 0; i < step->ninputs; i++)
		step->fk_edges = list_concat(step->fk_edges, edges_to_rowset(block, step->inputs[i]));
}

/* ---- in a refresh ---- */

static bool
is_empty(Rowset *rowset)
{
	return rowset == NULL || rowset->row_count == 0;
}

bool
fk_step_ignores(LoadedTable *table, ProgramStep *step, int input, Rowset **rowsets)
{
	Rowset	   *referenced = rowsets[step->inputs[input]];
	bool		ignores = false;
	ListCell   *lc;

	foreach(lc, step->fk_edges)
	{
		ForeignKeyEdge *edge = lfirst(lc);

		if (edge->referenced != step->inputs[input])
			continue;
		/* every edge, since they are different places of one table */
		if (!TransactionIdIsValid(table->frontier_xmin) || !TransactionIdPrecedes(edge->made_by, table->frontier_xmin))
			return false;
		if (referenced->has_deletes && (referenced->has_inserts || !is_empty(rowsets[edge->referencing])))
			return false;
		ignores = true;
	}
	return ignores;
}
