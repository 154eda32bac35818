# demo/freshness.py
#     Measures commit-to-visible: how long after its commit a transaction is in each stream table.
#
# A process of its own.  Some times a second it asks the replay for its next transaction, with the
# moment when COMMIT returned, and then asks the server in short intervals which stream tables' frontiers see it.  The times
# therefore include what a reader would notice, and up to one interval more.
import time

import psycopg2

PAUSE_S = 0.05
POLL_S = 0.0005
GIVE_UP_S = 10.0

_VISIBLE = """SELECT pgt_name FROM pgtrickle.pgt_stream_tables
 WHERE pg_visible_in_snapshot(%s::xid8, (frontier ->> 'snapshot')::pg_snapshot)"""


def measure(conninfo, names, progress, probes, results):
    """The process: receives (xid, commit moment) from `probes`, puts lists of (name, milliseconds) into `results`."""
    connection = psycopg2.connect(conninfo, application_name="freshness")
    connection.autocommit = True
    cursor = connection.cursor()
    while not progress.done:
        time.sleep(PAUSE_S)
        progress.probe_wanted = 1
        while not probes.poll(0.2):
            if progress.done:
                return
        xid, committed_at = probes.recv()
        results.send(wait_for(cursor, xid, committed_at, names))


def wait_for(cursor, xid, committed_at, names):
    """(name, milliseconds) of each stream table; None when it took too long to wait for."""
    waiting = set(names)
    seen = []
    while waiting:
        cursor.execute(_VISIBLE, (xid,))
        elapsed_s = time.monotonic() - committed_at
        for (name,) in cursor.fetchall():
            if name in waiting:
                waiting.remove(name)
                seen.append((name, elapsed_s * 1000.0))
        if elapsed_s > GIVE_UP_S:
            return seen + [(name, None) for name in waiting]
        if waiting:
            time.sleep(POLL_S)
    return seen


class Samples:
    """Times of one stream table: all of them, and quantiles of the most recent."""

    RECENT = 300

    def __init__(self):
        self.all = []
        self.lost = 0

    def add(self, milliseconds):
        if milliseconds is None:
            self.lost += 1
        else:
            self.all.append(milliseconds)

    def recent(self):
        return self.all[-self.RECENT:]


def quantile(values, part):
    """The smallest value that at least this part of the values does not exceed; None for no values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
