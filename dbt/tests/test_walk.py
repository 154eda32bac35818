# dbt/tests/test_walk.py
#     A random walk: dbt commands and DML in any order; at the end every model holds what its query gives.
#
# Five models in a chain, each with several texts and materializations.  The seed is printed; PGTRICKLE_DBT_SEED repeats a walk, PGTRICKLE_DBT_STEPS makes it longer.
import os
import random

import pytest
from dbt.tests.util import run_dbt
from helpers import execute, is_stream_table, one, put, rows, take_away

STEPS = int(os.environ.get("PGTRICKLE_DBT_STEPS", "25"))

SOURCES = """
sources:
  - name: app
    schema: "{{ target.schema }}"
    tables: [{name: orders}, {name: customers}]
"""

TEXTS = {
    "stg_orders": ["select id, customer_id, amount, lower(status) as status from {{ source('app', 'orders') }}",
                   "select id, customer_id, amount, lower(status) as status from {{ source('app', 'orders') }} where amount > 3",
                   "with raw as (select * from {{ source('app', 'orders') }}) select id, customer_id, amount + 1 as amount, coalesce(status, 'none') as status from raw"],
    "silver": ["select o.id, o.amount, o.status, c.region from {{ ref('stg_orders') }} o left join {{ source('app', 'customers') }} c on c.id = o.customer_id",
               "select o.id, o.amount, o.status, c.region from {{ ref('stg_orders') }} o join {{ source('app', 'customers') }} c on c.id = o.customer_id",
               "select o.id, o.amount, o.status, r.name as region from {{ ref('stg_orders') }} o left join {{ ref('regions') }} r on r.id = o.customer_id"],
    "gold": ["select region, count(*) as n, sum(amount) as amount from {{ ref('silver') }} group by region",
             "select region, count(*) as n, max(amount) as amount from {{ ref('silver') }} group by region having count(*) > 1",
             "select region, n, amount from (select region, count(*) as n, sum(amount) as amount, rank() over (order by count(*) desc) as place from {{ ref('silver') }} group by region) r where place < 3"],
    "distinct_status": ["select distinct status from {{ ref('silver') }}", "select status from {{ ref('stg_orders') }} union select region from {{ ref('gold') }}"],
    "report": ["select sum(amount) as amount, sum(n) as n from {{ ref('gold') }}"],
}
KINDS = {"stg_orders": ["pgtrickle", "view", "table", "pgtrickle"], "silver": ["pgtrickle", "pgtrickle", "view", "ephemeral"],
         "gold": ["pgtrickle", "stream_table", "pgtrickle", "table"], "distinct_status": ["pgtrickle", "view"], "report": ["table", "view", "pgtrickle"]}
OPTIONS = ["schedule='1s'", "schedule='500ms'", "schedule='continuous'", "schedule='1s', refresh_mode='FULL'", "schedule='calculated'"]

DML = ["insert into {schema}.orders select (select coalesce(max(id), 0) from {schema}.orders) + i, i % 7, i % 11, (array['Placed', 'SHIPPED', null])[1 + i % 3] from generate_series(1, 10) i",
       "update {schema}.orders set amount = amount + 1 where id % 3 = 0", "update {schema}.orders set customer_id = (customer_id + 1) % 7 where id % 5 = 1",
       "delete from {schema}.orders where id % 4 = 2", "update {schema}.customers set region = 'r' || id % 2", "delete from {schema}.customers where id = 3",
       "insert into {schema}.customers values (3, 'back') on conflict do nothing", "truncate {schema}.orders", "update {schema}.customers set region = null where id = 1"]


class TestWalk:
    @pytest.fixture(scope="class")
    def seeds(self):
        return {"regions.csv": "id,name\n1,north\n2,south\n3,east\n"}

    @pytest.fixture(scope="class")
    def models(self):
        return {"sources.yml": SOURCES}

    def write(self, project, name):
        kind, text, options = (self.random.choice(KINDS[name]), self.random.choice(TEXTS[name]), self.random.choice(OPTIONS))
        config = "materialized='%s'" % kind + (", " + options if kind in ("pgtrickle", "stream_table") else "")
        put(project, "models/%s.sql" % name, "{{ config(%s) }} %s" % (config, text))
        return "%s: %s, text %d" % (name, config, TEXTS[name].index(text))

    def step(self, project):
        names = list(TEXTS)
        choice = self.random.random()
        if choice < 0.40:
            sql = self.random.choice(DML)
            execute(project, sql)
            return sql
        if choice < 0.60:
            return self.write(project, self.random.choice(names))
        if choice < 0.65:
            put(project, "seeds/regions.csv", "id,name\n%s" % "".join("%d,%s\n" % (i, self.random.choice("abc")) for i in range(self.random.randint(1, 6))))
            command = ["seed"] + self.random.choice([[], ["--full-refresh"]])
        elif choice < 0.70:
            command = ["docs", "generate"]
        else:
            name = self.random.choice(names)
            command = ["run"] + self.random.choice([[], [], ["--select", name], ["--select", "+" + name], ["--select", name + "+"], ["--full-refresh"]])
        # a part of the project can fail where another part has not been run yet; the whole may not, and comes last
        run_dbt(command, expect_pass=None)
        return "dbt " + " ".join(command)

    def test_all_rows_walk(self, project):
        number = int(os.environ.get("PGTRICKLE_DBT_SEED", random.SystemRandom().randint(1, 10 ** 6)))
        self.random = random.Random(number)
        walked = ["PGTRICKLE_DBT_SEED=%d" % number]
        execute(project, """create table {schema}.customers (id int primary key, region text); create table {schema}.orders (id int primary key, customer_id int, amount numeric, status text);
            insert into {schema}.customers select i, 'region ' || i % 3 from generate_series(0, 5) i;
            insert into {schema}.orders select i, i % 7, i, 'Placed' from generate_series(1, 50) i""")
        try:
            run_dbt(["seed"])
            for name in TEXTS:
                walked.append(self.write(project, name))
            run_dbt(["run"])
            for _ in range(STEPS):
                walked.append(self.step(project))
            walked.append("the end")
            # dbt's incremental relations and views that somebody's migration cannot keep are dbt's to mend
            run_dbt(["run"])
            self.compare(project)
            execute(project, DML[0])
            execute(project, DML[2])
            run_dbt(["run", "--select", "config.materialized:table"], expect_pass=None)
            self.compare(project, only_streams=True)
        except BaseException:
            print("\n".join(walked))
            raise
        print("walked with " + walked[0])

    def compare(self, project, only_streams=False):
        run_dbt(["compile"])
        compared = 0
        for node in run_dbt(["compile"]).results:
            node = node.node
            if node.resource_type != "model" or node.config.materialized == "ephemeral":
                continue
            is_stream = node.config.materialized in ("pgtrickle", "stream_table")
            assert is_stream_table(project, node.name) == is_stream
            if is_stream:
                execute(project, "select pgtrickle.refresh_stream_table('{schema}.%s')" % node.name)
                assert one(project, "select count(*) from pgtrickle.verify('{schema}.%s')" % node.name) == 0, node.name
            elif only_streams:
                continue
            both = (node.relation_name, node.compiled_code)
            different = rows(project, ("(select * from %s except all (%s)) union all ((%s) except all select * from %s)" % (both + both[::-1])).replace("{", "{{").replace("}", "}}"))
            assert different == [], node.name
            compared += 1
        assert compared or only_streams
