# dbt/tests/test_examples.py
#     The examples: what their READMEs show is run, word for word.  nyc_taxi_warehouse is in test_warehouse.py, dagster_patterns in test_dagster.py.
import os
import re
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "examples"))

from example import Example  # noqa: E402


@pytest.fixture
def example(request):
    example = Example(request.param)
    try:
        example.start()
        yield example
    finally:
        example.stop()


@pytest.mark.parametrize("example", ["ecommerce_live"], indirect=True)
def test_ecommerce_live(example):
    output = example.follow_readme()
    assert "ERROR=0" in output and "ERROR=1" not in output
    assert len(re.findall(r"UNCHANGED", output)) == 5
    assert example.value("select sum(orders) from live.gold_revenue") == 3001
    assert example.query("select s.pgt_name from pgtrickle.pgt_stream_tables s, pgtrickle.verify(format('%I.%I', s.pgt_schema, s.pgt_name))") == []


@pytest.mark.parametrize("example", ["blue_green"], indirect=True)
def test_blue_green(example):
    output = example.follow_readme()
    assert "2 stream tables are ready" in output and "live now: live, live_gold" in output and "dropped live_dbt_deploy, live_gold_dbt_deploy" in output
    assert len(re.findall(r"UNCHANGED", output)) == 2
    assert example.value("select sum(orders) from live_gold.gold_revenue") == example.value("select count(*) from app.orders where status <> 'Returned'")
    assert example.query("select s.pgt_name from pgtrickle.pgt_stream_tables s, pgtrickle.verify(format('%I.%I', s.pgt_schema, s.pgt_name))") == []


def test_commands_of_the_how_to_are_those_of_the_example():
    with open(os.path.join(HERE, "..", "..", "docs", "how-to", "deploy-blue-green.md")) as file:
        shown = re.findall(r"^dbt .*$", file.read(), re.M)
    with open(os.path.join(HERE, "..", "examples", "blue_green", "README.md")) as file:
        run = re.findall(r"^dbt .*$", file.read(), re.M)
    assert shown and set(shown) <= set(run)
