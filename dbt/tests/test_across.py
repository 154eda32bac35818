# dbt/tests/test_across.py
#     Acceptance rows X: names, hooks, grants, other materializations, interruptions; what has to work whatever the project is about.
import os
import signal
import subprocess
import sys
import time

import pytest
from dbt.tests.util import run_dbt, run_dbt_and_capture, write_file

STREAM = "{{ config(materialized='pgtrickle', schedule='1s'%s) }}\n"
SIMPLE = STREAM % "" + "select k, count(*) as n from {{ source('app', 'items') }} group by k"
SOURCES = """
version: 2
sources:
  - name: app
    schema: "{{ target.schema }}"
    tables:
      - name: items
"""


class Across:
    @pytest.fixture(scope="class")
    def models(self):
        return {"schema.yml": SOURCES}

    @pytest.fixture(scope="class", autouse=True)
    def items(self, project):
        project.run_sql("create table {schema}.items (id int primary key, k int, at timestamptz default now()); insert into {schema}.items select i, i % 4 from generate_series(1, 40) i")

    def put(self, project, name, text):
        write_file(text, project.project_root, "models", name)

    def one(self, project, sql):
        return project.run_sql(sql, fetch="one")[0]

    def right(self, project, name):
        return self.one(project, "select count(*) from pgtrickle.verify($${schema}.%s$$)" % name) == 0

    def is_stream_table(self, project, name):
        return self.one(project, "select count(*) from pgtrickle.pgt_stream_tables where pgt_schema = '{schema}' and pgt_name = '%s'" % name) == 1

    def run(self, *arguments, **more):
        return {r.node.name: r.message for r in run_dbt(list(arguments), **more)}


class TestNames(Across):
    def test_X01_names_of_all_kinds(self, project):
        long_name = "a_name_that_is_as_long_as_the_server_lets_names_be_63_bytes_ok_"
        assert len(long_name) == 63
        self.put(project, "Mixed.sql", STREAM % ", alias='Mixed Case'" + "select id as \"Id\", k as \"select\" from {{ source('app', 'items') }}")
        self.put(project, "over_mixed.sql", STREAM % ", alias='%s'" % long_name + "select \"select\" as k, count(*) as n from {{ ref('Mixed') }} group by 1")
        self.put(project, "elsewhere.sql", STREAM % ", schema='other'" + "select sum(n) as n from {{ ref('over_mixed') }}")
        assert set(self.run("run").values()) == {"CREATE STREAM TABLE"}
        project.run_sql("insert into {schema}.items values (100, 7)")
        assert self.right(project, '"Mixed Case"') and self.right(project, long_name)
        assert self.one(project, "select count(*) from pgtrickle.verify('{schema}_other.elsewhere')") == 0
        assert set(self.run("run").values()) == {"UNCHANGED"}
        assert set(self.run("run", "--full-refresh").values()) <= {"REBUILD STREAM TABLE: full refresh requested: replaced in place"}
        assert self.right(project, '"Mixed Case"')

    def test_X03_constructs_that_change_by_themselves(self, project):
        self.put(project, "recent.sql", STREAM % "" + "select id from {{ source('app', 'items') }} where at > now() - interval '1 hour'")
        self.put(project, "whose.sql", STREAM % "" + "select id, current_user::text as reader from {{ source('app', 'items') }}")
        self.put(project, "few.sql", STREAM % "" + "select id from {{ source('app', 'items') }} limit 3")
        assert self.run("run", "--select", "recent", "whose", "few") == dict.fromkeys(("recent", "whose", "few"), "CREATE STREAM TABLE")
        project.run_sql("insert into {schema}.items values (101, 7)")
        assert self.right(project, "recent") and self.right(project, "whose") and self.right(project, "few")
        self.put(project, "dice.sql", STREAM % "" + "select id, random() as r from {{ source('app', 'items') }}")
        assert "random" in self.run("run", "--select", "dice", expect_pass=False)["dice"]
        assert self.one(project, "select to_regclass('{schema}.dice')") is None

    def test_X04_ephemeral_header_and_temporary_tables(self, project):
        self.put(project, "few_items.sql", "{{ config(materialized='ephemeral') }} select * from {{ source('app', 'items') }} where id < 10")
        self.put(project, "of_few.sql", STREAM % "" + "select k, count(*) as n from {{ ref('few_items') }} group by k")
        assert self.run("run", "--select", "of_few") == {"of_few": "CREATE STREAM TABLE"}
        assert self.right(project, "of_few")
        self.put(project, "headed.sql", STREAM % "" + "{% call set_sql_header(config) %} set search_path = pg_temp; {% endcall %} select 1 as x")
        assert "sql_header cannot be used" in self.run("run", "--select", "headed", expect_pass=False)["headed"]
        self.put(project, "of_temporary.sql", STREAM % ", pre_hook='create temporary table t (a int)'" + "select a from t")
        assert "temporary" in self.run("run", "--select", "of_temporary", expect_pass=False)["of_temporary"]


class TestChanges(Across):
    def test_X05_another_materialization_and_plain_drops(self, project):
        self.put(project, "thing.sql", SIMPLE)
        self.run("run", "--select", "thing")
        for other in ("table", "view"):
            self.put(project, "thing.sql", SIMPLE.replace("materialized='pgtrickle', schedule='1s'", "materialized='%s'" % other))
            self.run("run", "--select", "thing")
            assert not self.is_stream_table(project, "thing")
            self.put(project, "thing.sql", SIMPLE)
            assert self.run("run", "--select", "thing") == {"thing": "CREATE STREAM TABLE"}
            assert self.right(project, "thing")
        project.run_sql("drop table {schema}.thing cascade")
        assert not self.is_stream_table(project, "thing")
        project.run_sql("insert into {schema}.items values (200, 1)")
        assert self.run("run", "--select", "thing") == {"thing": "CREATE STREAM TABLE"}
        assert self.right(project, "thing")
        assert self.one(project, "select count(*) from pg_class where relname like 'thing%\\_\\_dbt%'") == 0

    def test_X06_grants_come_and_go(self, project):
        granted = """select coalesce(string_agg(distinct grantee::text, ' ' order by grantee::text), '') from information_schema.role_table_grants
            where table_schema = '{schema}' and table_name = 'granted' and grantee like 'dbt_test%'"""
        for users, expected in ((["dbt_test_user_1"], "dbt_test_user_1"), (["dbt_test_user_2", "dbt_test_user_3"], "dbt_test_user_2 dbt_test_user_3"),
                                (["dbt_test_user_2"], "dbt_test_user_2"), ([], "")):
            self.put(project, "granted.sql", SIMPLE.replace("schedule='1s'", "schedule='1s', grants={'select': %s}" % users))
            assert list(self.run("run", "--select", "granted").values())[0] in ("CREATE STREAM TABLE", "UNCHANGED")
            assert self.one(project, granted) == expected

    def test_X07_hooks(self, project):
        hooks = """, pre_hook=["insert into {{ target.schema }}.log values ('before')", {'sql': 'vacuum {{ target.schema }}.log', 'transaction': false}],
            post_hook=["insert into {{ target.schema }}.log values ('after')", "analyze {{ this }}", {'sql': 'vacuum {{ this }}', 'transaction': false}]"""
        project.run_sql("create table {schema}.log (what text)")
        self.put(project, "hooked.sql", SIMPLE.replace("schedule='1s'", "schedule='1s'" + hooks))
        assert self.run("run", "--select", "hooked") == {"hooked": "CREATE STREAM TABLE"}
        assert self.run("run", "--select", "hooked") == {"hooked": "UNCHANGED"}
        assert project.run_sql("select what, count(*) from {schema}.log group by 1 order by 1", fetch="all") == [("after", 2), ("before", 2)]
        self.put(project, "failing.sql", SIMPLE.replace("schedule='1s'", "schedule='1s', post_hook='select 1 / 0'"))
        assert "division by zero" in self.run("run", "--select", "failing", expect_pass=False)["failing"]
        assert self.one(project, "select to_regclass('{schema}.failing')") is None and not self.is_stream_table(project, "failing")

    def test_X09_versions(self, project):
        self.put(project, "totals_v1.sql", SIMPLE)
        self.put(project, "totals_v2.sql", SIMPLE.replace("count(*) as n", "count(*) as n, max(id) as latest"))
        self.put(project, "totals_now.sql", "{{ config(materialized='view') }} select * from {{ ref('totals') }}")
        self.put(project, "versions.yml", "version: 2\nmodels:\n  - name: totals\n    latest_version: 2\n    versions:\n      - v: 1\n      - v: 2\n")
        run_dbt(["run", "--select", "totals", "totals_now"])
        assert self.right(project, "totals_v1") and self.right(project, "totals_v2")
        assert self.one(project, "select max(latest) from {schema}.totals_now") == self.one(project, "select max(id) from {schema}.items")
        run_dbt(["run", "--select", "totals", "totals_now"])
        assert self.right(project, "totals_v2") and self.one(project, "select count(*) from {schema}.totals_now") == 4
        os.remove(os.path.join(project.project_root, "models", "totals_now.sql"))

    @pytest.fixture
    def applier_away(self, cluster):
        cluster._applier.terminate()
        cluster._applier.wait(timeout=20)
        yield
        cluster.start_applier()

    def test_X10_without_an_applier(self, project, applier_away):
        self.put(project, "early.sql", SIMPLE)
        results, output = run_dbt_and_capture(["run", "--select", "early"])
        assert results[0].message == "CREATE STREAM TABLE" and "no applier is connected" in output
        assert self.one(project, "select sum(n) = (select count(*) from {schema}.items) from {schema}.early")
        project.run_sql("insert into {schema}.items values (300, 1)")

    def test_X10_and_then_with_one(self, project):
        assert self.one(project, "select pgtrickle.wait_fresh('{schema}.early', '30s')")
        assert self.right(project, "early")


class TestInterruptions(Across):
    def test_X08_fail_fast_and_retry(self, project):
        for name in ("one", "two", "three"):
            self.put(project, name + ".sql", SIMPLE)
        self.put(project, "zero.sql", STREAM % "" + "select 1 / (k - k) as x from {{ source('app', 'items') }}")
        self.put(project, "after_zero.sql", STREAM % "" + "select x from {{ ref('zero') }}")
        statuses = {r.node.name: str(r.status) for r in run_dbt(["run", "--threads", "8"], expect_pass=False)}
        assert statuses == {"one": "success", "two": "success", "three": "success", "zero": "error", "after_zero": "skipped"}
        assert "zero" in self.run("run", "--fail-fast", "--select", "zero", "after_zero", expect_pass=False)
        run_dbt(["run"], expect_pass=False)
        self.put(project, "zero.sql", STREAM % "" + "select 1 / (k + 1) as x from {{ source('app', 'items') }}")
        assert self.run("retry") == {"zero": "CREATE STREAM TABLE", "after_zero": "CREATE STREAM TABLE"}
        project.run_sql("insert into {schema}.items values (400, 3)")
        assert all(self.right(project, name) for name in ("one", "two", "three", "zero", "after_zero"))

    def test_X08_interrupted(self, project, cluster):
        # its first fill goes on until we let it, so that no machine is too fast or too slow
        project.run_sql("""create function {schema}.held(k int) returns int immutable language plpgsql as
            'begin perform pg_advisory_lock_shared(808), pg_advisory_unlock_shared(808); return k; end'""")
        holder = cluster.connect()
        cluster.query(holder, "select pg_advisory_lock(808)")
        self.put(project, "slow.sql", STREAM % "" + "select {{ target.schema }}.held(k) as k, count(*) as n from {{ source('app', 'items') }} group by 1")
        # who runs the tests in the background has them, and their children, ignore this signal
        dbt = subprocess.Popen(["env", "--default-signal=INT", os.path.join(os.path.dirname(sys.executable), "dbt"), "run", "--select", "slow", "--profiles-dir", project.profiles_dir],
                               cwd=project.project_root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        running = "select count(*) from pg_stat_activity where wait_event = 'advisory' and query like '%build_model%slow%' and pid <> pg_backend_pid()"
        deadline = time.monotonic() + 120
        while not self.one(project, running):
            assert dbt.poll() is None and time.monotonic() < deadline, dbt.communicate()[0]
            time.sleep(0.1)
        dbt.send_signal(signal.SIGINT)
        dbt.communicate(timeout=120)
        deadline = time.monotonic() + 60
        while self.one(project, running):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        holder.close()
        assert not self.is_stream_table(project, "slow")
        self.put(project, "slow.sql", SIMPLE)
        assert self.run("run", "--select", "slow") == {"slow": "CREATE STREAM TABLE"}
        assert self.right(project, "slow")
