# bench/cluster.py
#     A throwaway PostgreSQL cluster for benchmarks, and what readers of results ask about the machine.
#
# Everything lives below one temporary directory and listens on a socket there.  SQL goes through psql,
# so that nothing but Python's standard library is needed.
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import time

# What every benchmark runs with unless it says otherwise: no flushes to disk, nothing in the background.
SETTINGS = {
    "listen_addresses": "''",
    "wal_level": "logical",
    "max_wal_senders": 20,
    "max_replication_slots": 30,
    "shared_buffers": "256MB",
    "max_wal_size": "32GB",
    "checkpoint_timeout": "1h",
    "fsync": "off",
    "autovacuum": "off",
    "timezone": "'UTC'",
}


class Cluster:
    """A server on its own data directory: use it in a `with` statement."""

    def __init__(self, settings=None, output_plugins=()):
        self.bindir = run(os.environ.get("PG_CONFIG", "pg_config"), "--bindir")
        self.directory = tempfile.mkdtemp(prefix="pgtrickle-bench-")
        self.data = os.path.join(self.directory, "data")
        self.conninfo = "host=%s port=5432 dbname=postgres user=postgres" % self.directory
        self.settings = dict(SETTINGS, **(settings or {}))
        self._output_plugins = output_plugins
        self._server = None

    def __enter__(self):
        try:
            run(self.program("initdb"), "-D", self.data, "-U", "postgres", "-A", "trust", "--encoding=UTF8",
                "--locale=C", "--no-sync")
            self._configure()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def pid(self):
        """Of the postmaster."""
        return self._server.pid

    def program(self, name):
        return os.path.join(self.bindir, name)

    def sql(self, statements, **variables):
        """Runs statements, returns the rows of the last that had any, as text."""
        options = [item for name, value in variables.items() for item in ("-v", "%s=%s" % (name, value))]
        return run(self.program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", *options, "-d", self.conninfo,
                   stdin=statements)

    def _configure(self):
        with open(os.path.join(self.data, "postgresql.conf"), "a") as conf:
            for name, value in self.settings.items():
                conf.write("%s = %s\n" % (name, value))
            conf.write("unix_socket_directories = '%s'\n" % self.directory)
            if "\noutput_plugin_libraries\t" in "\n" + run(self.program("postgres"), "--describe-config"):
                conf.write("output_plugin_libraries = '%s'\n"
                           % ", ".join(["pgoutput", "test_decoding", "pgtrickle_decoder", *self._output_plugins]))

    def _start(self):
        log = open(os.path.join(self.directory, "server.log"), "a")
        self._server = subprocess.Popen([self.program("postgres"), "-D", self.data], stdin=subprocess.DEVNULL,
                                        stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 60
        while subprocess.run([self.program("pg_isready"), "-q", "-d", self.conninfo]).returncode != 0:
            if self._server.poll() is not None or time.monotonic() > deadline:
                with open(log.name) as text:
                    raise SystemExit("the server did not start:\n" + text.read()[-3000:])
            time.sleep(0.05)


def run(*command, stdin=""):
    """The output of a command; what it says when it fails ends the benchmark."""
    done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit("%s failed:\n%s%s" % (command[0], done.stdout[-1000:], done.stderr[-3000:]))
    return done.stdout.rstrip("\n")


def cpu_seconds(pid):
    """User and system time of a process; None when it is gone."""
    try:
        with open("/proc/%d/stat" % pid) as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def describe_machine(cluster):
    """Lines for the head of a result."""
    with open("/proc/cpuinfo") as cpuinfo:
        models = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    with open("/proc/meminfo") as meminfo:
        memory_kb = int(meminfo.readline().split()[1])
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    # A copy of the tree without git, for another server version, is told.
    commit = os.environ.get("PGTRICKLE_COMMIT", "")
    if not commit and shutil.which("git"):
        commit = subprocess.run(["git", "-c", "safe.directory=*", "-C", top, "describe", "--always", "--dirty"],
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()
    return [
        "commit    %s" % (commit or "unknown"),
        "machine   %d x %s, %.0f GB, Linux %s" % (len(models), models[0] if models else platform.machine(),
                                                  memory_kb / 1024 / 1024, platform.release()),
        "load      %.1f processes in the minute before" % os.getloadavg()[0],
        "server    PostgreSQL %s" % cluster.sql("SHOW server_version"),
        "settings  %s" % ", ".join("%s %s" % (name, value) for name, value in cluster.settings.items()
                                   if name not in ("listen_addresses", "timezone")),
    ]
