# bench/paced.py
#     Writers at a fixed rate, and how long each of their transactions took: for benchmarks of what writers notice.
import glob
import os
import statistics
import subprocess

from stream_tables import percentile


class PacedWriters:
    """pgbench in the background; its latencies, counted from when each transaction was due, by the moment they ended."""

    def __init__(self, server, script_text, rate):
        self.prefix = os.path.join(server.directory, "writers")
        script = self.prefix + ".sql"
        with open(script, "w") as out:
            out.write(script_text)
        self.process = subprocess.Popen(
            [server.program("pgbench"), "-n", "-c", "4", "-T", "3600", "-R", str(rate), "-f", script, "-l",
             "--log-prefix", self.prefix, server.conninfo],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def latencies(self, since, until):
        found = []
        for name in glob.glob(self.prefix + ".*"):
            if name.endswith(".sql"):
                continue
            with open(name) as log:
                for line in log:
                    words = line.split()
                    if len(words) < 6:
                        continue
                    ended = float(words[4]) + float(words[5]) / 1e6
                    if since <= ended <= until:
                        found.append(float(words[2]) / 1000)
        return found


def describe(values):
    return "p50 %7.2f   p99 %8.2f   longest %8.2f ms   n %d" % (
        statistics.median(values), percentile(values, 0.99), max(values), len(values))
