{#
    dbt/macros/config.sql
        Reads what a model says about its stream table, checks it, and puts it into the form of pgtrickle.build_model().

    A key stands in the config or below meta.pgtrickle, where dbt 2 wants keys that it does not know.  Checks run only when models are built: while dbt reads
    the project, config values are not all there.
#}
{% macro pgtrickle_config(key, default=none) %}
  {%- set meta = (model.config.get('meta') or {}).get('pgtrickle') or {} -%}
  {%- if model.config.get(key) is not none -%}
    {{ return(model.config.get(key)) }}
  {%- elif key in meta -%}
    {{ return(meta[key]) }}
  {%- endif -%}
  {{ return((var('pgtrickle_defaults', {}) or {}).get(key, default)) }}
{% endmacro %}

{% macro pgtrickle_config_error(key, value, allowed) %}
  {%- do exceptions.raise_compiler_error("model " ~ model.name ~ ": invalid " ~ key ~ " '" ~ value ~ "' - use " ~ allowed) -%}
{% endmacro %}

{% macro pgtrickle_known_keys() %}
  {{ return(['schedule', 'refresh_mode', 'initialize', 'wait', 'wait_timeout', 'refresh_on_run', 'on_query_change', 'status', 'unique_key', 'continuous', 'indexes',
             'refresh_interval', 'retain_history', 'cluster', 'cdc_mode', 'append_only', 'partition_by', 'fuse', 'fuse_ceiling', 'fuse_sensitivity', 'storage_backend', 'temporal',
             'diamond_consistency', 'diamond_schedule_policy', 'pooler_compatibility_mode', 'max_differential_joins', 'max_delta_fraction',
             'output_distribution_column']) }}
{% endmacro %}

{% macro pgtrickle_schedule() %}
  {%- set said = 'schedule' in model.config or 'schedule' in ((model.config.get('meta') or {}).get('pgtrickle') or {}) -%}
  {%- set interval = dbt_pgtrickle.pgtrickle_config('refresh_interval') -%}
  {%- if interval is not none -%}
    {%- if said -%}
      {%- do exceptions.raise_compiler_error("model " ~ model.name ~ ": schedule and refresh_interval contradict each other - use one of them") -%}
    {%- endif -%}
    {{ return(dbt_pgtrickle.pgtrickle_schedule_of_interval(interval)) }}
  {%- endif -%}
  {%- set schedule = dbt_pgtrickle.pgtrickle_config('schedule') -%}
  {%- if schedule is none or (schedule | string | lower) == 'none' -%}
    {{ return('calculated' if said else '1s') }}
  {%- endif -%}
  {%- set schedule = schedule | string -%}
  {%- set duration = modules.re.match('^\\s*(\\d+\\s*(ms|s|m|h|d|w)\\s*)+$', schedule) -%}
  {%- set cron = schedule.startswith('@') or schedule.split() | length in [5, 6] -%}
  {%- if not duration and not cron and schedule | lower not in ['continuous', 'calculated', 'manual'] -%}
    {%- do dbt_pgtrickle.pgtrickle_config_error('schedule', schedule, "a duration like '5s' or '1m', a cron expression, 'continuous', 'manual', 'calculated' or none") -%}
  {%- endif -%}
  {{ return(schedule) }}
{% endmacro %}

{% macro pgtrickle_options() %}
  {%- set mode = dbt_pgtrickle.pgtrickle_config('refresh_mode', 'AUTO') | string | upper -%}
  {%- if mode not in ['AUTO', 'DIFFERENTIAL', 'INCREMENTAL', 'FULL', 'IMMEDIATE'] -%}
    {%- do dbt_pgtrickle.pgtrickle_config_error('refresh_mode', mode, 'AUTO, DIFFERENTIAL, FULL or IMMEDIATE') -%}
  {%- endif -%}
  {%- set on_query_change = dbt_pgtrickle.pgtrickle_config('on_query_change', 'migrate') -%}
  {%- if on_query_change not in ['migrate', 'full_refresh', 'fail', 'ignore'] -%}
    {%- do dbt_pgtrickle.pgtrickle_config_error('on_query_change', on_query_change, 'migrate, full_refresh, fail or ignore') -%}
  {%- endif -%}
  {%- set interval = dbt_pgtrickle.pgtrickle_config('refresh_interval') -%}
  {%- set at_creation = interval.get('at_creation', true) if interval is mapping else true -%}
  {%- set initialize = dbt_pgtrickle.pgtrickle_config('initialize', at_creation) | string | lower -%}
  {%- if initialize not in ['true', 'false', 'on_create', 'on_schedule'] -%}
    {%- do dbt_pgtrickle.pgtrickle_config_error('initialize', initialize, "true, false, 'on_create' or 'on_schedule'") -%}
  {%- endif -%}
  {%- set status = dbt_pgtrickle.pgtrickle_config('status') -%}
  {%- if status is not none and status | upper not in ['ACTIVE', 'PAUSED'] -%}
    {%- do dbt_pgtrickle.pgtrickle_config_error('status', status, 'ACTIVE or PAUSED') -%}
  {%- endif -%}
  {%- set options = {} -%}
  {%- for key in ['cdc_mode', 'append_only', 'partition_by', 'fuse', 'fuse_ceiling', 'fuse_sensitivity', 'storage_backend', 'temporal', 'diamond_consistency',
                  'diamond_schedule_policy', 'pooler_compatibility_mode', 'max_differential_joins', 'max_delta_fraction', 'output_distribution_column'] -%}
    {%- if dbt_pgtrickle.pgtrickle_config(key) is not none -%}
      {%- do options.update({key: dbt_pgtrickle.pgtrickle_config(key)}) -%}
    {%- endif -%}
  {%- endfor -%}
  {%- set retain_history = dbt_pgtrickle.pgtrickle_config('retain_history') -%}
  {%- if retain_history is not none -%}
    {%- if not modules.re.match('^\\s*(\\d+\\s*(s|m|min|h|hr|d|w|seconds?|minutes?|hours?|hrs?|days?|weeks?|months?|years?)\\s*)+$', retain_history | string) -%}
      {%- do dbt_pgtrickle.pgtrickle_config_error('retain_history', retain_history, "a duration like '1hr', '1d' or '1w'") -%}
    {%- endif -%}
    {%- do options.update({'retain_history': retain_history}) -%}
  {%- endif -%}
  {{ return({
      'schedule': dbt_pgtrickle.pgtrickle_schedule(),
      'refresh_mode': 'DIFFERENTIAL' if mode == 'INCREMENTAL' else mode,
      'initialize': initialize in ['true', 'on_create'],
      'status': status | upper if status is not none else none,
      'full_refresh': should_full_refresh() | as_bool,
      'on_query_change': on_query_change,
      'on_configuration_change': model.config.get('on_configuration_change') | string,
      'options': options}) }}
{% endmacro %}

{# Of these words the one that shares most pairs of neighbouring letters. #}
{% macro pgtrickle_closest(word, words) %}
  {%- set best = namespace(word=words[0], score=-1) -%}
  {%- for other in words -%}
    {%- set common = namespace(pairs=0) -%}
    {%- for i in range((word | length) - 1) if word[i:i + 2] in other -%}
      {%- set common.pairs = common.pairs + 2 -%}
    {%- endfor -%}
    {%- set score = common.pairs / ((word | length) + (other | length)) -%}
    {%- if score > best.score -%}
      {%- set best.word = other -%}
      {%- set best.score = score -%}
    {%- endif -%}
  {%- endfor -%}
  {{ return(best.word) }}
{% endmacro %}

{% macro pgtrickle_wait_setting() %}
  {%- set timeout = dbt_pgtrickle.pgtrickle_config('wait_timeout', '5m') | string -%}
  {%- if not modules.re.match('^\\s*(\\d+\\s*(ms|s|m|min|h|d|seconds?|minutes?|hours?|days?)\\s*)+$', timeout) -%}
    {%- do dbt_pgtrickle.pgtrickle_config_error('wait_timeout', timeout, "a duration like '30s' or '5m'") -%}
  {%- endif -%}
  {{ return({
      'wait': dbt_pgtrickle.pgtrickle_config('wait', true) | string | lower != 'false',
      'refresh': dbt_pgtrickle.pgtrickle_config('refresh_on_run', false) | string | lower == 'true',
      'timeout': timeout}) }}
{% endmacro %}

{# What cannot become a stream table, said before anything is done. #}
{% macro pgtrickle_check_model(relation, sql) %}
  {%- for key in (model.config.get('meta') or {}).get('pgtrickle') or {} -%}
    {%- if key not in dbt_pgtrickle.pgtrickle_known_keys() -%}
      {%- do exceptions.raise_compiler_error("model " ~ model.name ~ ": unknown key '" ~ key ~ "' in meta.pgtrickle - did you mean '" ~ dbt_pgtrickle.pgtrickle_closest(key, dbt_pgtrickle.pgtrickle_known_keys())
          ~ "'? Known keys are " ~ dbt_pgtrickle.pgtrickle_known_keys() | join(', ')) -%}
    {%- endif -%}
  {%- endfor -%}
  {%- if config.get('sql_header') -%}
    {%- do exceptions.raise_compiler_error("model " ~ model.name ~ ": sql_header cannot be used, because the query is run again later, by the applier, without it") -%}
  {%- endif -%}
  {%- if relation.render() in sql -%}
    {%- do exceptions.raise_compiler_error("model " ~ model.name ~ ": a stream table cannot read itself - remove {{ this }} from the query") -%}
  {%- endif -%}
  {%- if dbt_pgtrickle.pgtrickle_config('cluster') is not none -%}
    {%- do exceptions.warn("model " ~ model.name ~ ": cluster has no meaning here and is ignored") -%}
  {%- endif -%}
  {%- if flags.EMPTY and target.name in var('pgtrickle_protected_targets', ['prod']) and not var('pgtrickle_allow_empty', false) -%}
    {%- do exceptions.raise_compiler_error("--empty would empty the stream table of model " ~ model.name ~ " in target " ~ target.name ~ " - set the variable pgtrickle_allow_empty if that is meant") -%}
  {%- endif -%}
{% endmacro %}
