# dbt/tests/test_mixed_projects.py
#     Acceptance rows A17-A23, A27: stream tables over dbt's tables, views and snapshots, and these over stream tables, in any order of runs.
import pytest
from helpers import artifact, assert_current, is_stream_table, oid, one, option, put, rows, run, wait_fresh

RAW = "{{ config(materialized='table') }} select id, kind, amount * {{ var('factor', 1) }} as amount, at from {{ source('app', 'events') }}"
CLEANED = "{{ config(materialized='pgtrickle', schedule='1s') }} select id, lower(kind) as kind, amount, at from {{ ref('raw_events') }} where amount is not null"
SUMMARY = "{{ config(materialized='pgtrickle', schedule='1s') }} select kind, count(*) as events, sum(amount) as amount from {{ ref('cleaned_events') }} group by kind"
REPORT = "{{ config(materialized='table') }} select date_trunc('month', at) as month, sum(amount) as amount from {{ ref('cleaned_events') }} group by 1"

SOURCES = """
version: 2
sources:
  - name: app
    schema: "{{ target.schema }}"
    tables: [{name: events}, {name: orders}, {name: customers}]
"""

TABLES = """
create table {schema}.events (id int primary key, kind text, amount numeric, at timestamptz);
insert into {schema}.events select i, case i % 3 when 0 then 'Click' when 1 then 'VIEW' end, nullif(i % 7, 0),
    '2026-01-01'::timestamptz + i * interval '1 day' from generate_series(1, 100) i;
create table {schema}.customers (id int primary key, region text, tier text);
insert into {schema}.customers select i, 'region ' || i % 3, 'tier ' || i % 2 from generate_series(1, 10) i;
create table {schema}.orders (id int primary key, customer_id int, amount numeric);
insert into {schema}.orders select i, i % 12, i from generate_series(1, 100) i;
"""


class TestSourcesThatAreSwapped:
    """raw_events table -> cleaned_events pgtrickle -> event_summary pgtrickle; monthly_report table."""

    @pytest.fixture(scope="class")
    def models(self):
        return {"raw_events.sql": RAW, "cleaned_events.sql": CLEANED, "event_summary.sql": SUMMARY, "monthly_report.sql": REPORT, "sources.yml": SOURCES}

    @pytest.fixture(scope="class", autouse=True)
    def tables(self, project):
        project.run_sql(TABLES)

    def test_A19_stream_tables_survive_rebuilt_sources(self, project):
        first = run("run")
        assert first["cleaned_events"] == first["event_summary"] == "CREATE STREAM TABLE"
        before = [oid(project, name) for name in ("cleaned_events", "event_summary")]
        old_source = oid(project, "raw_events")
        project.run_sql("insert into {schema}.events values (1000, 'VIEW', 3, '2026-02-01')")
        second = run("run")
        assert second["cleaned_events"] == second["event_summary"] == "UNCHANGED"
        assert oid(project, "raw_events") != old_source
        assert [oid(project, name) for name in ("cleaned_events", "event_summary")] == before
        wait_fresh(project, "event_summary")
        assert_current(project, "cleaned_events", "event_summary")
        assert one(project, "select events from {schema}.event_summary where kind = 'view'") == 30
        assert one(project, "select sum(amount) from {schema}.monthly_report") == one(project, "select sum(amount) from {schema}.cleaned_events")

    def test_A19_summary_sees_only_net_differences(self, project):
        """The source is swapped for one with a single new row; in the tables above that is one row, not all of them."""
        wait_fresh(project, "event_summary")
        before = rows(project, """select pgt_name, total_rows_inserted + total_rows_deleted from pgtrickle.pg_stat_stream_tables
            where pgt_schema = '{schema}' order by 1""")
        project.run_sql("insert into {schema}.events values (1001, 'VIEW', 3, '2026-02-01')")
        run("run", "--select", "raw_events")
        wait_fresh(project, "event_summary")
        after = rows(project, """select pgt_name, total_rows_inserted + total_rows_deleted from pgtrickle.pg_stat_stream_tables
            where pgt_schema = '{schema}' order by 1""")
        written = {name: after - before for (name, before), (_, after) in zip(before, after)}
        assert written["cleaned_events"] == 1 and written["event_summary"] <= 2

    def test_A20_only_the_source_is_run(self, project):
        before = oid(project, "cleaned_events")
        run("run", "--select", "raw_events", "--vars", "{factor: 10}")
        assert one(project, "select count(*) from {schema}.cleaned_events") > 0
        wait_fresh(project, "event_summary")
        assert_current(project, "cleaned_events", "event_summary")
        assert oid(project, "cleaned_events") == before
        assert one(project, "select sum(amount) from {schema}.event_summary") == one(project, "select sum(amount) * 10 from {schema}.events")

    def test_A20_staleness_is_visible_while_the_source_is_missing(self, project):
        project.run_sql("alter table {schema}.raw_events rename to raw_events_away")
        staleness = [one(project, "select staleness from pgtrickle.get_staleness('{schema}.cleaned_events')")]
        count = one(project, "select count(*) from {schema}.cleaned_events")
        assert count > 0
        project.run_sql("select pg_sleep(0.5)")
        project.run_sql("alter table {schema}.raw_events_away rename to raw_events")
        wait_fresh(project, "event_summary")
        assert_current(project, "cleaned_events", "event_summary")
        assert staleness[0] is not None

    def test_A23_table_and_incremental_read_a_stream_table(self, project):
        put(project, "models/as_table.sql", "{{ config(materialized='table') }} select * from {{ ref('event_summary') }}")
        put(project, "models/as_incremental.sql", """{{ config(materialized='incremental', unique_key='id') }}
            select * from {{ ref('cleaned_events') }}
            {% if is_incremental() %} where id > (select coalesce(max(id), 0) from {{ this }}) {% endif %}""")
        run("run", "--select", "as_table", "as_incremental")
        project.run_sql("insert into {schema}.raw_events values (5000, 'VIEW', 1, '2026-03-01')")
        wait_fresh(project, "event_summary")
        assert run("run", "--select", "as_table", "as_incremental")["as_incremental"] == "INSERT 0 1"
        assert one(project, "select count(*) from {schema}.as_incremental") == one(project, "select count(*) from {schema}.cleaned_events")
        assert rows(project, "table {schema}.as_table except all table {schema}.event_summary") == []

    def test_A27_snapshot_of_a_stream_table(self, project):
        put(project, "snapshots/snap_summary.sql", """{% snapshot snap_summary %}
            {{ config(target_schema=target.schema, unique_key='kind', strategy='check', check_cols=['events', 'amount']) }}
            select * from {{ ref('event_summary') }} where kind is not null
            {% endsnapshot %}""")
        run("snapshot")
        project.run_sql("insert into {schema}.raw_events values (5001, 'VIEW', 1, '2026-03-01')")
        wait_fresh(project, "event_summary")
        run("snapshot")
        assert rows(project, """select kind, count(*), count(dbt_valid_to) from {schema}.snap_summary group by 1 order by 1""") == [
            ("click", 1, 0), ("view", 2, 1)]


class TestChains:
    """silver_orders -> gold_revenue, verbatim, and a view in between."""

    @pytest.fixture(scope="class")
    def models(self):
        return {
            "silver_orders.sql": """{{ config(materialized='pgtrickle', schedule='2s', refresh_mode='DIFFERENTIAL') }}

SELECT o.*, c.region, c.tier
FROM {{ source('app', 'orders') }} o
JOIN {{ source('app', 'customers') }} c ON c.id = o.customer_id
""",
            "gold_revenue.sql": """{{ config(materialized='pgtrickle', schedule='3s', refresh_mode='DIFFERENTIAL') }}

SELECT region, SUM(amount) AS revenue, COUNT(*) AS orders
FROM {{ ref('silver_orders') }}
GROUP BY region
""",
            "between.sql": "{{ config(materialized='view') }} select * from {{ ref('silver_orders') }} where amount > 10",
            "over_view.sql": "{{ config(materialized='pgtrickle', schedule='1s') }} select tier, count(*) as n from {{ ref('between') }} group by tier",
            "sources.yml": SOURCES}

    @pytest.fixture(scope="class", autouse=True)
    def tables(self, project):
        project.run_sql(TABLES)

    def test_A17_dependencies_are_those_of_the_manifest(self, project):
        run("run")
        nodes = artifact(project, "manifest.json")["nodes"]

        def stream_tables_below(node_id):
            """Through everything that is no stream table."""
            found = set()
            for parent in nodes[node_id]["depends_on"]["nodes"]:
                if parent in nodes:
                    is_one = nodes[parent]["config"]["materialized"] == "pgtrickle"
                    found |= {nodes[parent]["name"]} if is_one else stream_tables_below(parent)
            return found

        expected = {(node["name"], below) for node_id, node in nodes.items() if node["config"]["materialized"] == "pgtrickle"
                    for below in stream_tables_below(node_id)}
        found = set(rows(project, """select s.pgt_name, d.source_name from pgtrickle.pgt_dependencies d join pgtrickle.pgt_stream_tables s using (pgt_id)
            where s.pgt_schema = '{schema}' and d.source_type = 'STREAM_TABLE'"""))
        assert found == expected == {("gold_revenue", "silver_orders"), ("over_view", "silver_orders")}

    def test_A18_gold_and_silver_agree_in_every_read(self, project):
        """Amounts only grow.  Gold, read together with silver, shows what silver shows or what it showed before, never more."""
        assert (option(project, "silver_orders", "schedule"), option(project, "gold_revenue", "schedule")) == ("2s", "3s")
        behind = 0
        for i in range(50):
            project.run_sql("update {schema}.orders set amount = amount + 1 where id %% 7 = %d" % (i % 7))
            project.run_sql("select pg_sleep(0.1)")
            gold, silver = project.run_sql("""select (select sum(revenue) from {schema}.gold_revenue), (select sum(amount) from {schema}.silver_orders)""",
                                           fetch="one")
            assert gold <= silver
            behind += gold < silver
        assert behind > 0, "silver was never ahead, so this has shown nothing"
        wait_fresh(project, "gold_revenue")
        assert_current(project, "silver_orders", "gold_revenue")
        assert rows(project, """select region, revenue, orders from {schema}.gold_revenue
            except select region, sum(amount), count(*) from {schema}.silver_orders group by 1""") == []

    def test_A21_stream_table_over_a_view(self, project):
        before = oid(project, "over_view")
        wait_fresh(project, "over_view")
        fulls = "select count(*) from pgtrickle.pgt_refresh_history join pgtrickle.pgt_stream_tables using (pgt_id) where pgt_schema = '{schema}' and action = 'FULL'"
        fulls_before = one(project, fulls)
        for _ in range(2):
            messages = run("run", "--select", "between", "over_view")
            assert messages["over_view"] == "UNCHANGED"
        assert oid(project, "over_view") == before
        # dbt has made the view anew each time; the stream table does not take that for another query
        wait_fresh(project, "over_view")
        assert one(project, fulls) == fulls_before
        put(project, "models/between.sql", "{{ config(materialized='view') }} select * from {{ ref('silver_orders') }} where amount > 20")
        messages = run("run", "--select", "between", "over_view")
        wait_fresh(project, "over_view")
        assert_current(project, "over_view")
        assert rows(project, "select * from {schema}.over_view order by 1") == rows(
            project, "select tier, count(*) from {schema}.silver_orders where amount > 20 group by 1 order by 1")
        assert oid(project, "over_view") == before

    def test_A22_view_over_a_stream_table(self, project):
        put(project, "models/on_top.sql", "{{ config(materialized='view') }} select region, revenue from {{ ref('gold_revenue') }}")
        run("run", "--select", "on_top")
        before = oid(project, "gold_revenue")
        for order in (("gold_revenue",), ("on_top",), ("on_top", "gold_revenue"), ("on_top",)):
            run("run", "--select", *order)
        assert oid(project, "gold_revenue") == before and is_stream_table(project, "gold_revenue")
        view = oid(project, "on_top")
        put(project, "models/gold_revenue.sql", """{{ config(materialized='pgtrickle', schedule='3s', refresh_mode='DIFFERENTIAL') }}
            SELECT region, SUM(amount) * 2 AS revenue, COUNT(*) AS orders FROM {{ ref('silver_orders') }} GROUP BY region""")
        assert run("run", "--select", "gold_revenue")["gold_revenue"].startswith("MIGRATE STREAM TABLE")
        assert oid(project, "gold_revenue") == before and oid(project, "on_top") == view
        assert one(project, "select sum(revenue) from {schema}.on_top") == one(project, "select sum(amount) * 2 from {schema}.silver_orders")
