# dbt/tests/conftest.py
#     A throwaway cluster with a running applier for all tests, and projects that use the package as a user's project does.
#
# The cluster is the demo's.  dbt's own fixture `project` (dbt-tests-adapter) makes a project and a schema for each test class; what is
# here adds the package, the dispatch block of the package's README, and the roles that some suites name.
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(os.path.dirname(PACKAGE), "demo"))
sys.path.insert(0, os.path.join(PACKAGE, "python"))  # as if it were installed; dbt finds it as it finds installed ones

from cluster import Cluster  # noqa: E402

pytest_plugins = ["dbt.tests.fixtures.project"]

os.environ.setdefault("DBT_SEND_ANONYMOUS_USAGE_STATS", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
for number in (1, 2, 3):
    os.environ["DBT_TEST_USER_%d" % number] = "dbt_test_user_%d" % number

DISPATCH = [{"macro_namespace": "dbt", "search_order": ["test", "dbt_pgtrickle", "dbt"]}]


class RestartableCluster(Cluster):
    def stop_applier(self):
        self._applier.terminate()
        self._applier.wait(timeout=20)

@pytest.fixture(scope="session")
def cluster():
    cluster = RestartableCluster()
    try:
        cluster.start()
        cluster.start_applier()
        connection = cluster.connect()
        for number in (1, 2, 3):
            cluster.query(connection, "CREATE ROLE dbt_test_user_%d" % number)
        connection.close()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def db(cluster):
    """A connection of its own, each statement a transaction."""
    connection = cluster.connect()
    yield lambda sql, parameters=None: cluster.query(connection, sql, parameters)
    connection.close()


@pytest.fixture
def applier_stopped(cluster):
    """Without an applier for the time of one test."""
    cluster.stop_applier()
    yield
    cluster.start_applier()


@pytest.fixture(scope="class")
def dbt_profile_target(cluster):
    return {"type": "postgres", "threads": 4, "host": cluster.directory, "port": 5432, "user": "postgres", "pass": "",
            "dbname": "postgres"}


@pytest.fixture(scope="class")
def packages():
    return {"packages": [{"local": PACKAGE}]}


@pytest.fixture(scope="class")
def dbt_project_yml(project_root, project_config_update):
    """As dbt's own fixture makes it, with the dispatch block that the README asks for."""
    import yaml
    from dbt.tests.util import write_file

    config = {"name": "test", "profile": "test", "flags": {"send_anonymous_usage_stats": False}, "dispatch": DISPATCH}
    if isinstance(project_config_update, str):
        config.update(yaml.safe_load(project_config_update))
    elif project_config_update:
        config.update(project_config_update)
    write_file(yaml.safe_dump(config), project_root, "dbt_project.yml")
    return config


@pytest.fixture(scope="class", autouse=True)
def installed_package(request):
    """
    What `dbt deps` does with a local package; running it here would leave the fixtures without their adapter.  Afterwards the further schemas of
    the project go: dbt drops the first one only, and stream tables that read from that would fail before the eyes of the next class.
    """
    if request.cls is None:
        yield
        return
    project = request.getfixturevalue("project")
    os.makedirs(os.path.join(project.project_root, "dbt_packages"), exist_ok=True)
    os.symlink(PACKAGE, os.path.join(project.project_root, "dbt_packages", "dbt_pgtrickle"))
    yield
    project.run_sql("do $$ declare name text; begin for name in select nspname from pg_namespace where starts_with(nspname, '%s_')"
                    " loop execute format('drop schema %%I cascade', name); end loop; end $$" % project.test_schema)


@pytest.fixture(scope="class")
def logs_dir(prefix, tmp_path_factory):
    """Away from the source tree, which may belong to somebody else."""
    os.environ["DBT_LOG_PATH"] = str(tmp_path_factory.mktemp("logs") / prefix)
    yield os.environ["DBT_LOG_PATH"]
    del os.environ["DBT_LOG_PATH"]
