# dbt/tests/test_warehouse.py
#     Acceptance rows C01 to C12, on the example nyc_taxi_warehouse: what its README shows is run, then more is done to the project.
#
# The tests run in order, on one cluster of their own.
import json
import os
import re
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "examples"))

from example import Example  # noqa: E402

BATCH_TOTALS = """select date_trunc('day', t.pickup_at)::date, z.borough, count(*), sum(t.total_amount), sum(t.tip_amount) / nullif(sum(t.fare_amount), 0),
    avg(t.trip_distance) from bronze.nyc_yellow_trips t join bronze.zone_lookup z on z.zone_id = t.pu_location_id
    where t.pickup_at is not null and t.dropoff_at >= t.pickup_at and t.trip_distance between 0 and 200 group by 1, 2 order by 1, 2"""
NEW_TRIP = """insert into bronze.live_trips (vendor_id, pickup_at, dropoff_at, trip_distance, pu_location_id, fare_amount, tip_amount, total_amount)
    values (1, '2023-08-0%d 10:00', '2023-08-01 10:10', 2.5, %d, 12.5, 2, 18.25)"""


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in %d seconds" % seconds
        time.sleep(0.2)


@pytest.fixture(scope="module")
def shop():
    example = Example("nyc_taxi_warehouse")
    try:
        example.start()
        example.output = example.follow_readme()
        # a foreign table with a user mapping is read with the rights of the role that has it
        example.query("create user mapping for postgres server lookups options (user 'dbt', password_required 'false')")
        yield example
    finally:
        example.stop()


def state(shop, name, schema="dbt_alice"):
    return shop.query("""select status, refresh_mode, effective_refresh_mode, downgrade_reason, consecutive_errors, last_error_message
        from pgtrickle.pgt_stream_tables where pgt_schema = '%s' and pgt_name = '%s'""" % (schema, name))[0]


def verified(shop, *names, schema="dbt_alice"):
    return all(shop.value("select count(*) from pgtrickle.verify('%s.%s')" % (schema, name)) == 0 for name in names)


def message(output, model):
    return re.search(r"OK created sql \w+ model \S+\.%s \.+ \[(.*?) in" % model, output).group(1)


def edit(shop, path, old, new):
    path = os.path.join(shop.directory, path)
    with open(path) as file:
        text = file.read()
    assert old in text
    with open(path, "w") as file:
        file.write(text.replace(old, new))


def test_C06_build_runs_everything_in_order(shop):
    assert len(re.findall(r"Done\. PASS=\d+ WARN=0 ERROR=0 SKIP=0", shop.output)) == 2
    assert shop.value("select count(*) from dbt_alice.agg_daily_borough_revenue") > 100


def test_C02_foreign_tables_are_read_on_the_schedule(shop):
    status, mode, effective, reason = state(shop, "agg_daily_borough_revenue")[:4]
    assert (status, mode, effective) == ("ACTIVE", "AUTO", "FULL") and "is a foreign table, whose changes are not in the WAL" in reason
    assert "it is refreshed in full" in re.sub(r"\s+", " ", shop.output)
    before = shop.value("select count(*) from dbt_alice_silver.int_trips_with_zones")
    with open(os.path.join(shop.directory, "trips.csv"), "a") as file:
        file.write("1,2023-07-31 23:00:00,2023-07-31 23:09:00,1,2.5,1,N,161,43,1,12.5,2,18,2023-07\n")
    until(lambda: shop.value("select count(*) from dbt_alice_silver.int_trips_with_zones") == before + 1)


def test_C02_lake_that_is_down_keeps_the_last_rows(shop):
    trips = os.path.join(shop.directory, "trips.csv")
    before = shop.query("select * from dbt_alice.agg_daily_borough_revenue order by 1, 2")
    os.rename(trips, trips + ".away")
    until(lambda: state(shop, "agg_daily_borough_revenue")[4] > 0)
    assert "trips.csv" in state(shop, "agg_daily_borough_revenue")[5]
    assert len(shop.query("select * from dbt_alice.agg_daily_borough_revenue")) == len(before)
    shop.query(NEW_TRIP % (1, 132))
    assert shop.value("select pgtrickle.wait_fresh('dbt_alice.live_borough_revenue', '30s')"), "others are not affected"
    os.rename(trips + ".away", trips)
    until(lambda: state(shop, "agg_daily_borough_revenue")[4] == 0 and state(shop, "agg_daily_borough_revenue")[0] == "ACTIVE")


def test_C02_file_that_is_wrong_for_a_while(shop):
    trips = os.path.join(shop.directory, "trips.csv")
    with open(trips) as file:
        text = file.read()
    with open(trips, "a") as file:
        file.write("no,trip,at,all\n")
    until(lambda: state(shop, "agg_daily_borough_revenue")[4] > 0)
    assert "invalid input syntax" in state(shop, "agg_daily_borough_revenue")[5]
    with open(trips, "w") as file:
        file.write(text)
    until(lambda: state(shop, "agg_daily_borough_revenue")[4] == 0 and state(shop, "agg_daily_borough_revenue")[0] == "ACTIVE")


def test_C03_joined_with_local_tables(shop):
    shop.query("""set role dbt; select pgtrickle.create_stream_table('dbt_alice.mixed', $$select z.borough, count(*) as n from bronze.live_trips t
        join bronze.zone_lookup z on z.zone_id = t.pu_location_id group by 1$$, '1s'); reset role""")
    before = shop.value("select coalesce(sum(n), 0) from dbt_alice.mixed")
    shop.query(NEW_TRIP % (2, 132))
    until(lambda: shop.value("select sum(n) from dbt_alice.mixed") == before + 1)
    shop.query("drop table dbt_alice.mixed")


def test_C04_staging_expressions(shop):
    assert shop.value("select count(*) from dbt_alice.stg_yellow_trips where duration_seconds < 0") == 0
    assert shop.value("select count(*) from bronze.nyc_yellow_trips where dropoff_at < pickup_at") == 20
    shop.query("""create table public.trips as select * from bronze.nyc_yellow_trips; alter table public.trips replica identity full;
        select pgtrickle.create_stream_table('public.washed', $$select vendor_id, extract(epoch from (dropoff_at - pickup_at)) as duration_seconds, trip_distance as distance_miles
        from public.trips where pickup_at is not null and dropoff_at >= pickup_at and trip_distance between 0 and 200$$, '1s', 'DIFFERENTIAL');
        update public.trips set trip_distance = trip_distance * 30, dropoff_at = dropoff_at + interval '1 minute'; delete from public.trips where vendor_id = 2 and trip_distance < 20""")
    assert shop.value("select count(*) from pgtrickle.verify('public.washed')") == 0
    shop.query("drop table public.washed, public.trips")


def test_C05_aggregate_equals_the_batch_query(shop):
    until(lambda: shop.query("select * from dbt_alice.agg_daily_borough_revenue order by 1, 2") == shop.query(BATCH_TOTALS))


def test_C05_incremental_aggregate_is_exact(shop):
    for day, zone in ((1, 161), (2, 161), (2, 132), (3, 7)):
        shop.query(NEW_TRIP % (day, zone))
    shop.query("update bronze.live_trips set pu_location_id = 132, tip_amount = 3.1 where trip_no % 2 = 0; delete from bronze.live_trips where trip_no = 1")
    assert verified(shop, "live_trips", "live_borough_revenue")
    assert state(shop, "live_borough_revenue")[2] == "DIFFERENTIAL"


def test_C07_incremental_model_as_source(shop):
    before = shop.value("select sum(trips) from dbt_alice.trips_per_day")
    with open(os.path.join(shop.directory, "trips.csv"), "a") as file:
        file.write("2,2023-08-01 01:00:00,2023-08-01 01:09:00,1,2.5,1,N,161,43,1,12.5,2,18,2023-07\n")
    edit(shop, "models/staging/stg_yellow_trips.sql", "dt as partition_month", "dt as partition_month,\n    rate_code_id")
    output = shop.dbt("run", "--select", "stg_yellow_trips", "fct_trips", "trips_per_day")
    assert message(output, "fct_trips") == "INSERT 0 1" and message(output, "trips_per_day") == "UNCHANGED"
    assert verified(shop, "trips_per_day")
    assert shop.value("select sum(trips) from dbt_alice.trips_per_day") == before + 1
    assert shop.value("select rate_code_id from dbt_alice.fct_trips where pickup_at = '2023-08-01 01:00'") == 1


def test_C07_full_refresh_of_the_source_is_followed(shop):
    table = shop.value("select 'dbt_alice.trips_per_day'::regclass::oid")
    shop.dbt("run", "--select", "fct_trips", "--full-refresh")
    assert verified(shop, "trips_per_day")
    assert shop.value("select 'dbt_alice.trips_per_day'::regclass::oid") == table


def test_C07_the_same_file_as_a_stream_table(shop):
    edit(shop, "models/marts/fct_trips.sql", "materialized='incremental'", "materialized='pgtrickle', schedule='10s', meta={}")
    edit(shop, "models/marts/fct_trips.sql", "unique_key='trip_id',", "")
    output = shop.dbt("run", "--select", "fct_trips", "trips_per_day")
    assert message(output, "fct_trips") == "CREATE STREAM TABLE"
    assert shop.value("select count(*) from dbt_alice.fct_trips") == shop.value("select count(*) from dbt_alice.stg_yellow_trips")
    assert verified(shop, "trips_per_day")


def test_C08_new_column_of_a_source_with_a_star(shop):
    shop.query("alter table bronze.live_trips add column airport_fee numeric default 1.75")
    shop.query(NEW_TRIP % (4, 132))
    assert verified(shop, "live_trips", "live_borough_revenue")
    assert "airport_fee" not in shop.value("select string_agg(attname, ' ') from pg_attribute where attrelid = 'dbt_alice.live_trips'::regclass")
    assert message(shop.dbt("run", "--select", "live_trips"), "live_trips") == "MIGRATE STREAM TABLE: the query was changed: columns added"
    assert shop.value("select sum(airport_fee) > 0 from dbt_alice.live_trips")
    shop.query("drop view if exists dbt_alice.nothing; alter table bronze.live_trips drop column airport_fee")
    shop.query(NEW_TRIP % (5, 132))
    until(lambda: state(shop, "live_trips")[4] > 0)
    assert "airport_fee" in state(shop, "live_trips")[5]
    shop.dbt("run", "--select", "live_trips")
    assert verified(shop, "live_trips", "live_borough_revenue")


def test_C09_snapshot_of_a_stream_table(shop):
    assert shop.query("""select attname from pg_attribute where attrelid = 'dbt_alice.snap_pickup_zone'::regclass and attnum between 1 and 4
        order by attnum""") == [("zone_id",), ("borough",), ("zone_name",), ("service_zone",)]
    shop.query("""set role dbt; select pgtrickle.create_stream_table('dbt_alice.versions', 'select zone_id, count(*) as n, count(dbt_valid_to) as closed
        from dbt_alice.snap_pickup_zone group by 1', '1s', 'DIFFERENTIAL'); reset role""")
    shop.run("psql", "-q", "-d", "lookups", "-c", "update zone_lookup set zone_name = 'Midtown' where zone_id = 161; delete from zone_lookup where zone_id = 264")
    until(lambda: shop.value("select count(*) filter (where zone_name = 'Midtown') = 1 and count(*) filter (where zone_id = 264) = 0 from dbt_alice.dim_pickup_zone"))
    shop.dbt("snapshot")
    assert shop.query("select n, closed from dbt_alice.versions where zone_id in (161, 264) order by zone_id") != [] and verified(shop, "versions")
    assert shop.query("select zone_id, n, closed from dbt_alice.versions where zone_id in (161, 264) order by zone_id") == [(161, 2, 1), (264, 1, 1)]
    assert shop.value("select count(*) from silver.snap_zone_lookup where zone_id = 161") == 2
    shop.query("drop table dbt_alice.versions")


def test_C10_seeds(shop):
    seed = os.path.join("seeds", "payment_types.csv")
    edit(shop, seed, "3,No charge", "3,Free of charge")
    for more in ([], ["--full-refresh"]):
        shop.dbt("seed", *more)
        assert verified(shop, "payments")
        assert shop.value("select count(*) from dbt_alice.payments where payment_name = 'Free of charge'") == 1
    seen = set()
    seeding = shop.start_dbt("seed")
    while seeding.poll() is None:
        seen.add(shop.value("select count(*) from dbt_alice.payments"))
        time.sleep(0.01)
    assert seeding.wait() == 0 and verified(shop, "payments")
    assert seen == {4}, "the same rows again: nobody sees it empty"


def test_C11_descriptions_become_comments(shop):
    assert shop.value("select obj_description('dbt_alice.agg_daily_borough_revenue'::regclass)").startswith("Daily revenue and tip rate by pickup borough")
    assert shop.value("select col_description('dbt_alice.agg_daily_borough_revenue'::regclass, 1)") == "Day of the pickup."


def nodes_of(shop, target):
    """What a target's manifest says, by node."""
    shop.dbt("compile", "--target", target, "--target-path", "target_" + target)
    with open(os.path.join(shop.directory, "target_" + target, "manifest.json")) as file:
        return {name: node for name, node in json.load(file)["nodes"].items() if node["resource_type"] in ("model", "seed", "snapshot", "test")}


def read_by_views(shop, schemas):
    """The schemas in which the tables and views stand that these schemas' views name."""
    return shop.query("""select distinct target.relnamespace::regnamespace::text from pg_rewrite r join pg_class v on v.oid = r.ev_class
        join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass and d.refobjid <> v.oid
        join pg_class target on target.oid = d.refobjid where v.relnamespace = any (array[%s]::regnamespace[]) order by 1""" % ", ".join("'%s'" % name for name in schemas))


def test_C12_prod_reads_nothing_of_dev(shop):
    dev, prod = nodes_of(shop, "dev"), nodes_of(shop, "prod")
    assert {name: (node["checksum"], node["raw_code"]) for name, node in dev.items()} == {name: (node["checksum"], node["raw_code"]) for name, node in prod.items()}
    # the course's snapshot has a fixed schema, so all targets share it; it reads bronze alone
    shared = {name for name, node in prod.items() if node["resource_type"] != "test" and node["schema"] == dev[name]["schema"]}
    assert shared == {"snapshot.analytics.snap_zone_lookup"} and prod[min(shared)]["depends_on"]["nodes"] == ["source.analytics.bronze.zone_lookup"]
    dev_schemas = {node["schema"] for name, node in dev.items() if node["resource_type"] != "test" and name not in shared}
    prod_schemas = {node["schema"] for node in prod.values() if node["resource_type"] != "test"}
    assert "dbt_alice" in dev_schemas and "gold" in prod_schemas and not dev_schemas & prod_schemas
    for nodes, others in ((prod, dev_schemas), (dev, prod_schemas)):
        named = {(name, schema) for name, node in nodes.items() for schema in others if '"%s"' % schema in (node.get("compiled_code") or "")}
        assert named == set()
    models = {node["name"] for node in prod.values() if node["config"]["materialized"] == "pgtrickle"}
    built = shop.query("select pgt_name, pgt_schema from pgtrickle.pgt_stream_tables where pgt_schema = any (array[%s])" % ", ".join("'%s'" % name for name in prod_schemas))
    # fct_trips has become a stream table after prod was built
    assert {name for name, _ in built} == models - {"fct_trips"} and len(built) > 2
    read = {schema for schema, in shop.query("""select distinct d.source_schema from pgtrickle.pgt_dependencies d join pgtrickle.pgt_stream_tables s using (pgt_id)
        where s.pgt_schema = any (array[%s])""" % ", ".join("'%s'" % name for name in prod_schemas))}
    assert read <= prod_schemas | {"bronze"} and "bronze" in read
    assert {schema for schema, in read_by_views(shop, prod_schemas)} <= prod_schemas | {"bronze"}


def test_C12_the_check_finds_what_it_looks_for(shop):
    shop.query("create view gold.leak as select borough from dbt_alice.agg_daily_borough_revenue")
    assert ("dbt_alice",) in read_by_views(shop, {"gold"})
    shop.query("drop view gold.leak")


def test_C01_two_users_at_a_time(shop):
    running = [shop.start_dbt("run", "--select", "live_trips", "dim_pickup_zone", "stg_zone_lookup", "live_borough_revenue", "--target-path", "target_" + user,
                              USER=user) for user in ("bob", "carol")]
    for dbt in running:
        output = dbt.communicate()[0]
        assert dbt.returncode == 0, output
    shop.query(NEW_TRIP % (6, 132))
    assert verified(shop, "live_borough_revenue", schema="dbt_bob") and verified(shop, "live_borough_revenue", schema="dbt_carol")
    shop.query("drop schema dbt_bob cascade")
    assert shop.value("select count(*) from pgtrickle.pgt_stream_tables where pgt_schema = 'dbt_bob'") == 0
    assert shop.value("select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace where nspname = 'pgtrickle' and relkind = 'r' and relname ~ '^pgt_state_[0-9]'") == \
        shop.value("select count(*) from pgtrickle.pgt_state_tables")
    shop.query(NEW_TRIP % (7, 132))
    assert verified(shop, "live_borough_revenue", schema="dbt_carol") and verified(shop, "live_borough_revenue")
