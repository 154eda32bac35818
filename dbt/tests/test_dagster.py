# dbt/tests/test_dagster.py
#     Acceptance rows E01, E02, E07, E09, E11, on the example dagster_patterns: what its README shows is run, then Dagster is asked what it knows.
#
# Dagster has an environment of its own, made by tools/dbt-venv; the tests run in that of dbt.
import json
import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "examples"))

from example import Example  # noqa: E402

STREAM_TABLES = ["all_events", "user_events", "loaded_per_day", "blue/events_per_type", "blue/users_per_type"]


@pytest.fixture(scope="module")
def dagster():
    output = subprocess.run([os.path.join(HERE, "..", "..", "tools", "dbt-venv"), "dagster"], stdout=subprocess.PIPE, check=True, text=True).stdout
    example = Example("dagster_patterns", python=os.path.join(output.strip(), "bin", "python"))
    try:
        example.start()
        example.output = example.follow_readme()
        example.facts = facts(example)
        yield example
    finally:
        example.stop()


def facts(example):
    output = example.run("python", os.path.join(HERE, "dagster_facts.py"), PYTHONPATH=example.directory,
                         DAGSTER_HOME=os.path.join(example.directory, "dagster_home"))
    return json.loads(next(line[6:] for line in output.splitlines() if line.startswith("FACTS ")))


def test_E01_models_are_assets(dagster):
    assert set(STREAM_TABLES) <= set(dagster.facts["assets"]) and all(dagster.facts["assets"].values())
    assert [dagster.facts["types"][name] for name in STREAM_TABLES] == ["pgtrickle"] * len(STREAM_TABLES)
    assert dagster.query("select s.pgt_name from pgtrickle.pgt_stream_tables s, pgtrickle.verify(format('%I.%I', s.pgt_schema, s.pgt_name))") == []


def test_E01_tests_are_checks(dagster):
    checks = dagster.facts["checks"]
    assert {"user_events:unique_user_events_user_id", "user_events:dbt_pgtrickle_stream_table_healthy_user_events_"} <= set(checks)
    assert set(checks.values()) == {"SUCCEEDED"}


def test_E01_marts_are_promoted_together(dagster):
    assert "green is live with all that was built in blue" in dagster.output
    assert dagster.value("select sum(events) from green.events_per_type") == 1000
    assert dagster.value("select sum(users) from green.users_per_type") == dagster.value("select count(distinct (event_type, user_id)) from app.events")


def test_E01_partition_is_the_window(dagster):
    assert dagster.query("select day::text, events from analytics.loaded_per_day") == dagster.query(
        "select '2026-01-02', count(*) from app.events where event_time >= '2026-01-02' and event_time < '2026-01-03'")


def test_E02_snapshots_have_a_pool_with_one_slot(dagster):
    assert dagster.facts["pools"] == {name: ["dbt-snapshots"] if name == "snap_user_events" else [] for name in dagster.facts["assets"]}
    assert dagster.facts["limits"]["dbt-snapshots"] == 1
    assert dagster.value("select sum(events) from analytics.snap_user_events where dbt_valid_to is null") == 1000


def test_E07_groups_by_folder(dagster):
    groups = dagster.facts["groups"]
    assert [groups[name] for name in ("blue/stg_events", "blue/events_per_type", "blue/users_per_type")] == ["staging", "marts", "marts"]
    assert groups["user_events"] == "default"


def test_E11_freshness_checks(dagster):
    assert dagster.facts["freshness"] == {"user_events": True}


def test_E09_code_version_follows_the_query(dagster):
    before = dagster.facts["versions"]
    with open(os.path.join(dagster.directory, "dbt", "models", "user_events.sql"), "a") as file:
        file.write("having count(*) > 1\n")
    dagster.run("dbt", "parse", "--project-dir", "dbt")
    after = facts(dagster)["versions"]
    assert [name for name in before if before[name] != after[name]] == ["user_events"]
