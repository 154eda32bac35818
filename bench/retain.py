#!/usr/bin/env python3
# bench/retain.py
#     What does it cost a refresh to keep what it changes (retain_history)?
#
# Two stream tables with the same query over the same table, one of them with a history.  After each change both are refreshed by delta, each in turn the
# first; the time is that of the refresh in the server, which holds writing the history, and that of the whole call.  Groups, where many changed rows make few
# changed groups, and a join with a row for each row.  In the end both equal their query, and the history tells of as many rows as were changed.
#
#     bench/retain.py [--rows N]
import argparse
import statistics

from stream_tables import StreamTables, report, timed

parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=int, default=200_000)
arguments = parser.parse_args()

SHAPES = [
    ("groups", "SELECT k, count(*) AS n, sum(v) AS total FROM big GROUP BY k"),
    ("joined", "SELECT b.id, b.v, s.name FROM big b JOIN small s USING (k)"),
]
SIZES = [(1, 60), (1_000, 20), (50_000, 6)]


def spent(server, name):
    return float(server.sql("SELECT total_duration_ms FROM pgtrickle.pgt_frontiers JOIN pgtrickle.pgt_definitions USING (pgt_id) WHERE relid = '%s'::regclass" % name))


def refresh(server, name):
    """Milliseconds in the server, and as the caller sees it (psql's start is in it)."""
    before = spent(server, name)
    call = 1000 * timed(server.sql, "SELECT pgtrickle.refresh_stream_table('%s')" % name)
    return spent(server, name) - before, call


def kept(server):
    return [int(value) for value in server.sql("SELECT count(*), pg_total_relation_size('pgtrickle.pgt_changes') FROM pgtrickle.pgt_changes").split("|")]


def measure(server, shape, size, rounds):
    names = [shape + "_plain", shape + "_kept"]
    times = {name: [] for name in names}
    rows_before, bytes_before = kept(server)
    for number in range(rounds):
        first = number * 7919 % (arguments.rows - size)
        server.sql("UPDATE big SET v = v + 1 WHERE id > %d AND id <= %d" % (first, first + size))
        for name in names if number % 2 == 0 else reversed(names):
            times[name].append(refresh(server, name))
    rows, size_in_bytes = kept(server)
    rows -= rows_before
    plain, with_history = ([statistics.median(one[which] for one in times[name]) for which in (0, 1)] for name in names)
    return "%-7s %9d %10d %11.2f %11.2f %7.2f %12.1f %11.1f %12.0f" % (
        shape, size, rows // rounds, plain[0], with_history[0], with_history[0] / plain[0], plain[1], with_history[1], (size_in_bytes - bytes_before) / rows)


with StreamTables() as server:
    server.sql("""CREATE TABLE big (id bigint PRIMARY KEY, k integer NOT NULL, v bigint NOT NULL); CREATE TABLE small (k integer PRIMARY KEY, name text NOT NULL);
        INSERT INTO big SELECT i, i %% 1000 + 1, i FROM generate_series(1, %d) i; INSERT INTO small SELECT g, 'name ' || g FROM generate_series(1, 1000) g;
        VACUUM ANALYZE big; VACUUM ANALYZE small""" % arguments.rows)
    lines = ["%d rows; medians" % arguments.rows, "",
             "query    changed   kept rows    ms plain     ms kept   ratio   call plain   call kept  bytes of row"]
    for shape, query in SHAPES:
        server.create(shape + "_plain", query, schedule="manual")
        server.sql("SELECT pgtrickle.create_stream_table('%s_kept', $query$%s$query$, 'manual', 'DIFFERENTIAL', retain_history => '1 day')" % (shape, query))
        for name in (shape + "_plain", shape + "_kept"):
            # the first refresh compiles
            server.sql("UPDATE big SET v = v + 1 WHERE id = 1; SELECT pgtrickle.refresh_stream_table('%s')" % name)
        for size, rounds in SIZES:
            lines.append(measure(server, shape, size, rounds))
    for shape, _ in SHAPES:
        server.check(shape + "_plain", shape + "_kept")
    gained, written = (int(value) for value in server.sql("""SELECT (SELECT sum(weight) FROM pgtrickle.history('joined_kept')),
        (SELECT count(*) FROM pgtrickle.history('joined_kept') WHERE weight > 0)""").split("|"))
    if gained != 0 or written < sum(size * rounds for size, rounds in SIZES):
        raise SystemExit("the history does not tell of all that was changed")
    lines += ["", "all equalled their queries, and the history was complete"]
    report("retain", server, lines)
