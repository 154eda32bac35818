# dbt/tests/dagster_facts.py
#     What Dagster knows about the example dagster_patterns after its README was followed, as JSON; test_dagster.py runs it in Dagster's environment.
import json

import dagster as dg
from dagster_dbt import build_freshness_checks_from_dbt_assets

from my_project.definitions import defs as load


def materialized(instance, keys):
    return {key.to_user_string(): instance.get_latest_materialization_event(key) is not None for key in keys}


def checks(instance, graph):
    found = {}
    for key in graph.asset_check_keys:
        summary = instance.event_log_storage.get_latest_asset_check_execution_by_key([key]).get(key)
        found["%s:%s" % (key.asset_key.to_user_string(), key.name)] = summary.status.value if summary else None
    return found


def freshness(instance, assets):
    built = build_freshness_checks_from_dbt_assets(dbt_assets=[a for a in assets if dg.AssetKey("user_events") in a.keys])
    job = dg.define_asset_job("freshness", selection=dg.AssetSelection.checks(*built))
    result = dg.Definitions(asset_checks=built, jobs=[job]).resolve_job_def("freshness").execute_in_process(instance=instance)
    return {e.asset_key.to_user_string(): e.passed for e in result.get_asset_check_evaluations()}


with dg.DagsterInstance.get() as instance:
    definitions = load()
    repository = definitions.get_repository_def()
    graph = repository.asset_graph
    assets = list(repository.assets_defs_by_key.values())
    keys = sorted(graph.materializable_asset_keys)
    facts = {
        "assets": materialized(instance, keys),
        "types": {key.to_user_string(): graph.get(key).metadata.get("dagster-dbt/materialization_type") for key in keys},
        "checks": checks(instance, graph),
        "groups": {key.to_user_string(): graph.get(key).group_name for key in keys},
        "versions": {key.to_user_string(): graph.get(key).code_version for key in keys},
        "pools": {key.to_user_string(): sorted(a.op.pool for a in assets if key in a.keys and a.op.pool)[:1] for key in keys},
        "limits": {limit.name: limit.limit for limit in instance.event_log_storage.get_pool_limits()},
        "freshness": freshness(instance, {id(a): a for a in assets}.values()),
    }
print("FACTS " + json.dumps(facts, default=lambda value: value.value))
