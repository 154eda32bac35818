# demo/cluster.py
#     A throwaway PostgreSQL cluster with the applier beside it; nothing of it outlives the demo.
#
# Everything is below one temporary directory and listens on a socket there.  Both processes are direct children that
# the kernel ends when we die, however that happens.
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time

import psycopg2

_PR_SET_PDEATHSIG = 1

_SETTINGS = """
listen_addresses = ''
wal_level = logical
max_wal_senders = 4
max_replication_slots = 4
shared_buffers = 256MB
max_wal_size = 4GB
autovacuum_naptime = 10s
timezone = 'UTC'
"""


class Failure(Exception):
    """Something that the person at the terminal should read instead of a traceback."""


class Cluster:
    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="pgtrickle-demo-")
        self.conninfo = "host=%s port=5432 dbname=postgres user=postgres" % self.directory
        self._server = None
        self._applier = None

    def start(self):
        data = os.path.join(self.directory, "data")
        self._run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "--encoding=UTF8", "--locale=C",
                  "--no-sync")
        with open(os.path.join(data, "postgresql.conf"), "a") as conf:
            conf.write(_SETTINGS)
            conf.write("unix_socket_directories = '%s'\n" % self.directory)
            if "\noutput_plugin_libraries\t" in "\n" + self._run("postgres", "--describe-config"):
                conf.write("output_plugin_libraries = 'pgoutput, test_decoding, pgtrickle_decoder'\n")
        self._server = self._spawn("server", ["postgres", "-D", data], signal.SIGQUIT)
        self._wait_for_server()
        self._run("pgtrickle", "setup", "--dbname", self.conninfo)

    def start_applier(self):
        self._applier = self._spawn("applier", ["pgtrickle", "run", "--dbname", self.conninfo], signal.SIGKILL)
        connection = self.connect()
        self._wait("applier", self._applier, lambda: self.query(
            connection, "SELECT count(*) FROM pg_replication_slots WHERE active AND plugin = 'pgtrickle_decoder'")[0][0])
        connection.close()

    def stop(self):
        """Ends what runs and removes everything; may be called at any moment, also twice."""
        for process, stop_signal in ((self._applier, signal.SIGTERM), (self._server, signal.SIGINT)):
            if process is not None and process.poll() is None:
                process.send_signal(stop_signal)
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGQUIT if process is self._server else signal.SIGKILL)
                    process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def check(self):
        """Raises Failure when a process has ended by itself."""
        for name, process in (("server", self._server), ("applier", self._applier)):
            if process is not None and process.poll() is not None:
                raise Failure("the %s has ended with status %d; the end of its log:\n%s"
                              % (name, process.returncode, self.log_tail(name)))

    def log_tail(self, name):
        try:
            with open(os.path.join(self.directory, name + ".log"), errors="replace") as log:
                return "".join(log.readlines()[-20:])
        except OSError as error:
            return "(%s)" % error.strerror

    def connect(self):
        connection = psycopg2.connect(self.conninfo, application_name="demo")
        connection.autocommit = True
        return connection

    @staticmethod
    def query(connection, sql, parameters=None):
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []

    def _run(self, *command):
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        except OSError as error:
            raise Failure("could not run the program \"%s\": %s" % (command[0], error.strerror))
        if done.returncode != 0:
            raise Failure("%s has failed:\n%s" % (" ".join(command[:2]), done.stdout))
        return done.stdout

    def _spawn(self, name, command, death_signal):
        libc = ctypes.CDLL(None)
        with open(os.path.join(self.directory, name + ".log"), "a") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, death_signal))

    def _wait_for_server(self):
        def answers():
            try:
                self.connect().close()
                return True
            except psycopg2.OperationalError:
                return False
        self._wait("server", self._server, answers)

    def _wait(self, name, process, condition):
        deadline = time.monotonic() + 60
        while not condition():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failure("the %s did not start; the end of its log:\n%s" % (name, self.log_tail(name)))
            time.sleep(0.05)
