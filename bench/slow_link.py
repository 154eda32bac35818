#!/usr/bin/env python3
# bench/slow_link.py
#     Does compressing the stream help on a slow link, and what does it cost the source?
#
# The same WAL as in decode.py, read by pg_recvlogical from our plugin with and without compression and from pgoutput, over a socket as fast as it goes and
# through a forwarder that lets only so many bytes a second through.  CPU is the walsender's.
#
#     bench/slow_link.py [--scale F] [--rounds N] [--megabit N]
import argparse
import copy
import os
import socket
import threading
import time

import cluster
import decode
from stream_tables import report

CHUNK = 16384


class SlowLink:
    """Listens on a socket of its own and forwards to the server's: what comes from there at most so fast."""

    def __init__(self, server, bytes_per_second):
        self.target = os.path.join(server.directory, ".s.PGSQL.5432")
        self.rate = bytes_per_second
        self.directory = os.path.join(server.directory, "slow")
        os.makedirs(self.directory)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(os.path.join(self.directory, ".s.PGSQL.5432"))
        self.listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            near, _ = self.listener.accept()
            far = socket.socket(socket.AF_UNIX)
            far.connect(self.target)
            threading.Thread(target=self._forward, args=(near, far, None), daemon=True).start()
            threading.Thread(target=self._forward, args=(far, near, self.rate), daemon=True).start()

    @staticmethod
    def _forward(source, sink, rate):
        free_at = time.monotonic()
        try:
            while data := source.recv(CHUNK):
                if rate is not None:
                    free_at = max(free_at, time.monotonic()) + len(data) / rate
                    time.sleep(max(0, free_at - time.monotonic()))
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def compressed():
    plugin = copy.copy(decode.OURS)
    plugin.name = "pgtrickle, zstd"
    plugin.options = dict(plugin.options, compression="zstd")
    return plugin


def through(server, link):
    """The same server, as clients of pg_recvlogical see it behind the link."""
    behind = copy.copy(server)
    behind.conninfo = server.conninfo.replace("host=" + server.directory, "host=" + link.directory)
    behind.sql = server.sql
    return behind


def payload(server, plugin):
    """(messages, bytes) of what is to be sent."""
    return map(int, server.sql(
        "SELECT count(*), sum(length(data)) FROM pg_logical_slot_peek_binary_changes('%s', NULL, NULL%s)"
        % (plugin.slot, plugin.sql_options())).split("|"))


def run_case(server, slow, title, write, arguments):
    plugins = [decode.OURS, compressed(), decode.PGOUTPUT]
    for name, library in {(plugin.slot, plugin.library) for plugin in plugins}:
        server.sql("SELECT pg_create_logical_replication_slot('%s', '%s')" % (name, library))
    changes = write(server, arguments.scale)
    end_lsn = server.sql("CHECKPOINT; SELECT pg_current_wal_flush_lsn()")
    fast_runs = decode.measure(server, plugins, end_lsn, arguments.rounds, "2GB")
    slow_runs = decode.measure(slow, plugins, end_lsn, arguments.rounds, "2GB")
    lines = ["%s: %d changes" % (title, changes),
             "  %-16s %9s %8s | %9s %8s | %14s %8s" % ("", "B/change", "ratio", "CPU us/ch", "ratio", "slow changes/s", "ratio")]
    first = None
    for plugin in plugins:
        messages, length = payload(server, plugin)
        size = (length + messages * decode.MESSAGE_HEADER_BYTES) / changes
        cpu = fast_runs[plugin.name].cpu / changes * 1e6
        speed = changes / slow_runs[plugin.name].seconds
        first = first or (size, cpu, speed)
        lines.append("  %-16s %9.1f %8.2f | %9.2f %8.2f | %14.0f %8.2f" % (
            plugin.name, size, size / first[0], cpu, cpu / first[1], speed, speed / first[2]))
    server.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    return lines + [""]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=0.2, help="size of the workloads (default 0.2 of those of decode.py)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabit", type=float, default=20, help="what the slow link carries each second (default 20)")
    arguments = parser.parse_args()
    with cluster.Cluster() as server:
        server.sql(decode.TABLE)
        slow = through(server, SlowLink(server, arguments.megabit * 1e6 / 8))
        lines = ["a slow link of %g Mbit/s; ratios to the stream without compression; medians of %d" % (arguments.megabit, arguments.rounds), ""]
        lines += run_case(server, slow, "large: inserts, updates, deletes in 3 transactions", decode.write_large, arguments)
        lines += run_case(server, slow, "small: transactions of one row", decode.write_small, arguments)
        report("slow_link", server, lines)


if __name__ == "__main__":
    main()
