# dbt/tests/test_upstream.py
#     Acceptance row X11: a project that was written for pg_trickle's own dbt package works with this one, as it stands.
#
# The first half is a project in the manner of such ones, through the commands that they go through.  The second runs the projects of pg_trickle
# themselves, from a clone of its repository named in PGTRICKLE_UPSTREAM; nothing of them is changed but where the package comes from.
import os
import shutil
import subprocess
import sys

import pytest
from dbt.tests.util import run_dbt
from helpers import assert_current, is_stream_table, one, option, rows, run, statuses

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.dirname(HERE)

PAYMENTS = "id,account,cents,paid_at\n" + "".join("%d,%d,%d,2026-02-%02d 08:00:00\n" % (i, 7 + i % 4, 100 * i, 1 + i % 28) for i in range(1, 41))
UNITS = "id,parent,title\n1,,Works\n2,1,North\n3,1,South\n4,2,Mill\n5,2,Yard\n6,3,Dock\n"
STAFF = "id,unit,wage\n" + "".join("%d,%d,%d\n" % (i, 2 + i % 5, 1000 + i) for i in range(1, 21))

# The seed's table has a primary key only after its hook.
SEEDS = """
seeds:
  - name: payments
    config:
      post_hook: "{% raw %}do $$ begin if not exists (select from pg_constraint where conrelid = to_regclass('{{ this }}') and contype = 'p')
        then execute 'alter table {{ this }} add primary key (id)'; end if; end $${% endraw %}"
  - name: units
    config: {column_types: {id: integer, parent: integer}}
  - name: staff
    config: {column_types: {id: integer, unit: integer, wage: numeric}}
"""

HEALTH = """
models:
""" + "".join("""
  - name: %s
    tests:
      - dbt_pgtrickle.stream_table_healthy:
          warn_seconds: 600
    columns:
      - name: account
        tests: [not_null, unique]
""" % name for name in ("per_account", "extremes", "by_auto", "fused", "partitioned"))


def model(query, schedule="'1m'", mode="DIFFERENTIAL", more=""):
    return "{{ config(materialized='stream_table', schedule=%s, refresh_mode='%s'%s) }}\n%s" % (schedule, mode, more, query)


SUMS = "select account, sum(cents) as cents, count(*) as payments from {{ ref('payments') }} group by account"

MODELS = {
    "per_account": model(SUMS),
    "extremes": model("select account, max(cents) as most, min(cents) as least from {{ ref('payments') }} group by account", "'5m'", "FULL"),
    "by_auto": model(SUMS, "'2m'", "AUTO"),
    "fused": model(SUMS, more=", fuse='auto', fuse_ceiling=100000, fuse_sensitivity=3"),
    "partitioned": model(SUMS, more=", partition_by='account'"),
    "stg_units": "{{ config(materialized='view') }} select id, parent, title from {{ ref('units') }}",
    "stg_staff": "{{ config(materialized='view') }} select id, unit, wage from {{ ref('staff') }}",
    "unit_tree": model("""with recursive tree as (
            select id, title, parent, title as path, 0 as depth from {{ ref('stg_units') }} where parent is null
            union all
            select u.id, u.title, u.parent, tree.path || '/' || u.title, tree.depth + 1 from {{ ref('stg_units') }} u join tree on u.parent = tree.id)
        select id, title, path, depth from tree""", "none"),
    "unit_stats": model("""select t.id, t.path, t.depth, count(s.id) as heads, coalesce(sum(s.wage), 0) as wages, coalesce(avg(s.wage), 0) as wage
        from {{ ref('unit_tree') }} t left join {{ ref('stg_staff') }} s on s.unit = t.id group by t.id, t.path, t.depth""", "none"),
    "divisions": model("select split_part(path, '/', 2) as division, sum(heads) as heads, sum(wages) as wages from {{ ref('unit_stats') }} where depth >= 1 group by 1"),
}

STREAM_TABLES = [name for name, text in MODELS.items() if "stream_table" in text]

# What such projects ask the catalog.
CATALOG_TESTS = {
    "all_active": "select pgt_name, status from pgtrickle.pgt_stream_tables where pgt_schema = '{{ target.schema }}' and status not in ('ACTIVE', 'SUSPENDED')",
    "no_errors": "select pgt_name, consecutive_errors from pgtrickle.pgt_stream_tables where pgt_schema = '{{ target.schema }}' and consecutive_errors > 0",
    "fuse_is_set": """select pgt_name from pgtrickle.pgt_stream_tables where pgt_schema = '{{ target.schema }}' and pgt_name = 'fused'
        and (fuse_mode, fuse_ceiling, fuse_sensitivity) is distinct from ('auto', 100000, 3)""",
    "partition_key_is_set": """select pgt_name from pgtrickle.pgt_stream_tables where pgt_schema = '{{ target.schema }}' and pgt_name = 'partitioned'
        and st_partition_key is distinct from 'account'""",
    "all_refreshed": """select s.pgt_name from pgtrickle.pgt_stream_tables s left join pgtrickle.pgt_refresh_history h on h.pgt_id = s.pgt_id and h.status = 'COMPLETED'
        where s.pgt_schema = '{{ target.schema }}' and s.is_populated and h.pgt_id is null""",
    "sums_are_right": "select account, sum(cents), count(*) from {{ ref('payments') }} group by account except select account, cents, payments from {{ ref('per_account') }}",
}


class TestProjectOfUpstream:
    @pytest.fixture(scope="class")
    def seeds(self):
        return {"payments.csv": PAYMENTS, "units.csv": UNITS, "staff.csv": STAFF, "seeds.yml": SEEDS.replace("{% raw %}", "").replace("{% endraw %}", "")}

    @pytest.fixture(scope="class")
    def models(self):
        return {"health.yml": HEALTH, **{name + ".sql": text for name, text in MODELS.items()}}

    @pytest.fixture(scope="class")
    def tests(self):
        return {name + ".sql": text for name, text in CATALOG_TESTS.items()}

    def all_tests_pass(self):
        results = statuses("test")
        assert set(results.values()) == {"pass"} and len(results) == 5 * 3 + len(CATALOG_TESTS)

    def operation(self, *arguments):
        run_dbt(["run-operation", *arguments])

    def test_X11_the_commands_of_its_projects(self, project):
        run("seed")
        created = run("run")
        assert {name for name, message in created.items() if message == "CREATE STREAM TABLE"} == set(STREAM_TABLES)
        assert all(option(project, name, "is_populated") for name in STREAM_TABLES)
        self.all_tests_pass()
        assert {name: message for name, message in run("run").items() if name in STREAM_TABLES} == dict.fromkeys(STREAM_TABLES, "UNCHANGED")
        rebuilt = run("run", "--full-refresh")
        assert all(rebuilt[name].startswith("REBUILD STREAM TABLE") for name in STREAM_TABLES)
        self.all_tests_pass()
        self.operation("refresh_all_stream_tables")
        self.operation("pgtrickle_refresh", "--args", "{model_name: per_account}")
        self.operation("pgtrickle_check_freshness")
        self.operation("pgtrickle_check_cdc_health")
        assert_current(project, *STREAM_TABLES)
        assert rows(project, "select division, heads from {schema}.divisions order by 1") == [("North", 12), ("South", 8)]

    def test_X11_the_functions_that_its_projects_call(self, project):
        assert one(project, "select pgtrickle.drain(timeout_s => 30)") and one(project, "select pgtrickle.is_drained()") in (True, False)
        assert rows(project, """select s.pgt_name from pgtrickle.pg_stat_stream_tables s where s.pgt_schema = '{schema}'
            and (s.total_refreshes = 0 or s.stale or not s.is_populated or s.last_refresh_at is null)""") == []
        assert one(project, """select count(*) from pgtrickle.pgt_dependencies d join pgtrickle.pgt_stream_tables s using (pgt_id)
            where s.pgt_schema = '{schema}' and d.source_type = 'STREAM_TABLE'""") == 2
        assert one(project, "select count(*) from pgtrickle.check_cdc_health() where alert is not null and source_table like '%{schema}%'") == 0

    def test_X11_dropping_all(self, project):
        self.operation("drop_all_stream_tables")
        assert not any(is_stream_table(project, name) for name in STREAM_TABLES)


@pytest.fixture(scope="module")
def upstream():
    """Its projects, on a cluster without other stream tables: one of their tests looks at all there are."""
    from cluster import Cluster

    source = os.environ.get("PGTRICKLE_UPSTREAM")
    if not source:
        pytest.skip("PGTRICKLE_UPSTREAM is not set to a clone of pg_trickle")
    cluster = Cluster()
    try:
        cluster.start()
        cluster.start_applier()
        yield UpstreamProjects(source, cluster)
    finally:
        cluster.stop()


class UpstreamProjects:
    def __init__(self, source, cluster):
        self.source = source
        self.cluster = cluster

    def unpack(self, tmp_path, project):
        """A copy of a project in a folder beside which its package is expected."""
        self.directory = str(tmp_path / "package" / "project")
        shutil.copytree(os.path.join(self.source, project), self.directory)
        for name in ("dbt_project.yml", "macros"):
            os.symlink(os.path.join(PACKAGE, name), str(tmp_path / "package" / name))
        with open(os.path.join(self.directory, "packages.yml"), "w") as file:
            file.write("packages:\n  - local: ../\n")
        self.dbt("deps")

    def dbt(self, *arguments):
        environment = dict(os.environ, PGHOST=self.cluster.directory, PGPORT="5432", PGUSER="postgres", PGDATABASE="postgres", DBT_PROFILES_DIR=self.directory)
        environment.pop("DBT_LOG_PATH", None)
        done = subprocess.run([os.path.join(os.path.dirname(sys.executable), "dbt"), "--no-use-colors", *arguments], cwd=self.directory, env=environment,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
        return done.stdout


def test_X11_integration_tests_of_upstream(upstream, tmp_path):
    upstream.unpack(tmp_path, "dbt-pgtrickle/integration_tests")
    for command in ("seed", "run", "test", "run", "run --full-refresh", "test", "run-operation refresh_all_stream_tables"):
        upstream.dbt(*command.split())
    upstream.dbt("run-operation", "pgtrickle_refresh", "--args", "{model_name: order_totals}")
    upstream.dbt("run-operation", "pgtrickle_check_freshness")
    upstream.dbt("run-operation", "drop_all_stream_tables")


def test_X11_getting_started_of_upstream(upstream, tmp_path):
    upstream.unpack(tmp_path, "examples/dbt_getting_started")
    for command in ("seed", "run", "test"):
        upstream.dbt(*command.split())
