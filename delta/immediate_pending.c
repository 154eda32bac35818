/*
 * delta/immediate_pending.c
 *     Open statements and pending deltas of the present transaction.
 *
 *     (closed) --BEFORE--> open --BEFORE, AFTER...--> open --last AFTER--> (closed), deltas taken      nothing survives the transaction
 *
 * Everything belongs to the subtransaction that it was made in: if that is rolled back, so are its open statements and its deltas, and when it
 * commits they become its parent's.  Deltas are kept in the transaction's memory; files that they spill to belong to the transaction, too.
 *
 * A statement that is stopped before its end, by whoever fetches its RETURNING rows through SPI with a limit, fires no AFTER trigger and stays
 * open: nobody knows what it wrote.  Its transaction cannot commit.
 */
#include "postgres.h"

#include "access/xact.h"
#include "immediate_pending.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

typedef struct OpenStatement
{
	Oid			relid;
	TriggerEvent operation;
	SubTransactionId subid;
} OpenStatement;

static MemoryContext context = NULL;	/* child of TopTransactionContext; NULL: nothing is open or pending */
static List *statements = NIL;	/* of OpenStatement, the last one first */
static List *pending = NIL;		/* of PendingDelta */
static List *taken = NIL;		/* of PendingDelta: those that stream tables are being maintained for */

/* ---- the ends of transactions ---- */

static void
free_delta(PendingDelta *delta)
{
	if (delta->rowset != NULL)
		rowset_free(delta->rowset);
	bms_free(delta->used_attnos);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			if (statements != NIL)
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("a statement on table \"%s\" was not run to its end",
								get_rel_name(((OpenStatement *) linitial(statements))->relid)),
						 errdetail("IMMEDIATE stream tables cannot follow it."),
						 errhint("Fetch all rows of a statement with RETURNING.")));
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			context = NULL;
			statements = pending = taken = NIL;
			break;
		default:
			break;
	}
}

static void
forget_subtransaction(SubTransactionId subid)
{
	ListCell   *lc;

	foreach(lc, statements)
	{
		if (((OpenStatement *) lfirst(lc))->subid == subid)
			statements = foreach_delete_current(statements, lc);
	}
	foreach(lc, pending)
	{
		PendingDelta *delta = lfirst(lc);

		if (delta->subid == subid)
		{
			free_delta(delta);
			pending = foreach_delete_current(pending, lc);
		}
	}
	/* what they were taken for has failed */
	pending_done();
}

static void
hand_to_parent(SubTransactionId subid, SubTransactionId parent)
{
	ListCell   *lc;

	foreach(lc, statements)
	{
		OpenStatement *statement = lfirst(lc);

		if (statement->subid == subid)
			statement->subid = parent;
	}
	foreach(lc, pending)
	{
		PendingDelta *delta = lfirst(lc);

		if (delta->subid == subid)
			delta->subid = parent;
	}
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId subid, SubTransactionId parent, void *arg)
{
	if (context == NULL)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		forget_subtransaction(subid);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		hand_to_parent(subid, parent);
}

static MemoryContext
enter_context(void)
{
	static bool callbacks_are_registered = false;

	if (!callbacks_are_registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		RegisterSubXactCallback(at_subtransaction_end, NULL);
		callbacks_are_registered = true;
	}
	if (context == NULL)
		context = AllocSetContextCreate(TopTransactionContext, "IMMEDIATE pending deltas", ALLOCSET_SMALL_SIZES);
	return MemoryContextSwitchTo(context);
}

/* ---- statements ---- */

void
pending_open(Oid relid, TriggerEvent event)
{
	MemoryContext oldcontext = enter_context();
	OpenStatement *statement = palloc(sizeof(OpenStatement));

	statement->relid = relid;
	statement->operation = event & TRIGGER_EVENT_OPMASK;
	statement->subid = GetCurrentSubTransactionId();
	statements = lcons(statement, statements);
	MemoryContextSwitchTo(oldcontext);
}

void
pending_close(Oid relid, TriggerEvent event)
{
	ListCell   *lc;

	foreach(lc, statements)
	{
		OpenStatement *statement = lfirst(lc);

		if (statement->relid == relid && statement->operation == (event & TRIGGER_EVENT_OPMASK))
		{
			statements = foreach_delete_current(statements, lc);
			pfree(statement);
			return;
		}
	}
	/* its beginning was before the stream table's: the triggers were made by a statement inside of it, a function of the same session */
}

bool
pending_is_open(void)
{
	return statements != NIL;
}

/* ---- deltas ---- */

static PendingDelta *
find_delta(Oid source_relid, const Bitmapset *used_attnos, bool is_unknown)
{
	ListCell   *lc;

	foreach(lc, pending)
	{
		PendingDelta *delta = lfirst(lc);

		if (delta->source_relid == source_relid && delta->is_unknown == is_unknown &&
			delta->subid == GetCurrentSubTransactionId() && bms_equal(delta->used_attnos, used_attnos))
			return delta;
	}
	return NULL;
}

static PendingDelta *
add_delta(Oid source_relid)
{
	PendingDelta *delta = palloc0(sizeof(PendingDelta));

	delta->source_relid = source_relid;
	delta->subid = GetCurrentSubTransactionId();
	pending = lappend(pending, delta);
	return delta;
}

PendingDelta *
pending_delta(Oid source_relid, const Bitmapset *used_attnos, TupleDesc columns)
{
	PendingDelta *delta = find_delta(source_relid, used_attnos, false);
	MemoryContext oldcontext;
	ResourceOwner oldowner;
	char		name[NAMEDATALEN];

	if (delta != NULL)
		return delta;
	oldcontext = enter_context();
	oldowner = CurrentResourceOwner;
	CurrentResourceOwner = TopTransactionResourceOwner;
	delta = add_delta(source_relid);
	delta->used_attnos = bms_copy(used_attnos);
	snprintf(name, sizeof(name), "__pgt_delta_%u", source_relid);
	delta->rowset = rowset_create(name, rowset_tupdesc_for(columns));
	CurrentResourceOwner = oldowner;
	MemoryContextSwitchTo(oldcontext);
	return delta;
}

void
pending_note_unknown(Oid source_relid)
{
	MemoryContext oldcontext;

	if (find_delta(source_relid, NULL, true) != NULL)
		return;
	oldcontext = enter_context();
	add_delta(source_relid)->is_unknown = true;
	MemoryContextSwitchTo(oldcontext);
}

static bool
has_changes(void)
{
	ListCell   *lc;

	foreach(lc, pending)
	{
		PendingDelta *delta = lfirst(lc);

		if (delta->is_unknown || delta->rowset->row_count > 0)
			return true;
	}
	return false;
}

List *
pending_take(void)
{
	bool		changed = has_changes();

	Assert(taken == NIL);
	taken = pending;
	pending = NIL;
	if (!changed)
		pending_done();
	return taken;
}

void
pending_done(void)
{
	ListCell   *lc;

	foreach(lc, taken)
	{
		free_delta(lfirst(lc));
		pfree(lfirst(lc));
	}
	list_free(taken);
	taken = NIL;
}
