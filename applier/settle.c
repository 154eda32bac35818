/*
 * applier/settle.c
 *     What the stream did not bring, and relations that somebody is about to read.
 */
#include "settle.h"

#include <assert.h>

#include "memory.h"

Settle *
settle_create(void)
{
	return memory_take_zeroed(sizeof(Settle));
}

void
settle_free(Settle *settle)
{
	for (size_t i = 0; i < settle->pin_count; i++)
		free(settle->pins[i].relids);
	free(settle->pins);
	free(settle->entries);
	free(settle);
}

void
settle_add_skipped(Settle *settle, Xid xid, Oid relid, Lsn commit_lsn)
{
	SkippedEntry *entry;

	settle->entries = memory_grow_array(settle->entries, settle->entry_count,
										&settle->entry_capacity, sizeof(SkippedEntry));
	entry = &settle->entries[settle->entry_count];

	/* Commit order.  Only a transaction whose rows were given up later comes out of order. */
	while (entry > settle->entries && entry[-1].commit_lsn > commit_lsn)
	{
		entry[0] = entry[-1];
		entry--;
	}
	entry->xid = xid;
	entry->relid = relid;
	entry->is_settled = false;
	entry->commit_lsn = commit_lsn;
	settle->entry_count++;
}

void
settle_add_pin(Settle *settle, Xid xid, const Oid *relids, size_t relid_count, Lsn hold_lsn)
{
	Pin *pin;

	settle->pins =
		memory_grow_array(settle->pins, settle->pin_count, &settle->pin_capacity, sizeof(Pin));
	pin = &settle->pins[settle->pin_count++];
	pin->xid = xid;
	pin->hold_lsn = hold_lsn;
	pin->relids = memory_take(relid_count * sizeof(Oid));
	memcpy(pin->relids, relids, relid_count * sizeof(Oid));
	pin->relid_count = relid_count;
}

bool
settle_is_pinned(const Settle *settle, Oid relid)
{
	for (size_t i = 0; i < settle->pin_count; i++)
	{
		for (size_t j = 0; j < settle->pins[i].relid_count; j++)
		{
			if (settle->pins[i].relids[j] == relid)
				return true;
		}
	}
	return false;
}

/*
 * The pin's transaction has ended.  If it committed, its `catalog` message was received before the
 * stream reached the snapshot's insert position, and has been obeyed.  If not, there is nothing to
 * wait for.
 */
static bool
release_pins(Settle *settle, const Snapshot *snapshot)
{
	size_t kept = 0;
	bool   some_went;

	for (size_t i = 0; i < settle->pin_count; i++)
	{
		if (snapshot_sees(snapshot, settle->pins[i].xid))
			free(settle->pins[i].relids);
		else
			settle->pins[kept++] = settle->pins[i];
	}
	some_went = kept < settle->pin_count;
	settle->pin_count = kept;
	return some_went;
}

bool
settle_see(Settle *settle, const Snapshot *snapshot, bool catalog_is_current)
{
	bool   pins_went = catalog_is_current && release_pins(settle, snapshot);
	size_t kept = 0;

	for (size_t i = 0; i < settle->entry_count; i++)
	{
		SkippedEntry *entry = &settle->entries[i];

		if (!entry->is_settled)
			entry->is_settled = snapshot_sees(snapshot, entry->xid);
		if (entry->is_settled && !settle_is_pinned(settle, entry->relid))
			continue;
		settle->entries[kept++] = *entry;
	}
	settle->entry_count = kept;
	return pins_went;
}

Lsn
settle_first_missed(const Settle *settle, Oid relid, const Snapshot *snapshot, Xid own_xid)
{
	for (size_t i = 0; i < settle->entry_count; i++)
	{
		const SkippedEntry *entry = &settle->entries[i];

		if (entry->relid == relid && entry->xid != own_xid && !snapshot_sees(snapshot, entry->xid))
			return entry->commit_lsn;
	}
	return LSN_MAX;
}

Lsn
settle_needed_lsn(const Settle *settle)
{
	Lsn needed = settle->entry_count > 0 ? settle->entries[0].commit_lsn : LSN_MAX;

	for (size_t i = 0; i < settle->pin_count; i++)
		needed = lsn_min(needed, settle->pins[i].hold_lsn);
	return needed;
}
