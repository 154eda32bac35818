# dbt/tests/test_config.py
#     Acceptance rows A26, A29, B09, D15-D23: what a model can say, and what is refused.
import pytest
from dbt.tests.util import run_dbt, run_dbt_and_capture
from helpers import assert_current, is_stream_table, oid, one, option, put, rows, run, statuses, take_away, wait_fresh

TABLES = """
create table {schema}.orders (id int primary key, customer text, amount numeric);
insert into {schema}.orders select i, 'c' || i % 7, i from generate_series(1, 100) i;
"""

SOURCES = """
sources:
  - name: app
    schema: "{{ target.schema }}"
    tables: [{name: orders}]
"""

QUERY = "select id, customer, amount from {{ source('app', 'orders') }}"


def model(query=QUERY, **config):
    config = {"materialized": "pgtrickle", "schedule": "1s", **config}
    return "{{ config(%s) }} %s" % (", ".join("%s=%r" % item for item in config.items() if item[1] is not Ellipsis), query)


def message_of_failure(project, name, text, *arguments):
    """Runs a model that must not come into being; why."""
    put(project, "models/%s.sql" % name, text)
    results = run_dbt(["run", "--select", name, *arguments], expect_pass=False).results
    take_away(project, "models/%s.sql" % name)
    assert one(project, "select to_regclass('{schema}.%s')" % name) is None
    return results[0].message


class Base:
    @pytest.fixture(scope="class")
    def models(self):
        return {"sources.yml": SOURCES}

    @pytest.fixture(scope="class", autouse=True)
    def tables(self, project):
        project.run_sql(TABLES)


class TestModes(Base):
    def test_A29_differential_is_refused_with_the_construct(self, project):
        message = message_of_failure(project, "by_delta", model("select id, random() as r from {{ source('app', 'orders') }}", refresh_mode="DIFFERENTIAL"))
        assert "random" in message and "by_delta" in message

    def test_A29_auto_falls_back_with_a_warning(self, project):
        put(project, "models/in_full.sql", model("select id, row_number() over (order by amount, id) as n from {{ source('app', 'orders') }}", refresh_mode="FULL"))
        run("run", "--select", "in_full")
        assert option(project, "in_full", "effective_refresh_mode") == "FULL"
        put(project, "models/falls_back.sql", model("select id, current_date as today from {{ source('app', 'orders') }}", refresh_mode="AUTO"))
        results, output = run_dbt_and_capture(["run", "--select", "falls_back"])
        assert option(project, "falls_back", "effective_refresh_mode") == "FULL"
        assert "refreshed in full" in output
        assert option(project, "falls_back", "downgrade_reason") in " ".join(output.split())

    def test_A29_reason_and_hint_of_differential(self, project):
        message = message_of_failure(project, "not_by_delta", model(
            "select id, current_date as today from {{ source('app', 'orders') }}", refresh_mode="DIFFERENTIAL"))
        assert "by delta" in message and "current date" in message and "HINT" in message.upper()

    def test_A26_immediate_reads_its_own_writes(self, project):
        query = "select customer, sum(amount) as amount, count(*) as n from {{ source('app', 'orders') }} group by 1"
        put(project, "models/at_once.sql", model(query, refresh_mode="IMMEDIATE"))
        assert run("run", "--select", "at_once") == {"at_once": "CREATE STREAM TABLE"}
        before = oid(project, "at_once")
        import psycopg2
        connection = psycopg2.connect(host=project.adapter.config.credentials.host, dbname="postgres", user="postgres")
        with connection.cursor() as cursor:
            cursor.execute("insert into %s.orders values (700, 'mine', 5), (701, 'mine', 6)" % project.test_schema)
            cursor.execute("select amount, n from %s.at_once where customer = 'mine'" % project.test_schema)
            assert cursor.fetchall() == [(11, 2)]
            connection.rollback()
            cursor.execute("select count(*) from %s.at_once where customer = 'mine'" % project.test_schema)
            assert cursor.fetchall() == [(0,)]
        connection.close()
        assert run("run", "--select", "at_once") == {"at_once": "UNCHANGED"}
        put(project, "models/at_once.sql", model(query.replace("count(*)", "count(*) + 1"), refresh_mode="IMMEDIATE"))
        assert run("run", "--select", "at_once")["at_once"].startswith("MIGRATE STREAM TABLE")
        put(project, "models/at_once.sql", model(query.replace("count(*)", "count(*) + 1"), refresh_mode="AUTO"))
        assert run("run", "--select", "at_once")["at_once"] == "ALTER STREAM TABLE: refresh_mode IMMEDIATE -> AUTO"
        put(project, "models/at_once.sql", model(query.replace("count(*)", "count(*) + 1"), refresh_mode="IMMEDIATE"))
        run("run", "--select", "at_once", "--full-refresh")
        assert oid(project, "at_once") == before
        assert rows(project, "select customer, amount, n from {schema}.at_once except select customer, sum(amount), count(*) + 1 from {schema}.orders group by 1") == []

    def test_D18_cluster_is_ignored_with_a_warning(self, project):
        put(project, "models/in_cluster.sql", model(cluster="quickstart"))
        results, output = run_dbt_and_capture(["run", "--select", "in_cluster"])
        assert output.count("cluster has no meaning here") == 1
        put(project, "macros/generate_cluster_name.sql", "{% macro generate_cluster_name(custom_cluster_name) -%} {{ custom_cluster_name }} {%- endmacro %}")
        assert run("run", "--select", "in_cluster") == {"in_cluster": "UNCHANGED"}

    def test_D19_other_database(self, project):
        put(project, "models/elsewhere.sql", model(database="elsewhere"))
        with pytest.raises(Exception, match="[Cc]ross-db|other than"):
            run_dbt(["run", "--select", "elsewhere"], expect_pass=False)
            raise Exception(run_dbt(["run", "--select", "elsewhere"], expect_pass=False).results[0].message)
        take_away(project, "models/elsewhere.sql")

    def test_D20_refresh_interval(self, project):
        for name, interval, schedule in (
                ("daily", {"at_creation": True, "every": "1 day"}, "1d"),
                ("aligned", {"every": "1 day", "aligned_to": "2024-10-22T10:40:33+00:00"}, "CRON_TZ=UTC 33 40 10 * * *"),
                ("aligned_hours", {"every": "6 hours", "aligned_to": "2024-10-22 10:40:00"}, "CRON_TZ=UTC 0 40 4-23/6 * * *"),
                ("on_commit", {"on_commit": True}, "continuous"),
                ("once", {"at_creation": True}, "manual")):
            put(project, "models/%s.sql" % name, model(schedule=Ellipsis, refresh_interval=interval))
            run("run", "--select", name)
            assert option(project, name, "schedule") == schedule
        assert one(project, "select count(*) from {schema}.once") == 100

    def test_D21_retained_history(self, project):
        query = "select customer, sum(amount) as amount from {{ source('app', 'orders') }} group by 1"
        put(project, "models/kept.sql", model(query, retain_history="1hr"))
        assert run("run", "--select", "kept") == {"kept": "CREATE STREAM TABLE"}
        wait_fresh(project, "kept")
        moment = one(project, "select statement_timestamp()")
        before = rows(project, "select * from {schema}.kept order by 1")
        project.run_sql("update {schema}.orders set amount = amount + 1 where customer = 'c1'".replace("{schema}", project.test_schema))
        wait_fresh(project, "kept")
        position = one(project, "select pgtrickle.history_position('{schema}.kept')")
        changes = rows(project, "select weight, row_data->>'customer', (row_data->>'amount')::numeric from pgtrickle.history('{schema}.kept')")
        now = one(project, "select amount from {schema}.kept where customer = 'c1'")
        assert changes == [(-1, "c1", dict(before)["c1"]), (1, "c1", now)]
        assert rows(project, "select * from pgtrickle.as_of(null::{schema}.kept, '%s') order by 1" % moment) == before
        project.run_sql("insert into {schema}.orders values (900, 'late', 1)".replace("{schema}", project.test_schema))
        wait_fresh(project, "kept")
        assert rows(project, "select weight, row_data->>'customer' from pgtrickle.history('{schema}.kept', after_change => %d)" % position) == [(1, "late")]

        assert run("run", "--select", "kept") == {"kept": "UNCHANGED"}
        put(project, "models/kept.sql", model(query, retain_history="1w"))
        assert run("run", "--select", "kept") == {"kept": "ALTER STREAM TABLE: retain_history 01:00:00 -> 7 days"}
        put(project, "models/kept.sql", model(query.replace("sum(amount)", "sum(amount) + 1"), retain_history="1w"))
        assert run("run", "--select", "kept")["kept"].startswith("MIGRATE STREAM TABLE")
        assert rows(project, "select * from pgtrickle.as_of(null::{schema}.kept, '%s') order by 1" % moment) == before
        put(project, "models/kept.sql", model(query.replace("sum(amount)", "sum(amount) + 1")))
        assert run("run", "--select", "kept") == {"kept": "ALTER STREAM TABLE: retain_history 7 days -> none"}
        assert option(project, "kept", "options") == {}
        project.run_sql("delete from {schema}.orders where id = 900".replace("{schema}", project.test_schema))

    def test_D21_refused(self, project):
        assert "invalid retain_history 'long' - use a duration" in message_of_failure(project, "not_kept", model(retain_history="long"))
        assert "cannot be IMMEDIATE and retain its history" in message_of_failure(project, "not_kept", model(retain_history="1d", refresh_mode="IMMEDIATE"))

    def test_D20_at_creation_false_leaves_it_to_the_applier(self, project):
        put(project, "models/later.sql", model(schedule=Ellipsis, refresh_interval={"every": "1 day", "at_creation": False}, wait=False))
        run("run", "--select", "later")
        wait = "select pgtrickle.refresh_stream_table('{schema}.later')"
        project.run_sql(wait, fetch="one")
        assert one(project, "select count(*) from {schema}.later") == 100

    def test_D20_refused(self, project):
        assert "contradict each other" in message_of_failure(project, "both", model(refresh_interval={"every": "1 day"}))
        assert "refresh_interval" in message_of_failure(project, "odd", model(schedule=Ellipsis, refresh_interval={"every": "7 minutes", "aligned_to": "2024-10-22T10:40:33+00:00"}))
        assert "'sometimes'" in message_of_failure(project, "unknown", model(schedule=Ellipsis, refresh_interval={"sometimes": True}))

    def test_A03_three_forms(self, project):
        """SQL beats YAML beats the project; and everything may stand below meta.pgtrickle."""
        put(project, "models/forms/in_sql.sql", "{{ config(materialized='pgtrickle', schedule='1s') }} " + QUERY)
        put(project, "models/forms/in_yaml.sql", QUERY)
        put(project, "models/forms/in_project.sql", QUERY)
        put(project, "models/forms/in_meta.sql", "{{ config(meta={'pgtrickle': {'schedule': '4s', 'refresh_mode': 'FULL'}}) }} " + QUERY)
        put(project, "models/forms.yml", """
models:
  - name: in_sql
    config: {schedule: '2s', refresh_mode: differential}
  - name: in_yaml
    config: {schedule: '2s'}
""")
        import yaml
        path = project.project_root + "/dbt_project.yml"
        with open(path) as file:
            old = file.read()
        config = yaml.safe_load(old)
        config["models"] = {"test": {"forms": {"+materialized": "pgtrickle", "+schedule": "3s", "+refresh_mode": "AUTO"}}}
        put(project, "dbt_project.yml", yaml.safe_dump(config))
        run("run", "--select", "path:models/forms")
        put(project, "dbt_project.yml", old)
        assert [(name, option(project, name, "schedule"), option(project, name, "refresh_mode")) for name in ("in_sql", "in_yaml", "in_project")] == [
            ("in_sql", "1s", "DIFFERENTIAL"), ("in_yaml", "2s", "AUTO"), ("in_project", "3s", "AUTO")]

    def test_A28_unknown_key_names_the_closest(self, project):
        message = message_of_failure(project, "typo", model(meta={"pgtrickle": {"shedule": "1s"}}))
        assert "unknown key 'shedule'" in message and "did you mean 'schedule'" in message

    def test_A28_options_of_upstream(self, project):
        assert "cdc_mode" in message_of_failure(project, "bad_cdc", model(cdc_mode="sometimes"))
        assert "status" in message_of_failure(project, "bad_status", model(status="ASLEEP"))
        assert "on_query_change" in message_of_failure(project, "bad_change", model(on_query_change="perhaps"))
        assert "initialize" in message_of_failure(project, "bad_initialize", model(initialize="now"))
        assert "wait_timeout" in message_of_failure(project, "bad_wait", model(wait_timeout="soon"))
        put(project, "models/as_upstream.sql", model(cdc_mode="auto", append_only=False))
        run("run", "--select", "as_upstream")
        assert run("run", "--select", "as_upstream") == {"as_upstream": "UNCHANGED"}

    def test_A10_options_are_altered_in_place(self, project):
        put(project, "models/altered.sql", model())
        run("run", "--select", "altered")
        before = oid(project, "altered")
        put(project, "models/altered.sql", model(refresh_mode="FULL"))
        assert run("run", "--select", "altered") == {"altered": "ALTER STREAM TABLE: refresh_mode AUTO -> FULL"}
        put(project, "models/altered.sql", model(refresh_mode="FULL", status="PAUSED"))
        assert run("run", "--select", "altered") == {"altered": "ALTER STREAM TABLE: status ACTIVE -> PAUSED"}
        put(project, "models/altered.sql", model(status="ACTIVE"))
        run("run", "--select", "altered")
        wait_fresh(project, "altered")
        assert oid(project, "altered") == before
        assert_current(project, "altered")

    def test_A11_full_refresh_false_is_honoured(self, project):
        put(project, "models/never.sql", model(full_refresh=False))
        run("run", "--select", "never")
        assert run("run", "--select", "never", "--full-refresh") == {"never": "UNCHANGED"}

    def test_A11_on_query_change(self, project):
        changed = QUERY.replace("amount", "amount + 1 as amount")
        put(project, "models/kept.sql", model(on_query_change="ignore"))
        run("run", "--select", "kept")
        put(project, "models/kept.sql", model(changed, on_query_change="ignore"))
        results, output = run_dbt_and_capture(["run", "--select", "kept"])
        assert results.results[0].message == "UNCHANGED" and "keeps its old query" in output
        put(project, "models/kept.sql", model(changed, on_query_change="fail"))
        assert "on_query_change is 'fail'" in run("run", "--select", "kept", expect_pass=False)["kept"]
        put(project, "models/kept.sql", model(changed, on_query_change="full_refresh"))
        assert run("run", "--select", "kept")["kept"].startswith("REBUILD STREAM TABLE")
        assert_current(project, "kept")


class TestIndexes(Base):
    def indexes(self, project, name):
        return rows(project, """select i.relname, x.indisunique, am.amname, array_agg(a.attname::text order by k.n), i.oid
            from pg_index x join pg_class i on i.oid = x.indexrelid join pg_am am on am.oid = i.relam
            join lateral unnest(x.indkey) with ordinality k (attnum, n) on true join pg_attribute a on a.attrelid = x.indrelid and a.attnum = k.attnum
            where x.indrelid = '{schema}.%s'::regclass and obj_description(i.oid, 'pg_class') like 'dbt_pgtrickle %%' group by 1, 2, 3, 5 order by 1""" % name)

    def test_D16_indexes_are_changed_by_difference(self, project):
        wanted = [{"columns": ["customer", "amount"]}, {"columns": ["id"], "unique": True, "type": "btree", "name": "ix_id"}, {"columns": ["customer"], "type": "hash"}]
        put(project, "models/indexed.sql", model(indexes=wanted))
        run("run", "--select", "indexed")
        first = self.indexes(project, "indexed")
        assert sorted(row[1:4] for row in first) == [(False, "btree", ["customer", "amount"]), (False, "hash", ["customer"]), (True, "btree", ["id"])]
        assert "ix_id" in [row[0] for row in first]
        project.run_sql("create index by_hand on {schema}.indexed (amount)")
        assert run("run", "--select", "indexed") == {"indexed": "UNCHANGED"}
        assert self.indexes(project, "indexed") == first
        put(project, "models/indexed.sql", model(indexes=[{"columns": ["amount", "customer"]}, wanted[1]]))
        run("run", "--select", "indexed")
        second = self.indexes(project, "indexed")
        assert sorted(row[1:4] for row in second) == [(False, "btree", ["amount", "customer"]), (True, "btree", ["id"])]
        assert [row[0] for row in second if row in first] == ["ix_id"]
        assert one(project, "select count(*) from pg_class where relname = 'by_hand'") == 1

    def test_D16_cluster_and_default(self, project):
        put(project, "models/by_default.sql", model(indexes=[{"default": True, "cluster": "c"}]))
        results, output = run_dbt_and_capture(["run", "--select", "by_default"])
        assert [row[3] for row in self.indexes(project, "by_default")] == [["id", "customer", "amount"]]
        assert "cluster" in output and "ignored" in output
        put(project, "models/by_default.sql", model(indexes=[{"default": True}], unique_key="id"))
        run("run", "--select", "by_default")
        assert (True, "btree", ["id"]) in [row[1:4] for row in self.indexes(project, "by_default")]

    def test_D16_bad_index(self, project):
        assert "unknown key 'colums'" in message_of_failure(project, "bad_index", model(indexes=[{"colums": ["id"]}]))

    def test_D16_indexes_survive_a_migration(self, project):
        put(project, "models/moves.sql", model(indexes=[{"columns": ["customer"]}]))
        run("run", "--select", "moves")
        put(project, "models/moves.sql", model(QUERY + " where id > 10", indexes=[{"columns": ["customer"]}]))
        assert run("run", "--select", "moves")["moves"].startswith("MIGRATE")
        assert [row[3] for row in self.indexes(project, "moves")] == [["customer"]]

    def test_D17_unique_keys_are_swapped(self, project):
        put(project, "models/swapped.sql", model("select id, customer, amount from {{ source('app', 'orders') }}", unique_key="amount"))
        run("run", "--select", "swapped")
        project.run_sql("update {schema}.orders set amount = 101 - amount")
        project.run_sql("begin; update {schema}.orders set amount = 3 - amount where amount in (1, 2); update {schema}.orders set amount = -amount; commit")
        wait_fresh(project, "swapped")
        assert_current(project, "swapped")
        assert option(project, "swapped", "status") == "ACTIVE"

    def test_D15_indexes_on_views(self, project):
        """dbt ignores them; the doctor of the project says so."""
        put(project, "models/a_view.sql", "{{ config(materialized='view', indexes=[{'default': True}]) }} " + QUERY)
        put(project, "models/over_view.sql", model("select customer, count(*) as n from {{ ref('a_view') }} group by 1", indexes=[{"columns": ["customer"], "unique": True}]))
        run("run", "--select", "a_view", "over_view")
        assert one(project, "select relkind from pg_class where oid = '{schema}.a_view'::regclass") in ("v", b"v")
        assert_current(project, "over_view")
        _, output = run_dbt_and_capture(["run-operation", "pgtrickle_doctor"])
        assert "a_view" in output and "indexes" in output

    def test_B09_analyze_hooks(self, project):
        put(project, "models/analyzed.sql", model(post_hook="analyze {{ this }}"))
        run("run", "--select", "analyzed")
        project.run_sql("insert into {schema}.orders values (500, 'x', 5)")
        wait_fresh(project, "analyzed")
        assert one(project, "select reltuples from pg_class where oid = '{schema}.analyzed'::regclass") >= 100
        put(project, "models/analyzed.sql", model(post_hook={"sql": "vacuum analyze {{ this }}", "transaction": False}))
        assert run("run", "--select", "analyzed") == {"analyzed": "UNCHANGED"}
        for _ in range(3):
            project.run_sql("insert into {schema}.orders select max(id) + 1, 'x', 5 from {schema}.orders")
            run("run", "--select", "analyzed")
        wait_fresh(project, "analyzed")
        assert_current(project, "analyzed")


CONTRACT = """
models:
  - name: with_contract
    config:
      contract: {enforced: true}
    columns:
      - name: amount
        data_type: numeric
      - name: id
        data_type: %s
        constraints: %s
      - name: customer
        data_type: text
"""


class TestContracts(Base):
    def contract(self, project, id_type="integer", constraints="[]", extra=""):
        put(project, "models/contract.yml", CONTRACT % (id_type, constraints) + extra)

    def test_D22_contract(self, project):
        put(project, "models/with_contract.sql", model())
        self.contract(project)
        assert run("run", "--select", "with_contract") == {"with_contract": "CREATE STREAM TABLE"}
        assert [row[0] for row in rows(project, """select attname from pg_attribute where attrelid = '{schema}.with_contract'::regclass and attnum > 0
            and not attisdropped order by attnum""")] == ["amount", "id", "customer"]
        assert run("run", "--select", "with_contract") == {"with_contract": "UNCHANGED"}

    def test_D22_broken_contract_leaves_everything(self, project):
        before = oid(project, "with_contract")
        self.contract(project, id_type="text")
        message = run("run", "--select", "with_contract", expect_pass=False)["with_contract"]
        assert "contract" in message and "id" in message
        assert oid(project, "with_contract") == before
        self.contract(project)
        put(project, "models/with_contract.sql", model("select id, customer from {{ source('app', 'orders') }}"))
        assert "amount" in run("run", "--select", "with_contract", expect_pass=False)["with_contract"]
        assert oid(project, "with_contract") == before
        put(project, "models/with_contract.sql", model())
        wait_fresh(project, "with_contract")
        assert_current(project, "with_contract")

    def test_D23_constraints_are_enforced(self, project):
        self.contract(project, constraints="[{type: not_null, warn_unsupported: false}, {type: check, expression: 'id > 0', name: positive, warn_unsupported: false},"
                      " {type: primary_key, warn_unsupported: false}]")
        run("run", "--select", "with_contract", "--full-refresh")
        assert set(row[0] for row in rows(project, "select contype::text from pg_constraint where conrelid = '{schema}.with_contract'::regclass")) == {"c", "p"}
        assert one(project, "select attnotnull from pg_attribute where attrelid = '{schema}.with_contract'::regclass and attname = 'id'")

    def test_D23_violation_later_keeps_the_last_good_rows(self, project):
        count = one(project, "select count(*) from {schema}.with_contract")
        project.run_sql("insert into {schema}.orders values (-1, 'bad', 1)")
        for _ in range(60):
            if one(project, "select consecutive_errors from pgtrickle.pgt_stream_tables where pgt_relid = '{schema}.with_contract'::regclass"):
                break
            project.run_sql("select pg_sleep(0.25)")
        put(project, "models/health.yml", "models:\n  - name: with_contract\n    data_tests: [dbt_pgtrickle.stream_table_healthy]\n")
        # one model, one properties file
        take_away(project, "models/health.yml")
        self.contract(project, constraints="[{type: check, expression: 'id > 0', name: positive, warn_unsupported: false}]",
                      extra="    data_tests: [dbt_pgtrickle.stream_table_healthy]\n")
        assert list(statuses("test", "--select", "test_name:stream_table_healthy").values()) == ["fail"]
        assert one(project, "select count(*) from {schema}.with_contract") == count
        assert "positive" in one(project, "select error_message from pgtrickle.get_refresh_history('{schema}.with_contract') where error_message is not null limit 1")
        project.run_sql("delete from {schema}.orders where id = -1")
        project.run_sql("select pgtrickle.resume_stream_table('{schema}.with_contract') where (select status from pgtrickle.pgt_stream_tables where pgt_relid = '{schema}.with_contract'::regclass) <> 'ACTIVE'")
        project.run_sql("select pgtrickle.refresh_stream_table('{schema}.with_contract')")
        assert_current(project, "with_contract")

    def test_D23_violation_at_creation_fails_and_leaves_the_old(self, project):
        before = oid(project, "with_contract")
        self.contract(project, constraints="[{type: check, expression: 'id > 50', name: large, warn_unsupported: false}]")
        message = run("run", "--select", "with_contract", "--full-refresh", expect_pass=False)["with_contract"]
        assert "large" in message
        assert oid(project, "with_contract") == before
        assert_current(project, "with_contract")

    def test_D23_foreign_keys_warn(self, project):
        self.contract(project, constraints="[{type: foreign_key, expression: 'orders (id)', warn_unsupported: false, warn_unenforced: false}]")
        _, output = run_dbt_and_capture(["run", "--select", "with_contract", "--full-refresh"])
        assert "foreign keys of stream tables are not supported" in output
