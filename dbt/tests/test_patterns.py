# dbt/tests/test_patterns.py
#     Acceptance rows E that are dbt's part of the patterns for Dagster: batches over stream tables and below them, clone-then-swap, tagged tests, interruptions.
import threading

import pytest
from dbt.tests.util import run_dbt_and_capture
from helpers import assert_current, one, put, rows, run, statuses, wait_fresh

TABLES = """
create table {schema}.events (event_id int primary key, event_time timestamp, user_id int, event_type text);
insert into {schema}.events select i, '2023-01-01'::timestamp + i * interval '6 hours', i % 5, 'type ' || i % 3 from generate_series(0, 19) i;
"""
SOURCES = """
version: 2
sources:
  - name: app
    schema: "{{ target.schema }}"
    tables: [{name: events}]
models:
  - name: live_events
    config: {event_time: event_time}
    columns:
      - name: event_id
        data_tests:
          - not_null: {config: {tags: [hourly_tests]}}
          - unique
"""
LIVE = "{{ config(materialized='pgtrickle', schedule='1s') }} select event_id, event_time, user_id, event_type from {{ source('app', 'events') }}"
INCREMENTAL = """{{ config(materialized='incremental') }}
select
event_id,
event_time,
user_id,
event_type
from {{ ref('live_events') }}
{% if is_incremental() %}
where event_time >= '{{ var("start_date") }}' and event_time < '{{ var("end_date") }}'
{% endif %}"""
MICROBATCH = """{{ config(
materialized='incremental',
incremental_strategy='microbatch',
unique_key='event_id',
event_time='event_time',
batch_size='day',
begin='2023-01-01'
) }}

select
event_id,
event_time,
user_id,
event_type
from {{ ref('live_events') }}"""
OVER = "{{ config(materialized='pgtrickle', schedule='1s') }} select user_id, count(*) as n, max(event_time) as last from {{ ref('microbatch_model') }} group by 1"


class TestBatches:
    @pytest.fixture(scope="class")
    def models(self):
        return {"live_events.sql": LIVE, "incremental_model.sql": INCREMENTAL, "microbatch_model.sql": MICROBATCH, "per_user.sql": OVER, "schema.yml": SOURCES}

    @pytest.fixture(scope="class", autouse=True)
    def tables(self, project):
        project.run_sql(TABLES)

    def test_E04_microbatch_reads_a_stream_table(self, project):
        run("run", "--exclude", "incremental_model", "--event-time-start", "2023-01-01", "--event-time-end", "2023-01-03")
        assert one(project, "select count(*) from {schema}.microbatch_model") == 8

    def test_E05_stream_table_over_batches(self, project):
        run("run", "--select", "microbatch_model", "--event-time-start", "2023-01-03", "--event-time-end", "2023-01-05")
        wait_fresh(project, "per_user")
        assert one(project, "select sum(n) from {schema}.per_user") == 16
        project.run_sql("update {schema}.events set user_id = 7 where event_time < '2023-01-02'")
        wait_fresh(project, "live_events")
        run("run", "--select", "microbatch_model", "--event-time-start", "2023-01-01", "--event-time-end", "2023-01-02")
        wait_fresh(project, "per_user")
        assert one(project, "select n from {schema}.per_user where user_id = 7") == 4
        assert_current(project, "live_events", "per_user")

    def test_E03_window_by_variables(self, project):
        window = ("--vars", '{"start_date": "2023-01-06", "end_date": "2023-01-07"}')
        run("run", "--select", "incremental_model", *window)
        project.run_sql("insert into {schema}.events values (100, '2023-01-06 12:00', 1, 'x'), (101, '2023-01-08', 1, 'x')")
        wait_fresh(project, "live_events")
        run("run", "--select", "incremental_model", *window)
        assert rows(project, "select event_id from {schema}.incremental_model where event_id >= 100") == [(100,)]

    def test_E08_tests_by_tag(self, project):
        assert list(statuses("test", "--select", "tag:hourly_tests").values()) == ["pass"]

    def test_E10_killed_while_it_runs(self, project, db):
        """The backend of the model goes away in the middle; what is there is the old one, and running again completes it."""
        before = rows(project, "select * from {schema}.live_events order by 1")
        project.run_sql("create function {schema}.slow(int) returns int language plpgsql immutable as "
                        "$$begin perform pg_sleep(0.5); return $1; end$$")
        put(project, "models/live_events.sql", LIVE.replace("select event_id", "select {{ target.schema }}.slow(event_id) as event_id"))
        outcome = []
        thread = threading.Thread(target=lambda: outcome.append(statuses("run", "--select", "live_events")))
        thread.start()
        for _ in range(200):
            if db("""select count(pg_terminate_backend(pid)) from pg_stat_activity where pid <> pg_backend_pid() and state = 'active'
                    and query like '%build_model%' and query like '%slow%' and xact_start < clock_timestamp() - interval '1 second'""")[0][0]:
                break
            db("select pg_sleep(0.1)")
        thread.join()
        assert outcome == [{"live_events": "error"}]
        assert rows(project, "select * from {schema}.live_events order by 1") == before
        put(project, "models/live_events.sql", LIVE)
        run("run", "--select", "live_events")
        assert_current(project, "live_events", "per_user")


GENERATE = "{% macro generate_schema_name(custom, node) %}{{ custom or target.schema }}{% endmacro %}"
TOTALS = "{{ config(materialized='pgtrickle', schedule='1s') }} select user_id, %s as n from {{ source('app', 'events') }} group by 1"
LOADED = "{{ config(materialized='incremental') }} select event_id, user_id from {{ source('app', 'events') }} {% if is_incremental() %} where event_id > (select max(event_id) from {{ this }}) {% endif %}"


class TestCloneThenSwap:
    @pytest.fixture(scope="class")
    def models(self):
        return {"totals.sql": TOTALS % "count(*)", "loaded.sql": LOADED, "users.sql": "{{ config(materialized='view') }} select count(distinct user_id) as users from {{ ref('loaded') }}",
                "schema.yml": SOURCES.split("models:")[0] + """
models:
  - name: totals
    columns: [{name: n, data_tests: [{accepted_range_of_n: {name: n_is_positive}}]}]
"""}

    @pytest.fixture(scope="class")
    def macros(self):
        return {"generate_schema_name.sql": GENERATE,
                "tests.sql": "{% test accepted_range_of_n(model, column_name) %}select * from {{ model }} where {{ column_name }} < 0{% endtest %}"}

    @pytest.fixture(scope="class")
    def project_config_update(self, unique_schema):
        green, blue = unique_schema + "_green", unique_schema + "_blue"
        return {"vars": {"green_schema": green, "blue_schema": blue}, "models": {"+schema": blue},
                "on-run-start": ["{{ dbt_pgtrickle.clone_green_to_blue() }}"], "on-run-end": ["{{ dbt_pgtrickle.swap_blue_to_green_if_clean(results) }}"]}

    @pytest.fixture(scope="class", autouse=True)
    def tables(self, project):
        project.run_sql(TABLES)

    def green(self, project):
        return (one(project, "select sum(n) from {schema}_green.totals"), one(project, "select count(*) from {schema}_green.loaded"))

    def test_E06_first_run_is_published(self, project):
        assert "is live with all" in run_dbt_and_capture(["build"])[1]
        assert self.green(project) == (20, 20)

    def test_E06_failed_test_leaves_green(self, project):
        put(project, "models/totals.sql", TOTALS % "-count(*)")
        project.run_sql("insert into {schema}.events values (50, now(), 1, 'x')")
        output = run_dbt_and_capture(["build"], expect_pass=False)[1]
        assert "stays as it is" in output and "n_is_positive" in output
        wait_green = one(project, "select pgtrickle.wait_fresh('{schema}_green.totals')")
        assert wait_green and self.green(project) == (21, 20)

    def test_E06_all_marts_at_one_moment(self, project, cluster):
        put(project, "models/totals.sql", TOTALS % "1000 * count(*)")
        seen, stop = set(), threading.Event()

        def read():
            connection = cluster.connect()
            while not stop.is_set():
                seen.add(cluster.query(connection, "select (select sum(n) from {0}_green.totals), (select count(*) from {0}_green.loaded)".format(
                    project.test_schema))[0])
            connection.close()

        reader = threading.Thread(target=read)
        reader.start()
        try:
            output = run_dbt_and_capture(["build"])[1]
        finally:
            stop.set()
            reader.join()
        assert "cloned 1 table(s)" in output and "is live with all" in output
        assert (21000, 21) in seen | {self.green(project)} and seen <= {(21, 20), (21000, 21)}

    def test_E06_the_next_run_goes_on_from_green(self, project):
        project.run_sql("insert into {schema}.events values (51, now(), 1, 'x')")
        run_dbt_and_capture(["build"])
        assert one(project, "select pgtrickle.wait_fresh('{schema}_green.totals')") and self.green(project) == (22000, 22)
        assert one(project, "select users from {schema}_green.users") == 5
