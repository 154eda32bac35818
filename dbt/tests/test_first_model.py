# dbt/tests/test_first_model.py
#     Acceptance rows A, as far as one small project shows them: create, follow, no-op, migrate, alter, full refresh, freshness, docs.
import json
import os

import pytest
from dbt.tests.util import run_dbt, write_file

ORDER_TOTALS = """
{{
  config(
    materialized='pgtrickle',
    schedule='1s',
    refresh_mode='DIFFERENTIAL'
  )
}}

SELECT
    customer_id,
    SUM(amount) AS total_spend,
    COUNT(*) AS order_count
FROM {{ source('app', 'orders') }}
GROUP BY customer_id
"""

REVENUE_BY_REGION = """
{{
  config(
    materialized='pgtrickle',
    schedule='1s',
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

SCHEMA = """
version: 2
sources:
  - name: app
    schema: "{{ target.schema }}"
    tables:
      - name: orders
      - name: customers
  - name: stream_tables
    freshness:
      warn_after: {count: 1, period: minute}
      error_after: {count: 2, period: minute}
    loaded_at_field: data_timestamp
    tables:
      - name: revenue_by_region
models:
  - name: revenue_by_region
    config:
      materialized: pgtrickle
      schedule: '3s'
      refresh_mode: DIFFERENTIAL
    columns:
      - name: region
        tests:
          - not_null
      - name: revenue
        tests:
          - not_null
    tests:
      - dbt_pgtrickle.stream_table_healthy
      - dbt_pgtrickle.pgtrickle_fresh
      - dbt_pgtrickle.pgtrickle_consistent
"""

FRESH_TEST = """
SELECT * FROM pgtrickle.get_staleness('revenue_by_region')
WHERE staleness > interval '10 seconds'
"""

EQUAL_TEST = """
{{ dbt_pgtrickle.pgtrickle_wait_fresh() }}
select t.total as there, o.total as here
from (select sum(total_spend) as total from {{ ref('order_totals') }}) t, (select sum(amount) as total from {{ source('app', 'orders') }}) o
where t.total is distinct from o.total
"""


def message_of(results, name):
    return next(r.message for r in results if r.node.name == name)


class TestFirstModel:
    @pytest.fixture(scope="class")
    def models(self):
        return {"order_totals.sql": ORDER_TOTALS, "revenue_by_region.sql": REVENUE_BY_REGION, "schema.yml": SCHEMA}

    @pytest.fixture(scope="class")
    def tests(self):
        return {"revenue_by_region_is_fresh.sql": FRESH_TEST, "totals_are_equal.sql": EQUAL_TEST}

    @pytest.fixture(scope="class", autouse=True)
    def sources(self, project):
        project.run_sql("""
            create table {schema}.customers (id int primary key, region text, tier text);
            create table {schema}.orders (id int primary key, customer_id int, amount numeric, created_at timestamptz default now());
            insert into {schema}.customers select i, 'region ' || i % 3, 'gold' from generate_series(1, 10) i;
            insert into {schema}.orders select i, i % 10 + 1, i from generate_series(1, 100) i;
        """)

    def oids(self, project):
        return project.run_sql("""select c.relname, c.oid, c.relfilenode from pg_class c join pgtrickle.pgt_stream_tables s on s.pgt_relid = c.oid
            where s.pgt_schema = '{schema}' order by 1""", fetch="all")

    def equals_query(self, project):
        return project.run_sql("select count(*) from pgtrickle.verify('{schema}.order_totals')", fetch="one")[0] == 0

    def test_A02_first_run_creates(self, project):
        results = run_dbt(["run"])
        assert message_of(results, "order_totals") == "CREATE STREAM TABLE"
        row = project.run_sql("""select schedule, refresh_mode, is_populated, pg_get_userbyid(pgt_owner) from pgtrickle.pgt_stream_tables
            where pgt_schema = '{schema}' and pgt_name = 'order_totals'""", fetch="one")
        assert row == ("1s", "DIFFERENTIAL", True, "postgres")
        assert project.run_sql("select count(*), sum(order_count) from {schema}.order_totals", fetch="one") == (10, 100)

    def test_A03_sql_beats_yaml(self, project):
        assert project.run_sql("""select schedule from pgtrickle.pgt_stream_tables
            where pgt_schema = '{schema}' and pgt_name = 'revenue_by_region'""", fetch="one")[0] == "1s"

    def test_A04_follows_without_dbt(self, project):
        project.run_sql("update {schema}.orders set amount = amount + 1 where id <= 50")
        project.run_sql("delete from {schema}.orders where id > 90")
        assert project.run_sql("select pgtrickle.wait_fresh('{schema}.order_totals')", fetch="one")[0]
        assert project.run_sql("select sum(total_spend), sum(order_count) from {schema}.order_totals", fetch="one") == (4145, 90)
        assert self.equals_query(project)

    def test_A05_rows_move_between_groups(self, project):
        project.run_sql("update {schema}.customers set region = 'north' where id % 2 = 0")
        assert project.run_sql("select count(*) from pgtrickle.verify('{schema}.revenue_by_region')", fetch="one")[0] == 0
        assert project.run_sql("select count(*) from {schema}.revenue_by_region where region = 'north'", fetch="one")[0] == 1

    def test_A06_second_run_does_nothing(self, project):
        before = self.oids(project)
        results = run_dbt(["run"])
        assert [r.message for r in results] == ["UNCHANGED", "UNCHANGED"]
        assert self.oids(project) == before

    def test_A07_reformatting_does_nothing(self, project):
        write_file("-- a comment\n" + ORDER_TOTALS.replace("\n    ", " "), project.project_root, "models", "order_totals.sql")
        before = self.oids(project)
        assert message_of(run_dbt(["run", "--select", "order_totals"]), "order_totals") == "UNCHANGED"
        assert self.oids(project) == before

    def test_A12_tests_pass(self, project):
        assert project.run_sql("select pgtrickle.wait_fresh('{schema}.revenue_by_region')", fetch="one")[0]
        assert [(r.node.name, r.message) for r in run_dbt(["test"], expect_pass=None) if str(r.status) != "pass"] == []

    def test_A13_staleness_test_of_unknown_name_fails(self, project):
        write_file(FRESH_TEST.replace("revenue_by_region", "nowhere"), project.project_root, "tests", "of_nothing.sql")
        results = run_dbt(["test", "--select", "of_nothing"], expect_pass=False)
        assert "does not exist" in results[0].message
        os.remove(os.path.join(project.project_root, "tests", "of_nothing.sql"))

    def test_A15_test_right_after_insert(self, project):
        for i in range(3):
            project.run_sql("insert into {schema}.orders values (%d, 1, 7)" % (1000 + i))
            run_dbt(["test", "--select", "totals_are_equal"])

    def test_A10_changed_option_is_altered(self, project):
        write_file(ORDER_TOTALS.replace("'1s'", "'2s'"), project.project_root, "models", "order_totals.sql")
        before = self.oids(project)
        assert message_of(run_dbt(["run", "--select", "order_totals"]), "order_totals") == "ALTER STREAM TABLE: schedule 1s -> 2s"
        assert self.oids(project) == before

    def test_A08_changed_query_is_migrated(self, project):
        project.run_sql("create view {schema}.over_totals as select customer_id, total_spend from {schema}.order_totals")
        before = [row[1] for row in self.oids(project)]
        write_file(ORDER_TOTALS.replace("COUNT(*)", "COUNT(*) + 1"), project.project_root, "models", "order_totals.sql")
        assert message_of(run_dbt(["run", "--select", "order_totals"]), "order_totals") == \
            "MIGRATE STREAM TABLE: the query was changed: replaced in place"
        assert [row[1] for row in self.oids(project)] == before
        assert project.run_sql("select count(*) from {schema}.over_totals", fetch="one")[0] == 10
        assert self.equals_query(project)

    def test_A09_changed_columns_name_what_depends(self, project):
        write_file(ORDER_TOTALS.replace("SUM(amount) AS total_spend,", ""), project.project_root, "models", "order_totals.sql")
        results = run_dbt(["run", "--select", "order_totals"], expect_pass=False)
        assert "over_totals" in results[0].message
        assert project.run_sql("select count(*) from {schema}.over_totals", fetch="one")[0] == 10
        write_file(ORDER_TOTALS, project.project_root, "models", "order_totals.sql")
        run_dbt(["run", "--select", "order_totals"])

    def test_A11_full_refresh_rebuilds(self, project):
        results = run_dbt(["run", "--full-refresh"])
        assert message_of(results, "order_totals").startswith("REBUILD STREAM TABLE: full refresh requested")
        assert self.equals_query(project)

    def test_A16_docs_have_statistics(self, project):
        run_dbt(["docs", "generate"])
        with open(os.path.join(project.project_root, "target", "catalog.json")) as file:
            node = json.load(file)["nodes"]["model.test.order_totals"]
        assert list(node["columns"]) == ["customer_id", "total_spend", "order_count"]
        for name in ("schedule", "refresh_mode", "avg_refresh_ms", "last_refresh_at", "data_timestamp", "staleness_s"):
            assert node["stats"][name]["value"] not in (None, ""), name
        assert node["stats"]["refresh_mode"]["value"] == "DIFFERENTIAL"

    def test_A24_source_freshness(self, project):
        results = run_dbt(["source", "freshness"])
        assert [str(r.status) for r in results] == ["pass"]

    def test_A28_bad_values_are_refused(self, project):
        write_file(ORDER_TOTALS.replace("'1s'", "'abc'"), project.project_root, "models", "bad_one.sql")
        results = run_dbt(["run", "--select", "bad_one"], expect_pass=False)
        assert "invalid schedule 'abc'" in results[0].message and "bad_one" in results[0].message
        assert project.run_sql("select to_regclass('{schema}.bad_one')", fetch="one")[0] is None
        write_file(ORDER_TOTALS.replace("DIFFERENTIAL", "SOMETIMES"), project.project_root, "models", "bad_one.sql")
        results = run_dbt(["run", "--select", "bad_one"], expect_pass=False)
        assert "invalid refresh_mode 'SOMETIMES'" in results[0].message
        os.remove(os.path.join(project.project_root, "models", "bad_one.sql"))

    def test_D11_show_touches_nothing(self, project):
        before = self.oids(project)
        run_dbt(["show", "--select", "order_totals", "--limit", "3"])
        run_dbt(["show", "--inline", "select * from {{ ref('order_totals') }}"])
        assert self.oids(project) == before

    def test_D13_empty(self, project):
        run_dbt(["run", "--select", "order_totals", "--empty"])
        assert project.run_sql("select count(*) from {schema}.order_totals", fetch="one")[0] == 0
        run_dbt(["run", "--select", "order_totals"])
        assert project.run_sql("select count(*) from {schema}.order_totals", fetch="one")[0] == 10

    def test_X02_self_reference_is_refused(self, project):
        write_file("{{ config(materialized='pgtrickle') }} select * from {{ this }}", project.project_root, "models", "narcissus.sql")
        results = run_dbt(["run", "--select", "narcissus"], expect_pass=False)
        assert "cannot read itself" in results[0].message
        os.remove(os.path.join(project.project_root, "models", "narcissus.sql"))
