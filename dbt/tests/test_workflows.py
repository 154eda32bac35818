# dbt/tests/test_workflows.py
#     Acceptance rows D11-D14, D25-D29, D31, D32: unit tests, continuous tests, slim CI, clone, as the documents show them.
import os
import re
import shutil

import pytest
from dbt.tests.util import run_dbt, run_dbt_and_capture
from helpers import artifact, assert_current, execute, is_stream_table, oid, one, option, put, rows, run, statuses, take_away, wait_fresh

SHIM = """{% materialization test, adapter='postgres' %}
  {{ return(dbt_pgtrickle.materialization_test_postgres()) }}
{% endmaterialization %}"""

TABLES = """
create table {schema}.orders (id int primary key, customer_id int, status text, amount numeric);
insert into {schema}.orders select i, i % 5, 'placed', i from generate_series(1, 20) i;
create table {schema}.customers (id int primary key, region text);
insert into {schema}.customers select i, 'r' || i from generate_series(0, 4) i;
"""

SOURCES = """
sources:
  - name: app
    schema: "{{ target.schema }}"
    tables: [{name: orders}, {name: customers}]
"""


class TestUnitTests:
    """The models and the unit test of the guide, word for word, as stream tables."""

    @pytest.fixture(scope="class")
    def models(self):
        head = "{{ config(materialized='pgtrickle', schedule='1s') }}\n"
        return {
            "my_model_a.sql": head + """SELECT
  1 AS a,
  1 AS id,
  2 AS not_testing,
  'a' AS string_a,
  DATE '2020-01-02' AS date_a
""",
            "my_model_b.sql": head + """SELECT
  2 as b,
  1 as id,
  2 as c,
  'b' as string_b
""",
            "my_model.sql": head + """SELECT
  a+b AS c,
  CONCAT(string_a, string_b) AS string_c,
  not_testing,
  date_a
FROM {{ ref('my_model_a')}} my_model_a
JOIN {{ ref('my_model_b' )}} my_model_b
ON my_model_a.id = my_model_b.id
""",
            "unit_tests.yml": """unit_tests:
  - name: test_my_model
    model: my_model
    given:
      - input: ref('my_model_a')
        rows:
          - {id: 1, a: 1}
      - input: ref('my_model_b')
        rows:
          - {id: 1, b: 2}
          - {id: 2, b: 2}
    expect:
      rows:
        - {c: 2}
"""}

    def test_D12_upstream_has_to_exist(self, project):
        with pytest.raises(Exception):
            result = run_dbt(["test", "--select", "test_type:unit"], expect_pass=False)
            raise Exception(result.results[0].message)

    def test_D13_empty_makes_it_exist(self, project):
        run("run", "--select", "my_model_a.sql", "my_model_b.sql", "--empty")
        assert is_stream_table(project, "my_model_a") and is_stream_table(project, "my_model_b")

    def test_D12_unit_test_fails_as_in_the_guide(self, project):
        results, output = run_dbt_and_capture(["test", "--select", "test_type:unit"], expect_pass=False)
        text = re.sub("\x1b\\[[0-9;]*m|\r", "", output + str(results.results[0].message))
        assert "actual differs from expected:" in text and "@@ ,c\n+++,3\n---,2" in text

    def test_D12_other_formats(self, project):
        put(project, "models/unit_tests.yml", """unit_tests:
  - name: as_csv
    model: my_model
    given:
      - input: ref('my_model_a')
        format: csv
        rows: |
          id,a,string_a
          1,1,x
      - input: ref('my_model_b')
        format: sql
        rows: select 1 as id, 2 as b, 3 as c, 'y' as string_b
    expect:
      rows: [{c: 3, string_c: xy}]
  - name: with_overrides
    model: guarded
    overrides:
      macros: {is_incremental: false}
      vars: {factor: 3}
    given:
      - input: ref('my_model_a')
        rows: [{a: 2}]
    expect:
      rows: [{tripled: 6}]
""")
        put(project, "models/guarded.sql", "{{ config(materialized='pgtrickle', schedule='1s') }} select a * {{ var('factor', 1) }} as tripled from {{ ref('my_model_a') }}")
        assert set(statuses("test", "--select", "test_type:unit").values()) == {"pass"}

    def test_D14_build_runs_unit_tests_before_the_model(self, project):
        results = run_dbt(["build", "--select", "+my_model"]).results
        order = [result.node.name for result in results]
        assert order.index("as_csv") < order.index("my_model") and order.index("my_model_a") < order.index("as_csv")
        assert one(project, "select c from {schema}.my_model") == 3

    def test_D11_show_with_a_limit(self, project):
        results, output = run_dbt_and_capture(["show", "--inline", "select * from {{ ref('my_model') }}", "--limit", "1"])
        assert "string_c" in output

    def test_D13_empty_is_refused_where_it_would_hurt(self, project):
        message = run("run", "--select", "my_model", "--empty", "--vars", "{pgtrickle_protected_targets: [default]}", expect_pass=False)["my_model"]
        assert "--empty would empty" in message
        assert one(project, "select count(*) from {schema}.my_model") == 1


class TestContinuousTests:
    @pytest.fixture(scope="class")
    def project_config_update(self):
        return {"data_tests": {"test": {"+store_failures": True, "+schema": "etl_failure"}}}

    @pytest.fixture(scope="class")
    def macros(self):
        return {"continuous_tests.sql": SHIM}

    @pytest.fixture(scope="class")
    def models(self):
        return {"orders_live.sql": "{{ config(materialized='pgtrickle', schedule='1s') }} select * from {{ source('app', 'orders') }}",
                "customers_live.sql": "{{ config(materialized='pgtrickle', schedule='1s') }} select * from {{ source('app', 'customers') }}",
                "schema.yml": SOURCES + """
models:
  - name: orders_live
    columns:
      - name: id
        data_tests: [not_null, unique]
      - name: status
        data_tests:
          - accepted_values: {values: ['placed', 'shipped']}
      - name: customer_id
        data_tests:
          - relationships: {to: ref('customers_live'), field: id}
"""}

    @pytest.fixture(scope="class")
    def tests(self):
        return {"amounts_are_positive.sql": "select id, amount from {{ ref('orders_live') }} where amount <= 0",
                "volatile.sql": "select id from {{ ref('orders_live') }} where random() > 2"}

    @pytest.fixture(scope="class", autouse=True)
    def tables(self, project):
        project.run_sql(TABLES)

    NAMES = ["accepted_values_orders_live_status__placed__shipped", "amounts_are_positive", "not_null_orders_live_id",
             "relationships_orders_live_customer_id__id__ref_customers_live_", "unique_orders_live_id"]

    def stored(self, project):
        return [row[0] for row in rows(project, "select pgt_name from pgtrickle.pgt_stream_tables where pgt_schema = '{schema}_etl_failure' order by 1")]

    def wait(self, project, name):
        assert one(project, "select pgtrickle.wait_fresh('{schema}_etl_failure.%s', '30s')" % name)

    def test_D25_failures_are_stream_tables(self, project):
        run("run")
        assert set(statuses("test").values()) == {"pass"}
        assert self.stored(project) == self.NAMES

    def test_D25_what_cannot_follow_is_a_table_with_a_warning(self, project):
        _, output = run_dbt_and_capture(["test", "--select", "volatile"])
        assert "which does not follow its sources" in output
        assert one(project, "select count(*) from {schema}_etl_failure.volatile") == 0

    def test_D25_running_again_leaves_them(self, project):
        query = "select relname, c.oid, relfilenode from pg_class c join pgtrickle.pgt_stream_tables s on s.pgt_relid = c.oid where pgt_schema = '{schema}_etl_failure' order by 1"
        before = rows(project, query)
        assert set(statuses("test").values()) == {"pass"}
        assert rows(project, query) == before

    def test_D26_a_bad_row_appears_and_goes(self, project):
        project.run_sql("insert into {schema}.orders values (100, 99, 'lost', -1)")
        for name in self.NAMES:
            self.wait(project, name)
        found = {name: one(project, "select count(*) from {schema}_etl_failure.%s" % name) for name in self.NAMES}
        assert found == {self.NAMES[0]: 1, self.NAMES[1]: 1, self.NAMES[2]: 0, self.NAMES[3]: 1, self.NAMES[4]: 0}
        results = statuses("test")
        assert [results[name] for name in self.NAMES] == ["fail", "fail", "pass", "fail", "pass"]
        project.run_sql("delete from {schema}.orders where id = 100")
        for name in self.NAMES:
            self.wait(project, name)
        assert [one(project, "select count(*) from {schema}_etl_failure.%s" % name) for name in self.NAMES] == [0] * 5
        assert set(statuses("test").values()) == {"pass"}

    def test_D27_they_are_maintained_by_delta(self, project):
        modes = dict(rows(project, "select pgt_name, effective_refresh_mode from pgtrickle.pgt_stream_tables where pgt_schema = '{schema}_etl_failure'"))
        assert set(modes.values()) == {"DIFFERENTIAL"}
        project.run_sql("alter table {schema}.orders drop constraint orders_pkey, alter column id drop not null; update {schema}.orders set id = 1 where id = 2; update {schema}.orders set id = null where id = 3")
        for name in self.NAMES:
            self.wait(project, name)
        assert one(project, "select n_records from {schema}_etl_failure.unique_orders_live_id") == 2
        assert one(project, "select count(*) from {schema}_etl_failure.not_null_orders_live_id") == 1
        project.run_sql("delete from {schema}.orders where id is null; update {schema}.orders set id = 2 where ctid = (select max(ctid) from {schema}.orders where id = 1)")
        assert one(project, "select sum(difference_count) from pgtrickle.verify_all() where pgt_schema = '{schema}_etl_failure'") == 0

    def test_D25_who_asks_for_a_table_gets_one(self, project):
        put(project, "tests/as_table.sql", "{{ config(store_failures_as='table') }} select * from {{ ref('orders_live') }} where amount < 0")
        put(project, "tests/as_view.sql", "{{ config(store_failures_as='view') }} select * from {{ ref('orders_live') }} where amount < 0")
        put(project, "tests/not_continuous.sql", "{{ config(meta={'pgtrickle': {'continuous': false}}) }} select * from {{ ref('orders_live') }} where amount < 0")
        put(project, "tests/not_stored.sql", "{{ config(store_failures_as='ephemeral') }} select * from {{ ref('orders_live') }} where amount < 0")
        assert set(statuses("test", "--select", "as_table", "as_view", "not_continuous", "not_stored").values()) == {"pass"}
        assert self.stored(project) == self.NAMES
        assert rows(project, "select relname, relkind::text from pg_class where relnamespace = '{schema}_etl_failure'::regnamespace and relname in ('as_table', 'as_view', 'not_continuous', 'not_stored') order by 1") \
            == [("as_table", "r"), ("as_view", "v"), ("not_continuous", "r")]


class TestStoreFailuresFlag:
    @pytest.fixture(scope="class")
    def macros(self):
        return {"continuous_tests.sql": SHIM}

    @pytest.fixture(scope="class")
    def models(self):
        return {"m.sql": "{{ config(materialized='pgtrickle', schedule='1s') }} select * from {{ source('app', 'orders') }}",
                "schema.yml": SOURCES + "models: [{name: m, columns: [{name: id, data_tests: [unique]}]}]\n"}

    def test_D25_store_failures_on_the_command_line(self, project):
        project.run_sql(TABLES)
        run("run")
        assert statuses("test", "--store-failures") == {"unique_m_id": "pass"}
        assert rows(project, "select pgt_name from pgtrickle.pgt_stream_tables where pgt_schema = '{schema}_dbt_test__audit'") == [("unique_m_id",)]
        project.run_sql("drop schema {schema}_dbt_test__audit cascade")


class TestSlimCI:
    @pytest.fixture(scope="class")
    def profiles_config_update(self, dbt_profile_target, unique_schema):
        return {"test": {"target": "default", "outputs": {"default": {**dbt_profile_target, "schema": unique_schema},
                                                          "ci": {**dbt_profile_target, "schema": unique_schema + "_ci"}}}}

    MIDDLE = "{{ config(materialized='pgtrickle', schedule='1s') }} select customer_id, amount from {{ ref('base') }}"

    @pytest.fixture(scope="class")
    def models(self):
        return {"base.sql": "{{ config(materialized='pgtrickle', schedule='1s') }} select id, customer_id, amount from app_%s.orders" % "x",
                "middle.sql": self.MIDDLE,
                "top.sql": "{{ config(materialized='pgtrickle', schedule='1s') }} select customer_id, sum(amount) as amount from {{ ref('middle') }} group by 1",
                "apart.sql": "{{ config(materialized='pgtrickle', schedule='1s') }} select count(*) as n from {{ ref('base') }}"}

    @pytest.fixture(scope="class", autouse=True)
    def production(self, project):
        execute(project, "drop schema if exists app_x cascade; create schema app_x; create table app_x.orders (id int primary key, customer_id int, amount numeric);"
                        " insert into app_x.orders select i, i % 5, i from generate_series(1, 20) i")
        run("run")
        state = os.path.join(project.project_root, "state")
        os.makedirs(state)
        shutil.copy(os.path.join(project.project_root, "target", "manifest.json"), state)
        yield
        execute(project, "drop schema if exists {schema}_ci cascade; drop schema app_x cascade")

    def there(self, project):
        return [row[0] for row in rows(project, "select pgt_name from pgtrickle.pgt_stream_tables where pgt_schema = '{schema}_ci' order by 1")]

    def test_D29_only_what_has_changed_is_built(self, project):
        put(project, "models/middle.sql", self.MIDDLE + " where amount > 3")
        run_dbt(["run-operation", "drop_environment", "--target", "ci"])
        built = run("build", "--target", "ci", "--select", "state:modified+", "--state", "state", "--defer")
        assert set(built) == {"middle", "top"} == set(self.there(project))
        assert rows(project, """select d.source_schema from pgtrickle.pgt_dependencies d join pgtrickle.pgt_stream_tables s using (pgt_id)
            where s.pgt_schema = '{schema}_ci' and s.pgt_name = 'middle' and d.source_type = 'STREAM_TABLE'""") == [(project.test_schema,)]
        execute(project, "insert into app_x.orders values (100, 1, 50)")
        assert one(project, "select pgtrickle.wait_fresh('{schema}_ci.top')")
        assert one(project, "select sum(amount) from {schema}_ci.top") == one(project, "select sum(amount) from app_x.orders where amount > 3")
        assert one(project, "select count(*) from pgtrickle.verify('{schema}_ci.top')") == 0

    def test_D29_whitespace_is_no_change_in_the_database(self, project):
        put(project, "models/middle.sql", self.MIDDLE)
        run("run", "--target", "ci", "--select", "middle", "--state", "state", "--defer")
        put(project, "models/middle.sql", self.MIDDLE.replace(" from", "\n  from") + "\n-- nothing\n")
        assert run("run", "--target", "ci", "--select", "state:modified", "--state", "state", "--defer") == {"middle": "UNCHANGED"}

    def test_D29_the_environment_goes_with_its_schemas(self, project):
        run_dbt(["run-operation", "drop_environment", "--target", "ci"])
        assert self.there(project) == []
        assert one(project, "select count(*) from pg_namespace where nspname = '{schema}_ci'") == 0
        _, output = run_dbt_and_capture(["run-operation", "drop_environment", "--vars", "{pgtrickle_protected_targets: [default]}"], expect_pass=False)
        assert "which is protected" in " ".join(output.split())
        assert is_stream_table(project, "top")
        execute(project, "insert into app_x.orders values (101, 1, 50)")
        wait_fresh(project, "top")
        assert_current(project, "base", "middle", "top", "apart")

    def test_D31_clone_makes_stream_tables(self, project):
        run("clone", "--target", "ci", "--state", "state")
        assert self.there(project) == ["apart", "base", "middle", "top"]
        assert one(project, "select sum(amount) from {schema}_ci.top") == one(project, "select sum(amount) from {schema}.top")
        execute(project, "update app_x.orders set amount = amount + 1")
        assert one(project, "select pgtrickle.wait_fresh('{schema}_ci.top')")
        assert one(project, "select count(*) from pgtrickle.verify('{schema}_ci.top')") == 0
        run("run", "--target", "ci")
        assert self.there(project) == ["apart", "base", "middle", "top"]

    def test_D31_views_of_a_clone_become_stream_tables(self, project):
        """Without the dispatch block dbt makes views."""
        execute(project, "drop schema {schema}_ci cascade; create schema {schema}_ci; create view {schema}_ci.apart as select * from {schema}.apart")
        assert run("run", "--target", "ci", "--select", "base", "apart")["apart"] == "CREATE STREAM TABLE"
        assert self.there(project) == ["apart", "base"]


class TestElsewhere:
    @pytest.fixture(scope="class")
    def models(self):
        return {"kafka_topic_c.sql": "{{ config(materialized='sink') }} FROM {{ ref('m') }} INTO KAFKA CONNECTION kafka_connection (TOPIC 'topic_c')",
                "kafka_topic_a.sql": "{{ config(materialized='source') }} FROM KAFKA CONNECTION kafka_connection (TOPIC 'topic_a')",
                "m.sql": "{{ config(materialized='pgtrickle') }} select 1 as id"}

    def test_D32_sources_and_sinks_are_refused_with_the_way(self, project):
        results = run_dbt(["run"], expect_pass=False).results
        messages = {result.node.name: result.message for result in results}
        assert "name it in sources:" in messages["kafka_topic_a"] and "stream_table_to_publication" in messages["kafka_topic_c"]
        assert messages["m"] == "CREATE STREAM TABLE"


DESCRIPTION = "it's \"quoted\" $$dollars$$ $lbl$ \\backslash\nsecond line"


class TestDocs:
    @pytest.fixture(scope="class")
    def models(self):
        import yaml

        return {"documented.sql": "{{ config(materialized='pgtrickle', schedule='1s', persist_docs={'relation': true, 'columns': true}) }} select id, amount from {{ source('app', 'orders') }}",
                "bare.sql": "{{ config(materialized='pgtrickle', schedule='1s', persist_docs={'relation': true, 'columns': true}) }} select id from {{ source('app', 'orders') }}",
                "schema.yml": SOURCES + yaml.safe_dump({"models": [{"name": "documented", "description": DESCRIPTION, "columns": [{"name": "id", "description": DESCRIPTION}]}]})}

    def comments(self, project):
        return rows(project, "select obj_description('{schema}.documented'::regclass, 'pg_class'), col_description('{schema}.documented'::regclass, 1)")[0]

    def test_D28_comments(self, project):
        import yaml

        project.run_sql(TABLES)
        run("run")
        assert self.comments(project) == (DESCRIPTION, DESCRIPTION)
        put(project, "models/schema.yml", SOURCES + yaml.safe_dump({"models": [{"name": "documented", "description": "other", "columns": [{"name": "amount", "description": "more"}]}]}))
        assert run("run")["documented"] == "UNCHANGED"
        assert self.comments(project)[0] == "other"
        assert one(project, "select col_description('{schema}.documented'::regclass, 2)") == "more"
        run_dbt(["docs", "generate"])
        node = artifact(project, "catalog.json")["nodes"]["model.test.documented"]
        assert node["metadata"]["comment"] == "other" and node["columns"]["amount"]["comment"] == "more"
