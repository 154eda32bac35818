#!/usr/bin/env python3
# bench/nexmark.py
#     The queries of Nexmark as stream tables over tables of persons, auctions and bids: answers, strategies, events a second.
#
#   bench/nexmark.py [EVENTS]         default: 200000 on top of 100000
#
# Each query on its own is refreshed after batches of 10000 events; events a second are what staging and refreshing take, as the history of refreshes
# says.  Then all of them follow the stream at once, and the time is that from the first commit to the last one visible everywhere.
import os
import re
import sys
import time

import stream_tables

FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nexmark")
BATCH = 10000
ALREADY_THERE = 100000


def read(name):
    with open(os.path.join(FILES, name)) as text:
        return text.read()


def queries():
    rest = re.split(r"^-- (Q\d+)\n", read("queries.sql"), flags=re.M)[1:]
    return [(name.lower(), text.strip()) for name, text in zip(rest[::2], rest[1::2])]


class Auction:
    def __init__(self, server):
        self.server = server
        self.last = -1
        server.sql(read("schema.sql"))
        self.add(ALREADY_THERE)
        server.sql("VACUUM ANALYZE")

    def add(self, events):
        self.server.sql(read("events.sql"), first=self.last + 1, last=self.last + events)
        self.last += events


def spent_ms(server, name):
    return float(server.sql("SELECT sum(duration_ms) FROM pgtrickle.pgt_refresh_history JOIN pgtrickle.pgt_stream_tables USING (pgt_id) WHERE pgt_name = '%s'" % name))


def verify(server, name):
    different = server.sql("SELECT * FROM pgtrickle.verify('%s')" % name)
    if different:
        raise SystemExit("%s differs from its query:\n%s" % (name, different[:2000]))


def one_query(server, auction, name, query):
    """Three batches; a line for the table."""
    server.create(name, query, "manual", "AUTO")
    reason = server.sql("SELECT downgrade_reason FROM pgtrickle.explain_refresh_mode('%s')" % name)
    before = spent_ms(server, name)
    for _ in range(3):
        auction.add(BATCH)
        server.sql("SELECT pgtrickle.refresh_stream_table('%s')" % name)
    ms = (spent_ms(server, name) - before) / 3
    action = server.sql("SELECT action FROM pgtrickle.get_refresh_history('%s', 1)" % name).lower()
    verify(server, name)
    server.sql("SELECT pgtrickle.drop_stream_table('%s')" % name)
    return "%-5s %10.1f %12.0f   %-12s %s" % (name, ms, 1000 * BATCH / ms, action, reason)


def all_at_once(server, auction, events, chosen):
    for name, query in chosen:
        server.create(name, query, "continuous", "AUTO")
    started = time.monotonic()
    for _ in range(events // BATCH):
        auction.add(BATCH)
    written = time.monotonic() - started
    for name, _ in chosen:
        server.sql("SELECT pgtrickle.wait_fresh('%s', '600s')" % name)
    took = time.monotonic() - started
    for name, _ in chosen:
        verify(server, name)
    return "%d stream tables at once: %d events in %.1f s, %.0f events/s (writing them took %.1f s of these)" % (
        len(chosen), events, took, events / took, written)


def main(arguments):
    events = int(arguments[0]) if arguments else 200000
    with stream_tables.StreamTables({"work_mem": "64MB", "jit": "off"}) as server:
        auction = Auction(server)
        lines = ["batches of %d events on top of %d; milliseconds and events a second of one refresh" % (BATCH, ALREADY_THERE), "",
                 "%-5s %10s %12s   %-12s" % ("query", "ms", "events/s", "chosen")]
        for name, query in queries():
            lines.append(one_query(server, auction, name, query))
            print(lines[-1], flush=True)
        lines += ["q12   counts by the clock of the machine: not a query over tables", "", all_at_once(server, auction, events, queries())]
        stream_tables.report("nexmark", server, lines)


if __name__ == "__main__":
    main(sys.argv[1:])
