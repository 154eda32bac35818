/*
 * delta/copy_positions.c
 *     How far each remote has been followed: announced before a tick, written by it.
 *
 * A remote's position is the frontier of all its copies together: they hold what it committed up to there and nothing else.  So it changes in
 * the transaction that changes their rows.  tick_remote() locks it, and compares it with what the applier believes: two appliers, or
 * one that has lost track, must not apply the same transactions twice.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "copy_positions.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "nodes/pg_list.h"
#include "privileged.h"
#include "refresh_record.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(pgtrickle_tick_remote);
PG_FUNCTION_INFO_V1(pgtrickle_remote_position);

static List *moves = NIL;		/* of RemoteMove, in TopTransactionContext */
static bool callback_registered = false;

static void
forget_moves(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		moves = NIL;
}

const RemoteMove *
remote_move_of_set(int set)
{
	ListCell   *lc;

	foreach(lc, moves)
	{
		RemoteMove *move = lfirst(lc);

		if (move->set == set)
			return move;
	}
	return NULL;
}

void
remote_move_note(int set, uint64 xid, XLogRecPtr commit_lsn)
{
	RemoteMove *move = unconstify(RemoteMove *, remote_move_of_set(set));

	move->last_xid = xid;
	move->last_commit_lsn = commit_lsn;
}

/* The snapshot is the tick's, so a position that was moved meanwhile is a serialization failure already here. */
static void
lock_position(int remote_id, bool has_expected, XLogRecPtr expected)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {INT4OID};
	Datum		values[] = {Int32GetDatum(remote_id)};
	Datum		position;
	bool		isnull;

	execute_kept(&kept, "SELECT position FROM pgtrickle.pgt_remote_states WHERE remote_id = $1 FOR UPDATE",
				 lengthof(types), types, values, NULL);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("remote %d does not exist", remote_id)));
	position = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull == has_expected || (has_expected && DatumGetLSN(position) != expected))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("remote %d has been followed to another position than expected", remote_id),
				 errdetail("Expected %X/%X, found %X/%X.", LSN_FORMAT_ARGS(expected),
						   LSN_FORMAT_ARGS(isnull ? InvalidXLogRecPtr : DatumGetLSN(position)))));
}

Datum
pgtrickle_tick_remote(PG_FUNCTION_ARGS)
{
	MemoryContext oldcontext;
	RemoteMove *move;
	bool		has_expected = !PG_ARGISNULL(2);

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("change set, remote and position must not be null")));
	if (!IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("a tick needs a REPEATABLE READ transaction")));
	if (!callback_registered)
	{
		RegisterXactCallback(forget_moves, NULL);
		callback_registered = true;
	}
	if (remote_move_of_set(PG_GETARG_INT32(0)) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("change set %d has a remote already", PG_GETARG_INT32(0))));
	if (has_expected && PG_GETARG_LSN(3) < PG_GETARG_LSN(2))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a remote's position cannot go back")));
	SPI_connect();
	lock_position(PG_GETARG_INT32(1), has_expected, has_expected ? PG_GETARG_LSN(2) : InvalidXLogRecPtr);
	SPI_finish();

	oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	move = palloc0(sizeof(RemoteMove));
	move->set = PG_GETARG_INT32(0);
	move->remote_id = PG_GETARG_INT32(1);
	move->position = PG_GETARG_LSN(3);
	move->position_at = PG_ARGISNULL(4) ? 0 : PG_GETARG_TIMESTAMPTZ(4);
	moves = lappend(moves, move);
	MemoryContextSwitchTo(oldcontext);
	PG_RETURN_VOID();
}

void
remote_positions_write(void)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {INT4OID, PG_LSNOID, TIMESTAMPTZOID, XID8OID, PG_LSNOID};
	ListCell   *lc;

	foreach(lc, moves)
	{
		RemoteMove *move = lfirst(lc);
		Datum		values[] = {Int32GetDatum(move->remote_id), LSNGetDatum(move->position), TimestampTzGetDatum(move->position_at),
		UInt64GetDatum(move->last_xid), LSNGetDatum(move->last_commit_lsn)};
		char		nulls[] = {' ', ' ', move->position_at == 0 ? 'n' : ' ', move->last_xid == 0 ? 'n' : ' ', move->last_xid == 0 ? 'n' : ' ', '\0'};

		execute_kept(&kept,
					 "UPDATE pgtrickle.pgt_remote_states SET position = $2, own_xid = pg_catalog.pg_current_xact_id(),"
					 " position_at = COALESCE($3, position_at), last_xid = COALESCE($4, last_xid),"
					 " last_commit_lsn = COALESCE($5, last_commit_lsn) WHERE remote_id = $1",
					 lengthof(types), types, values, nulls);
	}
}

/* pgtrickle.remote_position(remote_id integer) returns pg_lsn: by a new snapshot, since who waits may have an old one.  No secret. */
Datum
pgtrickle_remote_position(PG_FUNCTION_ARGS)
{
	PrivilegedSection section;
	Datum		position = (Datum) 0;
	bool		isnull = true;

	privileged_begin(&section);
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute(psprintf("SELECT position FROM pgtrickle.pgt_remote_states WHERE remote_id = %d", PG_GETARG_INT32(0)),
					true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the position of a remote");
	if (SPI_processed == 1)
		position = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	PopActiveSnapshot();
	privileged_end(&section);
	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(position);
}
