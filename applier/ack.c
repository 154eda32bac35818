/*
 * applier/ack.c
 *     Acknowledge last: which position the slot may be told.
 */
#include "ack.h"

static const PersistedAck nothing = {LSN_NONE, LSN_NONE};

void
ack_persisted(Ack *ack, Lsn ack_lsn, Lsn insert_lsn)
{
	PersistedAck persisted = {ack_lsn, insert_lsn};

	if (ack->oldest.insert_lsn == LSN_NONE)
		ack->oldest = persisted;
	else
		ack->newest = persisted;
}

void
ack_flushed(Ack *ack, Lsn ack_lsn)
{
	/* Everything that was written before it is on disk as well. */
	ack->oldest = nothing;
	ack->newest = nothing;
	ack->acknowledged_lsn = lsn_max(ack->acknowledged_lsn, ack_lsn);
}

bool
ack_stream_reached(Ack *ack, Lsn stream_lsn)
{
	Lsn before = ack->acknowledged_lsn;

	while (ack->oldest.insert_lsn != LSN_NONE && stream_lsn >= ack->oldest.insert_lsn)
	{
		ack->acknowledged_lsn = lsn_max(ack->acknowledged_lsn, ack->oldest.ack_lsn);
		ack->oldest = ack->newest;
		ack->newest = nothing;
	}
	return ack->acknowledged_lsn > before;
}
