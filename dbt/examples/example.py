# dbt/examples/example.py
#     An example project on a throwaway cluster with an applier, for the command `run` and for the tests.
#
# The project is copied into the cluster's directory, so nothing is written into the source tree.  The commands that an example's README shows in
# blocks marked `sh` are run there by bash, in the order of the README: what it shows is what is run.  psql finds the cluster by PGHOST, dbt by
# PGHOST, too, in the example's profiles.yml.
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(os.path.dirname(PACKAGE), "demo"))

from cluster import Cluster, Failure  # noqa: E402

NAMES = sorted(name for name in os.listdir(HERE) if os.path.exists(os.path.join(HERE, name, "README.md")))


class ExampleCluster(Cluster):
    """The example's database is called `analytics`, as in the texts about dbt and Postgres."""

    def start(self):
        super().start()
        connection = self.connect()
        self.query(connection, "CREATE DATABASE analytics")
        connection.close()
        self.conninfo = self.conninfo.replace("dbname=postgres", "dbname=analytics")
        self._run("pgtrickle", "setup", "--dbname", self.conninfo)

    def stop_applier(self):
        self._applier.terminate()
        self._applier.wait(timeout=20)


class Example:
    def __init__(self, name, python=sys.executable):
        self.name = name
        self.binaries = os.path.dirname(python)
        self.cluster = ExampleCluster()
        self.directory = os.path.join(self.cluster.directory, name)
        self.connection = None
        self.user = "alice"

    def start(self):
        self.cluster.start()
        self.cluster.start_applier()
        shutil.copytree(os.path.join(HERE, self.name), self.directory)
        for folder, _, files in os.walk(self.directory):
            if "packages.yml" in files:
                self._point_to_package(os.path.join(folder, "packages.yml"))
        self.connection = self.cluster.connect()

    @staticmethod
    def _point_to_package(path):
        with open(path) as file:
            text = file.read()
        with open(path, "w") as file:
            file.write(re.sub(r"local: (\.\./?)+$", "local: " + PACKAGE, text, flags=re.M))

    def stop(self):
        if self.connection is not None:
            self.connection.close()
        self.cluster.stop()

    @property
    def environment(self):
        return dict(os.environ, PGHOST=self.cluster.directory, PGPORT="5432", PGUSER="postgres", PGDATABASE="analytics", USER=self.user,
                    DBT_PG_PASSWORD="secret", DBT_PROFILES_DIR=self.directory, DBT_SEND_ANONYMOUS_USAGE_STATS="false", DO_NOT_TRACK="1",
                    PATH=self.binaries + os.pathsep + os.environ["PATH"], HOME=self.cluster.directory)

    def query(self, sql):
        return self.cluster.query(self.connection, sql)

    def value(self, sql):
        return self.query(sql)[0][0]

    def run(self, *command, check=True, output=subprocess.PIPE, **more):
        """Runs a program in the project; what it wrote."""
        done = subprocess.run(command, cwd=self.directory, env=dict(self.environment, **more), stdout=output, stderr=subprocess.STDOUT, text=True)
        if check and done.returncode != 0:
            raise Failure("%s has failed:\n%s" % (" ".join(command), done.stdout or ""))
        return done.stdout

    def dbt(self, *arguments, check=True, **more):
        return self.run("dbt", "--no-use-colors", *arguments, check=check, **more)

    def start_dbt(self, *arguments, **more):
        return subprocess.Popen(["dbt", *arguments], cwd=self.directory, env=dict(self.environment, **more), stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)

    def commands(self):
        with open(os.path.join(self.directory, "README.md")) as file:
            return re.findall(r"^```sh\n(.*?)^```", file.read(), re.M | re.S)

    def follow_readme(self, output=subprocess.PIPE):
        """Runs what the README shows; the output of all of it."""
        return "".join(self.run("bash", "-euc", "set -x\n" + block, output=output) or "" for block in self.commands())
