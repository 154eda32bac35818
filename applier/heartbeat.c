/*
 * applier/heartbeat.c
 *     Progress without ticks: what need not be kept is persisted, so that the slot can move on, and a snapshot settles what was skipped.
 *
 * A heartbeat is a small transaction on the fence connection (control.c).  It writes WAL itself, so one is sent only when others have written more.
 */
#include "applier.h"

/*
 * A heartbeat writes WAL itself (up to a page image or two after a checkpoint), which must not be
 * the reason for the next one.
 */
#define HEARTBEAT_WAL_BYTES_MIN (64 * 1024)

/* So many unsettled entries are worth a heartbeat before its time. */
#define UNSETTLED_MAX 100000

void
applier_note_persisted(Applier *applier, Lsn ack_lsn, Lsn stream_lsn, Micros now)
{
	applier->persisted_ack_lsn = ack_lsn;
	applier->persisted_stream_lsn = stream_lsn;
	applier->persisted_at = now;
}

/* A heartbeat's snapshot settles things when the stream has reached its position. */
void
applier_settle_by_heartbeat(Applier *applier)
{
	if (applier->settle_snapshot == NULL ||
		applier->intake->stream_lsn < applier->settle_insert_lsn)
		return;
	intake_see_snapshot(applier->intake, applier->settle_snapshot);
	snapshot_release(applier->settle_snapshot);
	applier->settle_snapshot = NULL;
}

void
applier_take_heartbeat(Applier *applier, Micros now)
{
	Control *control = &applier->control;

	if (!control->heartbeat_is_done)
		return;
	control->heartbeat_is_done = false;
	ack_flushed(&applier->ack, control->heartbeat_ack_lsn);
	applier_note_persisted(applier, control->heartbeat_ack_lsn, control->heartbeat_stream_lsn, now);
	applier->persisted_by_tick = false;

	/*
	 * An earlier one that still waits is not replaced, or a busy stream would never settle
	 * anything.
	 */
	if (applier->settle_snapshot != NULL)
		return;
	applier->settle_snapshot = snapshot_share(control->heartbeat_snapshot);
	applier->settle_insert_lsn = lsn_before_page_header(control->heartbeat_snapshot_insert_lsn,
														applier->tick.wal_segment_bytes);
}

/*
 * Only when the WAL has moved by more than heartbeats move it, and when there is something to
 * persist or to settle; and once after the last of many ticks.  A tick persists a position before its own
 * commit, while who waits on a standby may have asked for one behind it (wait_fresh with an LSN).
 */
Micros
applier_heartbeat_due(const Applier *applier)
{
	const Intake *intake = applier->intake;

	if (applier->control.heartbeat_is_running || applier->tick.state != TICK_IDLE ||
		!control_has_room(&applier->control))
		return MICROS_NEVER;
	if (intake->stream_lsn <
		applier->persisted_stream_lsn + (applier->persisted_by_tick ? 1 : HEARTBEAT_WAL_BYTES_MIN))
		return MICROS_NEVER;
	if (applier->settle->entry_count > UNSETTLED_MAX && applier->settle_snapshot == NULL)
		return 0;
	return applier->persisted_at + applier->options->heartbeat_interval;
}

bool
applier_consider_heartbeat(Applier *applier, Micros now, Error *error)
{
	if (applier_heartbeat_due(applier) > now)
		return true;
	return control_send_heartbeat(&applier->control, plan_ack_lsn(NULL, applier->intake),
								  applier->intake->stream_lsn, error);
}
