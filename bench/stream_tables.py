# bench/stream_tables.py
#     A throwaway cluster with stream tables and an applier, and what the benchmarks of the whole pipeline share.
import os
import signal
import statistics
import subprocess
import time

import cluster

HERE = os.path.dirname(os.path.abspath(__file__))


class StreamTables(cluster.Cluster):
    """Cluster plus extension, slot and applier; the applier can be stopped and started."""

    def __enter__(self):
        super().__enter__()
        try:
            cluster.run(self.program("pgtrickle"), "setup", "-d", self.conninfo)
            self._applier = None
            self.start_applier()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *arguments):
        if getattr(self, "_applier", None) is not None:
            self._applier.kill()
            self._applier.wait()
        super().__exit__(*arguments)

    def start_applier(self):
        log = open(os.path.join(self.directory, "applier.log"), "a")
        self._applier = subprocess.Popen([self.program("pgtrickle"), "run", "-d", self.conninfo],
                                         stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while self.sql("SELECT bool_or(active) FROM pg_replication_slots WHERE plugin = 'pgtrickle_decoder'") != "t":
            if self._applier.poll() is not None:
                raise SystemExit("the applier did not start, see %s" % log.name)
            time.sleep(0.02)

    def stop_applier(self):
        self._applier.send_signal(signal.SIGTERM)
        self._applier.wait()
        self._applier = None

    def create(self, name, query, schedule="continuous", mode="DIFFERENTIAL"):
        self.sql("SELECT pgtrickle.create_stream_table('%s', $query$%s$query$, '%s', '%s')"
                 % (name, query, schedule, mode))

    def check(self, *names):
        """Every result is checked: the stream tables equal their queries, and nothing fell back to a full refresh."""
        for name in names:
            differences = self.sql("SELECT count(*) FROM pgtrickle.verify('%s')" % name)
            if differences != "0":
                raise SystemExit("stream table %s differs from its query" % name)
        fallbacks = self.sql("SELECT count(*) FROM pgtrickle.pgt_history WHERE action = 'FULL' AND initiated_by <> 'INITIAL'")
        if fallbacks != "0":
            raise SystemExit("%s refreshes were not by delta" % fallbacks)


# A session that writes, commits, and polls until a query tells that the write has arrived.  The clock starts after the commit has
# returned and stops when the poll sees the row, so the poll's own interval (and its query) are part of every figure.
PROBE = """
CREATE TABLE IF NOT EXISTS bench_latencies (ms double precision);
CREATE OR REPLACE PROCEDURE bench_probe(rounds integer, pause_s double precision, change text, arrived text)
LANGUAGE plpgsql AS $$
DECLARE
    started timestamptz;
    is_there boolean;
BEGIN
    FOR round IN 1 .. rounds LOOP
        EXECUTE format(change, round);
        COMMIT;
        started := clock_timestamp();
        LOOP
            EXECUTE format(arrived, round) INTO is_there;
            EXIT WHEN is_there;
            COMMIT;
            PERFORM pg_sleep(0.0002);
        END LOOP;
        INSERT INTO bench_latencies VALUES (1000 * extract(epoch FROM clock_timestamp() - started));
        COMMIT;
        PERFORM pg_sleep(pause_s);
    END LOOP;
END $$;
"""


def probe(server, rounds, pause_s, change, arrived):
    """Milliseconds from commit to visible, one per round."""
    server.sql(PROBE + "TRUNCATE bench_latencies;")
    server.sql("SET synchronous_commit = on; CALL bench_probe(%d, %f, $c$%s$c$, $a$%s$a$)" % (rounds, pause_s, change, arrived))
    return [float(line) for line in server.sql("SELECT ms FROM bench_latencies").split()]


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def describe(values):
    return "p50 %6.2f ms   p99 %6.2f ms   n %d" % (statistics.median(values), percentile(values, 0.99), len(values))


def report(name, server, lines):
    """Prints, and keeps in bench/results/<name>.txt where it may."""
    text = "\n".join([name, ""] + cluster.describe_machine(server) + [""] + lines) + "\n"
    print(text)
    try:
        os.makedirs(os.path.join(HERE, "results"), exist_ok=True)
        with open(os.path.join(HERE, "results", name + ".txt"), "w") as kept:
            kept.write(text)
    except OSError:
        pass


def timed(function, *arguments):
    started = time.monotonic()
    function(*arguments)
    return time.monotonic() - started
