# dbt/tests/test_elt.py
#     Acceptance rows B02-B08, B10: the warehouse of the ELT text, roles with few rights, changing materializations.
import threading

import pytest
from dbt.tests.util import run_dbt
from helpers import artifact, assert_current, is_stream_table, oid, one, option, put, rows, run, statuses, take_away, wait_fresh

SOURCES = """
sources:
  - name: raw_data
    schema: "{{ target.schema }}"
    tables: [{name: orders}, {name: payments}]
"""

# word for word
STG_ORDERS = """with raw_orders as (
    select * from {{ source('raw_data', 'orders') }}
)

select
    id as order_id,
    user_id,
    order_date,
    lower(status) as order_status -- Standardizing raw strings
from raw_orders
"""
STG_PAYMENTS = """select id as payment_id, order_id, amount from {{ source('raw_data', 'payments') }}
"""
FCT_ORDERS = """with orders as (
    select * from {{ ref('stg_orders') }}
),

order_payments as (
    select * from {{ ref('stg_payments') }}
)

select
    orders.order_id,
    orders.user_id,
    order_payments.amount
from orders
left join order_payments using (order_id)
"""
SCHEMA = """version: 2

models:
  - name: stg_orders
    columns:
      - name: order_id
        tests:
          - unique
          - not_null
      - name: order_status
        tests:
          - accepted_values:
              values: ['placed', 'shipped', 'completed', 'returned']
"""
TABLES = """
create table {schema}.orders (id int, user_id int, order_date date, status text);
create table {schema}.payments (id int primary key, order_id int, amount numeric);
insert into {schema}.orders select i, i % 10, '2026-01-01'::date + i, (array['Placed', 'SHIPPED', 'completed', 'returned'])[1 + i % 4] from generate_series(1, 60) i;
insert into {schema}.payments select i, i * 2, i from generate_series(1, 20) i;
"""


class TestELT:
    @pytest.fixture(scope="class")
    def models(self):
        return {"staging": {"stg_orders.sql": "{{ config(materialized='view') }}\n" + STG_ORDERS, "stg_payments.sql": STG_PAYMENTS, "schema.yml": SCHEMA},
                "marts": {"fct_orders.sql": FCT_ORDERS, "by_user.sql": "select user_id, count(*) as n, sum(amount) as amount from {{ ref('fct_orders') }} group by user_id"},
                "sources.yml": SOURCES}

    @pytest.fixture(scope="class")
    def project_config_update(self):
        return {"models": {"test": {"+materialized": "pgtrickle", "+schedule": "1s"}}}

    @pytest.fixture(scope="class", autouse=True)
    def tables(self, project):
        project.run_sql(TABLES)

    def test_B02_left_join_using(self, project):
        run("build")
        assert option(project, "fct_orders", "effective_refresh_mode") == "DIFFERENTIAL"
        unpaid = "select count(*) from {schema}.fct_orders where amount is null"
        before = one(project, unpaid)
        project.run_sql("insert into {schema}.payments values (100, 1, 5), (101, 3, 6)")
        wait_fresh(project, "by_user")
        assert one(project, unpaid) == before - 2
        project.run_sql("delete from {schema}.payments where id >= 100; update {schema}.payments set order_id = order_id + 1 where id = 5")
        wait_fresh(project, "by_user")
        assert one(project, unpaid) == before
        assert_current(project, "stg_payments", "fct_orders", "by_user")

    def test_B02_staging_as_a_stream_table(self, project):
        put(project, "models/staging/stg_orders.sql", STG_ORDERS)
        assert run("run", "--select", "stg_orders")["stg_orders"] == "CREATE STREAM TABLE"
        run("run", "--select", "stg_orders+")
        project.run_sql("update {schema}.orders set user_id = user_id + 1 where id < 20")
        wait_fresh(project, "by_user")
        assert_current(project, "stg_orders", "fct_orders", "by_user")

    def test_B04_failing_data_stops_the_build(self, project):
        project.run_sql("insert into {schema}.orders values (1, 1, '2026-01-01', 'lost')")
        wait_fresh(project, "by_user")
        results = statuses("build", expect_pass=False)
        failed = {name for name, status in results.items() if status == "fail"}
        assert any(name.startswith("unique_stg_orders") for name in failed) and any(name.startswith("accepted_values_stg_orders") for name in failed)
        assert results["fct_orders"] == results["by_user"] == "skipped"
        project.run_sql("delete from {schema}.orders where status = 'lost'")
        wait_fresh(project, "by_user")
        assert set(statuses("build").values()) <= {"success", "pass"}

    def test_B05_lineage_in_the_docs(self, project):
        run_dbt(["docs", "generate"])
        manifest = artifact(project, "manifest.json")
        assert manifest["parent_map"]["model.test.by_user"] == ["model.test.fct_orders"]
        assert {"model.test.stg_orders", "model.test.fct_orders", "model.test.by_user"} <= set(artifact(project, "catalog.json")["nodes"])
        assert artifact(project, "catalog.json")["nodes"]["model.test.by_user"]["metadata"]["owner"] == "postgres"


class TestSwitching:
    @pytest.fixture(scope="class")
    def models(self):
        return {"sources.yml": SOURCES}

    @pytest.fixture(scope="class", autouse=True)
    def tables(self, project):
        project.run_sql(TABLES)

    def test_B06_any_order_of_materializations(self, project):
        body = """ select id, user_id from {{ source('raw_data', 'orders') }}
            {% if is_incremental() %} where id > (select max(id) from {{ this }}) {% endif %}"""
        kinds = {"view": "v", "table": "r", "incremental": "r", "pgtrickle": "r", "stream_table": "r"}
        order = ["view", "pgtrickle", "table", "stream_table", "incremental", "pgtrickle", "view", "table", "incremental", "stream_table", "table", "pgtrickle"]
        previous = None
        for kind in order:
            put(project, "models/m.sql", "{{ config(materialized='%s') }}" % kind + body)
            # dbt would insert into the stream table; see the next test
            run("run", "--select", "m", *(["--full-refresh"] if kind == "incremental" and previous in ("pgtrickle", "stream_table") else []))
            relkind = one(project, "select relkind::text from pg_class where oid = '{schema}.m'::regclass")
            assert relkind == kinds[kind], kind
            assert is_stream_table(project, "m") == (kind in ("pgtrickle", "stream_table"))
            assert one(project, "select count(*) from {schema}.m") == 60
            previous = kind
        assert one(project, """select count(*) from pgtrickle.pgt_stream_tables where pgt_schema = '{schema}'""") == 1
        assert rows(project, "select relname from pg_class where relnamespace = '{schema}'::regnamespace and relname like 'm\\_\\_%%'") == []

    def test_B06_incremental_over_a_stream_table_is_refused_with_the_way_out(self, project):
        put(project, "models/m.sql", "{{ config(materialized='pgtrickle', schedule='1s') }} select id, user_id from {{ source('raw_data', 'orders') }}")
        run("run", "--select", "m")
        put(project, "models/m.sql", "{{ config(materialized='incremental') }} select id, user_id from {{ source('raw_data', 'orders') }}")
        message = run("run", "--select", "m", expect_pass=False)["m"]
        assert "cannot change stream table" in message and "--full-refresh" in message
        assert is_stream_table(project, "m")
        run("run", "--select", "m", "--full-refresh")
        assert not is_stream_table(project, "m")

    def test_B06_alternating_between_stream_tables_and_their_consumers(self, project):
        put(project, "models/m.sql", "{{ config(materialized='pgtrickle', schedule='1s') }} select id, user_id from {{ source('raw_data', 'orders') }}")
        put(project, "models/n.sql", "{{ config(materialized='pgtrickle', schedule='1s') }} select user_id, count(*) as n from {{ ref('m') }} group by 1")
        run("run", "--select", "m", "n")
        before = oid(project, "n")
        for kind in ("table", "pgtrickle", "view", "pgtrickle"):
            put(project, "models/m.sql", "{{ config(materialized='%s') }} select id, user_id from {{ source('raw_data', 'orders') }}" % kind)
            run("run", "--select", "m", "n")
            assert oid(project, "n") == before
            wait_fresh(project, "n")
            assert_current(project, "n")


class TestConcurrency:
    @pytest.fixture(scope="class")
    def models(self):
        models = {"sources.yml": SOURCES}
        for i in range(24):
            models["m%02d.sql" % i] = ("{{ config(materialized='pgtrickle', schedule='1s', indexes=[{'columns': ['k']}]) }} select user_id %% %d as k, count(*) as n, sum(amount) as amount"
                                       " from {{ source('raw_data', 'orders') }} o join {{ source('raw_data', 'payments') }} p on p.order_id = o.id group by 1" % (i + 1))
        return models

    @pytest.fixture(scope="class", autouse=True)
    def tables(self, project):
        project.run_sql(TABLES)

    def test_B03_four_threads_over_shared_sources(self, project):
        stop = threading.Event()
        errors = []

        def write():
            import psycopg2
            connection = psycopg2.connect(host=project.adapter.config.credentials.host, dbname="postgres", user="postgres")
            connection.autocommit = True
            i = 0
            while not stop.is_set():
                i += 1
                with connection.cursor() as cursor:
                    try:
                        cursor.execute("update %s.payments set amount = amount + 1 where id = %d" % (project.test_schema, i % 20 + 1))
                    except Exception as error:
                        errors.append(error)
                stop.wait(0.01)
            connection.close()

        writer = threading.Thread(target=write)
        writer.start()
        try:
            assert set(run("run", "--threads", "4").values()) == {"CREATE STREAM TABLE"}
            assert set(run("run", "--threads", "8").values()) == {"UNCHANGED"}
        finally:
            stop.set()
            writer.join()
        assert errors == []
        names = ["m%02d" % i for i in range(24)]
        assert one(project, "select count(*) from pgtrickle.pgt_stream_tables where pgt_schema = '{schema}'") == 24
        assert_current(project, *names)


class TestRights:
    """A role that may read raw and create in analytics, and nothing else."""

    @pytest.fixture(scope="class")
    def dbt_profile_target(self, cluster):
        connection = cluster.connect()
        for statement in ("drop schema if exists raw cascade", "drop role if exists transform_user", "create role transform_user login", "create schema raw",
                          "create table raw.orders (id int primary key, user_id int, secret text, amount numeric)",
                          "insert into raw.orders select i, i % 10, 'x', i from generate_series(1, 50) i",
                          "create table raw.hidden (id int)",
                          "alter table raw.orders replica identity full",
                          "grant usage on schema raw to transform_user", "grant select on raw.orders to transform_user",
                          "grant create on database postgres to transform_user"):
            cluster.query(connection, statement)
        connection.close()
        return {"type": "postgres", "threads": 4, "host": cluster.directory, "port": 5432, "user": "transform_user", "pass": "", "dbname": "postgres"}

    @pytest.fixture(scope="class")
    def models(self):
        return {"totals.sql": "{{ config(materialized='pgtrickle', schedule='1s') }} select user_id, sum(amount) as amount from raw.orders group by 1"}

    @pytest.fixture
    def root(self, cluster):
        connection = cluster.connect()
        yield lambda sql: cluster.query(connection, sql)
        connection.close()

    def test_B08_reading_raw_is_enough(self, project, root):
        assert run("run") == {"totals": "CREATE STREAM TABLE"}
        root("insert into raw.orders values (1000, 1, 'x', 5)")
        wait_fresh(project, "totals")
        assert_current(project, "totals")
        assert option(project, "totals", "pg_get_userbyid(pgt_owner)") == "transform_user"
        for statement in ("drop table raw.orders", "insert into raw.orders values (1)", "alter table raw.orders add column x int"):
            with pytest.raises(Exception, match="permission denied|must be owner"):
                project.run_sql(statement)

    def test_B08_old_rows_that_the_source_does_not_log_are_named(self, project, root):
        root("create table raw.events (id int primary key, n int)")
        root("insert into raw.events select i, i from generate_series(1, 10) i")
        root("grant select on raw.events to transform_user")
        put(project, "models/events.sql", "{{ config(materialized='pgtrickle', schedule='1s') }} select n, count(*) as c from raw.events group by 1")
        from dbt.tests.util import run_dbt_and_capture
        results, output = run_dbt_and_capture(["run", "--select", "events"])
        assert "REPLICA IDENTITY FULL" in output and "raw.events" in output
        root("update raw.events set n = n + 1")
        wait_fresh(project, "events")
        assert_current(project, "events")

    def test_B10_no_right_on_the_source(self, project):
        put(project, "models/nosy.sql", "{{ config(materialized='pgtrickle') }} select * from raw.hidden")
        message = run("run", "--select", "nosy", expect_pass=False)["nosy"]
        assert "permission denied for table hidden" in message
        take_away(project, "models/nosy.sql")

    def test_B10_a_right_that_is_taken_away_stops_the_refreshes(self, project, root):
        root("revoke select on raw.orders from transform_user")
        before = one(project, "select sum(amount) from {schema}.totals")
        root("insert into raw.orders values (1001, 1, 'x', 5)")
        for _ in range(60):
            if one(project, "select consecutive_errors from pgtrickle.pgt_stream_tables where pgt_relid = '{schema}.totals'::regclass") > 0:
                break
            project.run_sql("select pg_sleep(0.25)")
        assert "permission denied" in one(project, "select last_error_message from pgtrickle.pgt_stream_tables where pgt_relid = '{schema}.totals'::regclass")
        assert one(project, "select sum(amount) from {schema}.totals") == before
        root("grant select on raw.orders to transform_user")
        project.run_sql("select pgtrickle.resume_stream_table('{schema}.totals') where (select status from pgtrickle.pgt_stream_tables where pgt_relid = '{schema}.totals'::regclass) <> 'ACTIVE'")
        project.run_sql("select pgtrickle.refresh_stream_table('{schema}.totals')")
        assert_current(project, "totals")

    def test_B10_row_level_security_is_the_owners(self, project, root):
        root("alter table raw.orders enable row level security")
        root("create policy mine on raw.orders for select to transform_user using (user_id < 5)")
        put(project, "models/mine.sql", "{{ config(materialized='pgtrickle', schedule='1s') }} select user_id, count(*) as n from raw.orders group by 1")
        assert run("run", "--select", "mine") == {"mine": "CREATE STREAM TABLE"}
        assert one(project, "select max(user_id) from {schema}.mine") == 4
        root("insert into raw.orders values (1002, 7, 'x', 5), (1003, 2, 'x', 5)")
        wait_fresh(project, "mine")
        assert one(project, "select max(user_id) from {schema}.mine") == 4
        assert_current(project, "mine")


class TestLarge:
    ROWS = 300000

    @pytest.fixture(scope="class")
    def models(self):
        return {"large.sql": "{{ config(materialized='pgtrickle', schedule='1s') }} select id %% 1000 as k, count(*) as n, sum(v) as v from %s group by 1" % "{{ source('raw_data', 'big') }}",
                "sources.yml": SOURCES.replace("[{name: orders}", "[{name: big}, {name: orders}")}

    def test_B07_population_does_not_block_writers(self, project):
        project.run_sql("create table {schema}.big (id bigint primary key, v int)")
        project.run_sql("insert into {schema}.big select i, i %% 97 from generate_series(1, %d) i" % self.ROWS)
        # a lock that would be waited for by whoever reads, were it strong: the longest write while the model is built
        import time
        longest, done = [0.0], threading.Event()

        def write():
            import psycopg2
            connection = psycopg2.connect(host=project.adapter.config.credentials.host, dbname="postgres", user="postgres")
            connection.autocommit = True
            i = self.ROWS
            with connection.cursor() as cursor:
                while not done.is_set():
                    i += 1
                    began = time.time()
                    cursor.execute("insert into %s.big values (%d, 1)" % (project.test_schema, i))
                    longest[0] = max(longest[0], time.time() - began)
            connection.close()

        writer = threading.Thread(target=write)
        writer.start()
        try:
            began = time.time()
            run("run")
            took = time.time() - began
        finally:
            done.set()
            writer.join()
        print("built in %.2f s, longest write %.3f s" % (took, longest[0]))
        assert longest[0] < max(1.0, took / 3)
        wait_fresh(project, "large")
        assert_current(project, "large")
