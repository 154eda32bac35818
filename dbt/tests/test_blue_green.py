# dbt/tests/test_blue_green.py
#     Acceptance rows D01 to D09: a new version beside the live one, both maintained, until they change places at one moment.
#
# Two schemas, the second one reading the first, raw data in a third that is not deployed, and stream table, view and publication outside of
# them.  One class is one deployment from the beginning to the rollback and the clean-up; its tests run in order.
import threading
import time

import pytest
from dbt.tests.util import run_dbt, run_dbt_and_capture, write_file

ORDERS = """
{{ config(materialized='pgtrickle', schedule='1s', indexes=[{'columns': ['customer_id']}]) }}
select id, customer_id, amount * %s as amount from {{ source('raw', 'orders') }}
"""
TOTALS = """
{{ config(materialized='pgtrickle', schedule='1s', schema='gold') }}
select customer_id, sum(amount) as total, count(*) as orders from {{ ref('orders') }} group by customer_id
"""
BIG = """
{{ config(materialized='view', schema='gold') }}
select customer_id, total from {{ ref('totals') }} where total > 10
"""
OUTSIDE = """
{{ config(materialized='pgtrickle', schedule='1s', schema='apps') }}
select sum(total) as all_totals from {{ ref('totals') }}
"""
SCHEMA = """
version: 2
sources:
  - name: raw
    schema: "{{ target.schema }}_raw"
    tables:
      - name: orders
"""
# two names in one statement: tables, in either order, and a view outside
LOOKS = [
    "select (select sum(amount) from {0}.orders), (select sum(total) from {0}_gold.totals)",
    "select (select sum(total) from {0}_gold.totals), (select sum(amount) from {0}.orders)",
    "select (select sum(total) from {0}_gold.totals), (select sum(total) from {0}_apps.amounts)",
]


def output_of(*arguments, expect_pass=True):
    return run_dbt_and_capture(list(arguments), expect_pass=expect_pass)[1]


def promote(*arguments, **more):
    return output_of("run-operation", "deploy_promote", *arguments, **more)


class Deployment:
    @pytest.fixture(scope="class")
    def models(self):
        return {"orders.sql": ORDERS % 1, "totals.sql": TOTALS, "big.sql": BIG, "all_totals.sql": OUTSIDE, "schema.yml": SCHEMA}

    @pytest.fixture(scope="class")
    def project_config_update(self, unique_schema):
        schemas = [unique_schema, unique_schema + "_gold"]
        return {"vars": {"deployment": {"default": {"clusters": ["quickstart"], "schemas": schemas}}}}

    @pytest.fixture(scope="class", autouse=True)
    def first_version(self, project):
        project.run_sql("""
            create schema {schema}_raw;
            create table {schema}_raw.orders (id int primary key, customer_id int, amount numeric);
            insert into {schema}_raw.orders select i, i % 5, 1 from generate_series(1, 50) i;
        """)
        run_dbt(["run"])

    def value(self, project, sql):
        return project.run_sql(sql, fetch="one")[0]

    def wrong(self, project):
        """Stream tables of this project that differ from their queries."""
        return project.run_sql("""select s.pgt_schema || '.' || s.pgt_name from pgtrickle.pgt_stream_tables s,
            pgtrickle.verify(format('%I.%I', s.pgt_schema, s.pgt_name)) where s.pgt_schema like '{schema}%' group by 1""", fetch="all")


class TestDeployment(Deployment):
    def test_D01_init_is_refused_without_configuration(self, project):
        assert "no deployment is configured" in output_of("run-operation", "deploy_init", "--vars", "deployment: {}", expect_pass=False)

    def test_D01_init_makes_schemas_alike(self, project):
        project.run_sql("""grant usage on schema {schema}_gold to dbt_test_user_1;
            alter default privileges in schema {schema}_gold grant select on tables to dbt_test_user_1;
            grant select on {schema}_gold.totals, {schema}_gold.big to dbt_test_user_1""")
        output = output_of("run-operation", "deploy_init")
        assert "clusters have no meaning here" in output and "ready to deploy into" in output
        assert project.run_sql("""select s.nspname, pg_get_userbyid(s.nspowner), has_schema_privilege('dbt_test_user_1', s.oid, 'USAGE'),
            (select count(*) from pg_default_acl d where d.defaclnamespace = s.oid)
            from pg_namespace s where s.nspname like '{schema}%dbt_deploy' order by 1""", fetch="all") == [
                (project.test_schema + "_dbt_deploy", "postgres", False, 0), (project.test_schema + "_gold_dbt_deploy", "postgres", True, 1)]
        output_of("run-operation", "deploy_init")

    def test_D01_init_is_refused_without_live_schema(self, project):
        output = output_of("run-operation", "deploy_init", "--vars", "deployment: {default: {schemas: [nowhere]}}", expect_pass=False)
        assert "schema nowhere does not exist" in output

    def test_D02_run_goes_into_the_new_schemas(self, project):
        write_file(ORDERS % 100, project.project_root, "models", "orders.sql")
        live = project.run_sql("select * from {schema}_gold.totals order by 1", fetch="all")
        run_dbt(["run", "--vars", "deploy: True", "--exclude", "all_totals"])
        assert self.value(project, "select sum(total) from {schema}_gold_dbt_deploy.totals") == 5000
        assert project.run_sql("select * from {schema}_gold.totals order by 1", fetch="all") == live
        run_dbt(["run", "--vars", '{"deploy": true}', "--select", "orders"])
        assert "not empty" in output_of("run-operation", "deploy_init", expect_pass=False)
        output_of("run-operation", "deploy_init", "--args", "{ignore_existing_objects: true}")

    def test_D03_await_until_ready(self, project):
        output = output_of("run-operation", "deploy_await", "--args", '{poll_interval: 0.5, lag_threshold: "5s"}')
        assert "2 stream tables are ready" in output

    def test_D03_await_fails_at_once_when_one_has_failed(self, project):
        project.run_sql("""create table {schema}_raw.bad (a int);
            select pgtrickle.create_stream_table('{schema}_dbt_deploy.bad', 'select 1 / a as x from {schema}_raw.bad', '1s');
            insert into {schema}_raw.bad values (0)""")
        for _ in range(600):
            if self.value(project, "select count(*) from pgtrickle.pgt_stream_tables where pgt_name = 'bad' and consecutive_errors > 0") == 1:
                break
            time.sleep(0.1)
        output = output_of("run-operation", "deploy_await", "--args", "{poll_interval: 0.5, timeout: 60}", expect_pass=False)
        assert "has failed: division by zero" in output
        project.run_sql("drop table {schema}_dbt_deploy.bad")

    def test_D04_dry_run_changes_nothing(self, project):
        output = promote("--args", "{dry_run: true}")
        assert 'ALTER SCHEMA "%s_gold_dbt_deploy" RENAME TO "%s_gold"' % (project.test_schema, project.test_schema) in output
        assert self.value(project, "select sum(total) from {schema}_gold.totals") == 50

    def test_D05_lost_things_are_reported(self, project):
        project.run_sql("create table {schema}.by_hand (a int); grant select on {schema}.orders to dbt_test_user_2")
        output = promote(expect_pass=False)
        assert "is in schema" in output and "by_hand" in output
        assert "is not granted to dbt_test_user_2" in output
        assert self.value(project, "select sum(total) from {schema}_gold.totals") == 50
        project.run_sql("drop table {schema}.by_hand; revoke select on {schema}.orders from dbt_test_user_2")

    def test_D06_readers_that_cannot_follow_stop_it(self, project):
        project.run_sql("create materialized view {schema}_apps.frozen as select * from {schema}_gold.totals")
        assert "frozen depends on" in promote(expect_pass=False)
        project.run_sql("drop materialized view {schema}_apps.frozen")
        project.run_sql("create view {schema}_apps.counts as select sum(orders) as n from {schema}_gold.totals")
        project.run_sql("create view {schema}_apps.amounts as select total from {schema}_gold.totals")
        project.run_sql("create publication {schema}_p for table {schema}_gold.totals (customer_id, total) where (customer_id > 1)")

    def test_D04_promote_swaps_all_at_once(self, project, cluster):
        seen, stop = [[] for _ in LOOKS], threading.Event()

        def read(query, looks):
            connection = cluster.connect()
            while not stop.is_set():
                looks.append(cluster.query(connection, query.format(project.test_schema))[0])
            connection.close()

        readers = [threading.Thread(target=read, args=one) for one in zip(LOOKS, seen)]
        for reader in readers:
            reader.start()
        try:
            output = promote("--args", "{wait: true, poll_interval: 0.5, lag_threshold: '5s'}")
            after = [len(looks) for looks in seen]
            while any(len(looks) <= before + 1 for looks, before in zip(seen, after)) and all(reader.is_alive() for reader in readers):
                time.sleep(0.01)
        finally:
            stop.set()
            for reader in readers:
                reader.join()
        assert "live now" in output
        for looks in seen:
            assert set(looks) == {(50, 50), (5000, 5000)}
            assert looks == sorted(looks)
        assert self.value(project, "select sum(total) from {schema}_gold.totals") == 5000
        assert self.value(project, "select sum(total) from {schema}_gold_dbt_deploy.totals") == 50
        assert self.value(project, "select obj_description('{schema}_gold'::regnamespace, 'pg_namespace')").startswith("Deployed by postgres on ")

    def test_D04_both_versions_go_on(self, project):
        project.run_sql("insert into {schema}_raw.orders values (100, 1, 5)")
        assert self.wrong(project) == []
        assert self.value(project, "select sum(total) from {schema}_gold.totals") == 5500
        assert self.value(project, "select sum(total) from {schema}_gold_dbt_deploy.totals") == 55
        assert self.value(project, "select count(*) from {schema}_gold.big") == 5
        assert self.value(project, "select has_table_privilege('dbt_test_user_1', '{schema}_gold.totals', 'SELECT')")
        assert self.value(project, "select count(*) from pg_indexes where schemaname = '{schema}' and indexdef like '%(customer_id)'") == 1

    def test_D06_what_stands_outside_reads_the_new_version(self, project):
        assert self.value(project, "select pgtrickle.wait_fresh('{schema}_apps.all_totals')")
        assert self.value(project, "select all_totals from {schema}_apps.all_totals") == 5500
        assert self.value(project, "select pg_get_viewdef('{schema}_apps.counts'::regclass)").count("dbt_deploy") == 0
        assert project.run_sql("select schemaname, tablename, attnames::text, rowfilter from pg_publication_tables where pubname = '{schema}_p'",
                               fetch="all") == [(project.test_schema + "_gold", "totals", "{customer_id,total}", "(customer_id > 1)")]

    def test_D04_dbt_finds_nothing_to_do_afterwards(self, project):
        assert {r.node.name: r.message for r in run_dbt(["run", "--exclude", "big"])} == {
            "orders": "UNCHANGED", "totals": "UNCHANGED", "all_totals": "UNCHANGED"}

    def test_D08_promoting_again_takes_it_back(self, project):
        promote()
        assert self.value(project, "select sum(total) from {schema}_gold.totals") == 55
        project.run_sql("delete from {schema}_raw.orders where id = 100")
        assert self.wrong(project) == []
        assert self.value(project, "select all_totals from {schema}_apps.all_totals") == 50
        promote()
        assert self.wrong(project) == []
        assert self.value(project, "select all_totals from {schema}_apps.all_totals") == 5000

    def test_D07_cleanup_is_refused_while_others_read(self, project):
        project.run_sql("create view {schema}_apps.old as select * from {schema}_gold_dbt_deploy.totals")
        assert "old reads" in output_of("run-operation", "deploy_cleanup", expect_pass=False)
        assert self.value(project, "select count(*) from {schema}_gold_dbt_deploy.totals") == 5
        project.run_sql("drop view {schema}_apps.old")

    def test_D07_cleanup_drops_everything(self, project):
        output_of("run-operation", "deploy_cleanup")
        assert self.value(project, "select count(*) from pg_namespace where nspname like '{schema}%dbt_deploy'") == 0
        assert self.value(project, "select count(*) from pgtrickle.pgt_stream_tables where pgt_schema like '{schema}%'") == 3
        assert self.wrong(project) == []
        assert "nothing to clean up" in output_of("run-operation", "deploy_cleanup")


class TestRights(Deployment):
    def test_D09_role_that_does_not_own_the_schema(self, project):
        project.run_sql("create role other_owner; alter schema {schema} owner to other_owner; grant all on schema {schema} to dbt_test_user_3")
        report = """set role dbt_test_user_3; select string_agg(finding || ': ' || coalesce(detail, ''), chr(10))
            from pgtrickle.swap_report(array['{schema}'], array['{schema}_next']) where severity = 'error'"""
        project.run_sql("create schema {schema}_next")
        found = self.value(project, report)
        assert 'is not the owner of schema "%s"' % project.test_schema in found and "OWNER TO dbt_test_user_3" in found
        assert "GRANT CREATE ON DATABASE" in found
        with pytest.raises(Exception, match="must be owner of schema"):
            project.run_sql("set role dbt_test_user_3; select pgtrickle.swap_schemas(array['{schema}'], array['{schema}_next'])")
        assert self.value(project, "select count(*) from {schema}.orders") == 50
