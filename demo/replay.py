# demo/replay.py
#     Writes the events of nycflights.py into the source tables, at a chosen speed, as an application would.
#
# A process of its own, so that drawing and measuring do not slow it down.  All events of one slice of
# simulated time make one transaction; a slice is shorter than any two steps in the life of a flight, so within a
# transaction the order of statements does not matter.  It tells the others what it did through Progress.
import ctypes
import multiprocessing
import time

import psycopg2

from nycflights import Dataset

SLICE_S = 15 * 60

_SET_STATUS = """UPDATE flights f SET status = '{status}'{more}
 FROM (VALUES {{rows}}) v ({columns}) WHERE f.flight_id = v.flight_id"""

# One statement per kind of event and transaction: rows, and how one of them is written.
STATEMENTS = {
    "weather": ("INSERT INTO weather VALUES {rows}", "(%s, %s, %s, %s, %s, %s)"),
    "enter": ("""INSERT INTO flights (flight_id, carrier, flight_no, tailnum, origin, dest, distance,
 sched_dep, time_hour, status) VALUES {rows}""",
              "(%s, %s, %s, %s, %s, %s, %s, to_timestamp(%s), %s, 'scheduled')"),
    "depart": (_SET_STATUS.format(status="departed", more=", dep_delay = v.dep_delay",
                                  columns="flight_id, dep_delay"), "(%s, %s)"),
    "land": (_SET_STATUS.format(status="landed", more=", arr_delay = v.arr_delay, air_time = v.air_time",
                                columns="flight_id, arr_delay, air_time"), "(%s, %s, %s)"),
    "cancel": (_SET_STATUS.format(status="cancelled", more="", columns="flight_id"), "(%s)"),
    "divert": (_SET_STATUS.format(status="diverted", more="", columns="flight_id"), "(%s)"),
    "delete": ("DELETE FROM flights WHERE flight_id IN ({rows})", "%s"),
}


class Progress(ctypes.Structure):
    """What the replay has done so far, in memory shared by all processes of the demo."""
    _fields_ = [
        ("changes", ctypes.c_int64),
        ("transactions", ctypes.c_int64),
        ("simulated_at", ctypes.c_double),
        ("starts_at", ctypes.c_double),
        ("ends_at", ctypes.c_double),
        ("probe_wanted", ctypes.c_int32),  # set by freshness.py, cleared by us
        ("done", ctypes.c_int32),
    ]


def make_progress():
    return multiprocessing.Value(Progress, lock=False)


def replay(conninfo, data, days, speed, progress, probes):
    """The process: `speed` is in simulated seconds per second, 0 for as fast as possible."""
    events = Dataset(data).events(days)
    connection = psycopg2.connect(conninfo, application_name="flights")
    connection.autocommit = True
    cursor = connection.cursor()

    clock = None
    for slice_end, batch in slices(events):
        if clock is None:
            clock = Clock(slice_end, speed)
            progress.starts_at = slice_end
            progress.ends_at = slice_end + days * 86400
        clock.wait_until(slice_end)
        xid = write(cursor, batch)
        if progress.probe_wanted and touches_everything(batch):
            progress.probe_wanted = 0
            probes.send((xid, time.monotonic()))
        progress.changes += sum(len(rows) for rows in batch.values())
        progress.transactions += 1
        progress.simulated_at = slice_end
    progress.done = 1


def slices(events):
    """Groups events: (end of the slice, {kind: [values, ...]})."""
    batch = {}
    slice_end = None
    for event in events:
        if slice_end is None:
            slice_end = event.at + SLICE_S
        if event.at >= slice_end:
            yield slice_end, batch
            batch = {}
            slice_end += (event.at - slice_end) // SLICE_S * SLICE_S + SLICE_S
        batch.setdefault(event.kind, []).append(event.values)
    if batch:
        yield slice_end, batch


def write(cursor, batch):
    """One transaction in one round trip (several statements in one message are one transaction)."""
    statements = []
    for kind, (statement, row) in STATEMENTS.items():
        if kind in batch:
            rows = b", ".join(cursor.mogrify(row, values) for values in batch[kind])
            statements.append(statement.format(rows=rows.decode("utf-8")))
    statements.append("SELECT pg_current_xact_id()::text")
    cursor.execute("; ".join(statements))
    return cursor.fetchone()[0]


def touches_everything(batch):
    """Departures and landings change every stream table, so all of them will show this transaction."""
    return len(batch.get("depart", ())) >= 2 and len(batch.get("land", ())) >= 2


class Clock:
    """Maps simulated time to real time.  When the writes cannot keep up it does not try to catch up later."""

    def __init__(self, simulated_at, speed):
        self.simulated_at = simulated_at
        self.real_at = time.monotonic()
        self.speed = speed

    def wait_until(self, simulated_at):
        if self.speed:
            due_at = self.real_at + (simulated_at - self.simulated_at) / self.speed
            now = time.monotonic()
            if due_at > now:
                time.sleep(due_at - now)
            now = max(now, due_at)
        else:
            now = time.monotonic()
        self.simulated_at = simulated_at
        self.real_at = now
