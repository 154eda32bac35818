# dbt/tests/test_freshness.py
#     Acceptance rows A13-A15, A24, A25: how fresh a stream table is, and waiting until it is.  The YAML and the test are those of the documents, word for word.
import pytest
from dbt.tests.util import run_dbt
from helpers import artifact, one, put, rows, run, statuses

REVENUE_BY_REGION = """
{{
  config(
    materialized='pgtrickle',
    schedule='3s',
    refresh_mode='DIFFERENTIAL'
  )
}}

SELECT
    c.region,
    date_trunc('day', o.created_at) AS order_date,
    SUM(o.amount) AS revenue,
    COUNT(*) AS order_count
FROM {{ source('app', 'orders') }} o
JOIN {{ source('app', 'customers') }} c ON c.id = o.customer_id
GROUP BY c.region, date_trunc('day', o.created_at)
"""

APP = """
sources:
  - name: app
    schema: "{{ target.schema }}"
    tables: [{name: orders}, {name: customers}]
"""

# word for word
STREAM_TABLES = """
sources:
  - name: stream_tables
    freshness:
      warn_after: {count: 10, period: second}
      error_after: {count: 30, period: second}
    loaded_at_field: data_timestamp
    tables:
      - name: revenue_by_region
"""
IS_FRESH = """-- tests/revenue_by_region_is_fresh.sql
SELECT * FROM pgtrickle.get_staleness('revenue_by_region')
WHERE staleness > interval '10 seconds'
"""

WAITS = """
{{ dbt_pgtrickle.pgtrickle_wait_fresh(timeout='%s') }}
select t.total, o.total
from (select sum(revenue) as total from {{ ref('revenue_by_region') }}) t, (select sum(amount) as total from {{ source('app', 'orders') }}) o
where t.total is distinct from o.total
"""


class TestFreshness:
    @pytest.fixture(scope="class")
    def models(self):
        return {"revenue_by_region.sql": REVENUE_BY_REGION, "app.yml": APP, "stream_tables.yml": STREAM_TABLES}

    @pytest.fixture(scope="class")
    def tests(self):
        return {"revenue_by_region_is_fresh.sql": IS_FRESH, "totals_are_equal.sql": WAITS % "30s"}

    @pytest.fixture(scope="class", autouse=True)
    def built(self, project):
        project.run_sql("""
            create table {schema}.customers (id int primary key, region text);
            create table {schema}.orders (id int primary key, customer_id int, amount numeric, created_at timestamptz default now());
            insert into {schema}.customers select i, 'region ' || i %% 3 from generate_series(1, 10) i;
            insert into {schema}.orders select i, i %% 10 + 1, i from generate_series(1, 100) i;
        """.replace("%%", "%"))
        run("run")

    def test_A24_source_freshness_verbatim(self, project):
        """In seconds, and the source has no schema: dbt looks for "stream_tables".revenue_by_region, which is not there."""
        assert statuses("source", "freshness") == {"revenue_by_region": "pass"}
        first = artifact(project, "sources.json")["results"][0]
        project.run_sql("select pg_sleep(1.5)")
        # a busy machine may leave the applier without a turn
        for _ in range(10):
            assert statuses("source", "freshness") == {"revenue_by_region": "pass"}
            second = artifact(project, "sources.json")["results"][0]
            if second["max_loaded_at"] > first["max_loaded_at"]:
                break
        assert second["max_loaded_at"] > first["max_loaded_at"], "an idle source stays fresh"
        assert second["criteria"]["error_after"] == {"count": 30, "period": "second"}

    def test_A24_without_the_dispatch_block(self, project):
        """loaded_at_query needs nothing in dbt_project.yml."""
        put(project, "models/by_query.yml", """
sources:
  - name: by_query
    schema: "{{ target.schema }}"
    tables:
      - name: revenue_by_region
        config:
          loaded_at_query: "select data_timestamp from pgtrickle.get_staleness('{{ this }}')"
          freshness: {warn_after: {count: 1, period: minute}, error_after: {count: 2, period: minute}}
""")
        from dbt.version import installed
        if (int(installed.major), int(installed.minor)) >= (1, 10):
            assert statuses("source", "freshness", "--select", "source:by_query") == {"revenue_by_region": "pass"}

    def test_A13_staleness_test_verbatim(self, project):
        assert statuses("test", "--select", "revenue_by_region_is_fresh") == {"revenue_by_region_is_fresh": "pass"}

    def test_A13_ambiguous_name_lists_the_candidates(self, project):
        """A second schema with a stream table of that name, and neither in the search_path."""
        project.run_sql("create schema if not exists {schema}_other")
        project.run_sql("select pgtrickle.create_stream_table('{schema}_other.revenue_by_region', 'select id from {schema}.orders')")
        results = run_dbt(["test", "--select", "revenue_by_region_is_fresh"], expect_pass=None).results
        assert str(results[0].status) == "error"
        assert project.test_schema + "_other.revenue_by_region" in results[0].message and project.test_schema + ".revenue_by_region" in results[0].message
        project.run_sql("drop schema {schema}_other cascade")

    def test_A14_wait_fresh_times_out_with_the_lag(self, project, applier_stopped):
        put(project, "tests/waits_briefly.sql", WAITS % "1s")
        project.run_sql("insert into {schema}.orders values (2000, 1, 5)")
        results = run_dbt(["test", "--select", "waits_briefly"], expect_pass=False).results
        assert str(results[0].status) == "error"
        assert "no applier is connected" in results[0].message or "behind" in results[0].message

    def test_A14_wait_fresh_sees_what_was_committed_before(self, project):
        for i in range(3):
            project.run_sql("insert into {schema}.orders values (%d, 1, 7)" % (1000 + i))
            assert statuses("test", "--select", "totals_are_equal") == {"totals_are_equal": "pass"}

    def test_A15_generic_tests_wait_when_told(self, project):
        """With the variable pgtrickle_test_wait every generic test of a stream table waits first."""
        put(project, "models/tests.yml", """
models:
  - name: revenue_by_region
    data_tests:
      - total_is: {expected: "{{ var('expected', '0') }}"}
""")
        put(project, "macros/total_is.sql", """{% test total_is(model, expected) %}
            select * from (select sum(revenue) as total from {{ model }}) t where total <> {{ expected }}
            {% endtest %}""")
        for i in range(3):
            project.run_sql("insert into {schema}.orders values (%d, 1, 7)" % (1100 + i))
            total = one(project, "select sum(amount) from {schema}.orders")
            results = statuses("test", "--select", "test_name:total_is", "--vars", "{pgtrickle_test_wait: true, expected: '%s'}" % total)
            assert list(results.values()) == ["pass"]

    def test_A25_freshness_without_an_applier(self, project, applier_stopped):
        """31 seconds later it is an error; before that, after 10, a warning."""
        project.run_sql("select pg_sleep(11)")
        assert statuses("source", "freshness", "--select", "source:stream_tables") == {"revenue_by_region": "warn"}
        project.run_sql("select pg_sleep(20)")
        assert statuses("source", "freshness", "--select", "source:stream_tables") == {"revenue_by_region": "error"}
        result = artifact(project, "sources.json")["results"][0]
        assert result["max_loaded_at_time_ago_in_s"] > 30
        frontier = one(project, "select data_timestamp from pgtrickle.get_staleness('{schema}.revenue_by_region')")
        assert result["max_loaded_at"][:19] == frontier.isoformat()[:19]
