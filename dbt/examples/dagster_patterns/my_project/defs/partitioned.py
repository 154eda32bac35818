"""A microbatch model by days: Dagster's partition becomes the window that dbt loads."""
import os
from pathlib import Path

import dagster as dg
from dagster_dbt import DbtCliResource, DbtProject, dbt_assets

dbt_project = DbtProject(project_dir=Path(__file__).parents[2] / "dbt")
dbt_project.prepare_if_dev()
daily_partition = dg.DailyPartitionsDefinition(start_date="2026-01-01", end_date=os.environ.get("LAST_DAY", "2026-01-06"))


@dbt_assets(manifest=dbt_project.manifest_path, select="tag:partitioned", partitions_def=daily_partition)
def microbatch_dbt_models(context: dg.AssetExecutionContext, dbt: DbtCliResource):
    time_window = context.partition_time_window

    yield from dbt.cli(
        ["build", "--event-time-start", time_window.start.strftime("%Y-%m-%d"), "--event-time-end", time_window.end.strftime("%Y-%m-%d")],
        context=context,
    ).stream()


@dg.definitions
def partitioned():
    return dg.Definitions(assets=[microbatch_dbt_models], resources={"dbt": DbtCliResource(project_dir=dbt_project)})
