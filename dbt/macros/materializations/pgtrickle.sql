{#
    dbt/macros/materializations/pgtrickle.sql
        The materialization: a model becomes a stream table.

    All that changes the stream table is one call of pgtrickle.build_model(), which decides what has to be done (create, migrate, alter, rebuild, nothing) and
    does it in one transaction together with indexes, grants, comments and the hooks inside.  What dbt shows as the result is what the call answers.

    dbt knows a stream table as a table.  Something else of that name is renamed as the materialization "table" does it, and dropped after the commit.
#}
{% materialization pgtrickle, adapter='postgres', supported_languages=['sql'] %}
  {{ return(dbt_pgtrickle.pgtrickle_materialize()) }}
{% endmaterialization %}

{% materialization stream_table, adapter='postgres', supported_languages=['sql'] %}
  {{ return(dbt_pgtrickle.pgtrickle_materialize()) }}
{% endmaterialization %}

{% macro pgtrickle_materialize() %}
  {%- set target_relation = this.incorporate(type='table') -%}
  {%- set existing_relation = load_cached_relation(this) -%}
  {%- set options = dbt_pgtrickle.pgtrickle_options() -%}
  {%- set wait = dbt_pgtrickle.pgtrickle_wait_setting() -%}
  {%- set grant_config = config.get('grants') -%}
  {%- do dbt_pgtrickle.pgtrickle_check_model(target_relation, sql) -%}

  {{ run_hooks(pre_hooks, inside_transaction=False) }}
  {{ run_hooks(pre_hooks, inside_transaction=True) }}

  {%- set was_stream_table = existing_relation is not none and dbt_pgtrickle.pgtrickle_is_stream_table(target_relation) -%}
  {%- set backup_relation = none -%}
  {%- if existing_relation is not none and not was_stream_table -%}
    {%- set backup_relation = make_backup_relation(target_relation, existing_relation.type) -%}
    {{ drop_relation_if_exists(load_cached_relation(backup_relation)) }}
    {{ adapter.rename_relation(existing_relation, backup_relation) }}
  {%- endif -%}

  {%- if config.get('contract') and config.get('contract').enforced -%}
    {{ get_assert_columns_equivalent(sql) }}
    {%- set query = dbt_pgtrickle.pgtrickle_query_in_contract_order(sql) -%}
  {%- else -%}
    {%- set query = sql -%}
  {%- endif -%}

  {%- set done = dbt_pgtrickle.pgtrickle_apply(target_relation, existing_relation, query, options) -%}
  {%- do dbt_pgtrickle.pgtrickle_set_mark(target_relation) -%}
  {%- do dbt_pgtrickle.pgtrickle_constraints(target_relation, done.action) -%}
  {%- do dbt_pgtrickle.pgtrickle_sync_indexes(target_relation) -%}
  {%- do apply_grants(target_relation, grant_config, should_revoke=should_revoke(existing_relation if was_stream_table else none, full_refresh_mode=False)) -%}
  {%- do persist_docs(target_relation, model) -%}
  {{ run_hooks(post_hooks, inside_transaction=True) }}
  {{ adapter.commit() }}

  {%- if backup_relation is not none -%}
    {{ drop_relation_if_exists(backup_relation) }}
  {%- endif -%}
  {%- do dbt_pgtrickle.pgtrickle_wait_after_commit(target_relation, done.action, wait) -%}
  {{ run_hooks(post_hooks, inside_transaction=False) }}

  {{ return({'relations': [target_relation]}) }}
{% endmacro %}

{# What dbt prints beside the model, and what stands in run_results.json. #}
{% macro pgtrickle_message(action, detail) %}
  {%- set words = {'create': 'CREATE STREAM TABLE', 'noop': 'UNCHANGED', 'alter': 'ALTER STREAM TABLE', 'migrate': 'MIGRATE STREAM TABLE',
                   'rebuild': 'REBUILD STREAM TABLE'} -%}
  {%- if action in ['create', 'noop'] -%}
    {{ return(words[action]) }}
  {%- endif -%}
  {{ return(words[action] ~ ': ' ~ detail) }}
{% endmacro %}

{% macro pgtrickle_apply(relation, existing_relation, query, options) %}
  {%- set call_text -%}
select action, detail, row_count, array_to_json(warnings)::text as warnings
from pgtrickle.build_model({{ dbt_pgtrickle.pgtrickle_literal(relation.render()) }}, {{ dbt_pgtrickle.pgtrickle_literal(query) }}, {{ dbt_pgtrickle.pgtrickle_literal(tojson(options)) }}::jsonb)
  {%- endset -%}
  {%- call statement('pgtrickle_apply', fetch_result=True) -%}
    {{ call_text }}
  {%- endcall -%}
  {%- set row = load_result('pgtrickle_apply')['data'][0] -%}
  {%- set action = row[0] -%}
  {%- set detail = row[1] -%}
  {%- if action == 'query_refused' -%}
    {%- do exceptions.raise_compiler_error("Model " ~ model.unique_id ~ ": " ~ detail ~ ", and on_query_change is 'fail'") -%}
  {%- elif action == 'options_refused' -%}
    {%- do exceptions.raise_fail_fast_error("Configuration changes were identified and `on_configuration_change` was set to `fail` for `" ~ relation.render() ~ "`: " ~ detail) -%}
  {%- endif -%}
  {%- set verb = {'create': 'CREATE', 'alter': 'ALTER', 'migrate': 'ALTER', 'rebuild': 'REPLACE'} -%}
  {%- if action == 'create' and existing_relation is not none -%}
    {{ log('Applying REPLACE to: ' ~ relation) }}
  {%- elif action in verb -%}
    {{ log('Applying ' ~ verb[action] ~ ' to: ' ~ relation) }}
  {%- endif -%}
  {%- for warning in fromjson(row[3] or '[]') -%}
    {%- if warning.startswith('left as they are') -%}
      {%- do exceptions.warn("Configuration changes were identified and `on_configuration_change` was set to `continue` for `" ~ relation.render() ~ "`; " ~ warning) -%}
    {%- else -%}
      {%- do exceptions.warn("Stream table " ~ relation.render() ~ ": " ~ warning) -%}
    {%- endif -%}
  {%- endfor -%}
  {%- call noop_statement('main', dbt_pgtrickle.pgtrickle_message(action, detail), action | upper, row[2]) -%}
    {{ call_text }}
  {%- endcall -%}
  {{ return({'action': action, 'detail': detail}) }}
{% endmacro %}

{#
    After a change: until the applier has taken over.  After no change: when it reads, directly or not, what dbt itself builds and so may just have replaced,
    or with refresh_on_run; so that what dbt builds next finds the new rows.  It costs one tick, whatever the schedule.
#}
{% macro pgtrickle_wait_after_commit(relation, action, wait) %}
  {%- if not wait.wait or config.get('status') is not none -%}
    {{ return('') }}
  {%- elif action == 'noop' and not wait.refresh and not dbt_pgtrickle.pgtrickle_reads_what_dbt_builds() -%}
    {{ return('') }}
  {%- endif -%}
  {%- do dbt_pgtrickle.pgtrickle_refresh_now(relation, wait.timeout) -%}
{% endmacro %}

{# Waits for a tick, if there is an applier and the stream table does not stand still.  One that is maintained by the writers is always fresh. #}
{% macro pgtrickle_refresh_now(relation, timeout) %}
  {%- set name = dbt_pgtrickle.pgtrickle_literal(relation.include(database=false).render()) -%}
  {%- call statement('pgtrickle_must_wait', fetch_result=True, auto_begin=False) -%}
    select (select connected from pgtrickle.pgt_applier)
      and (select status in ('ACTIVE', 'INITIALIZING') and refresh_mode <> 'IMMEDIATE' from pgtrickle.pgt_stream_tables where pgt_relid = {{ name }}::regclass)
  {%- endcall -%}
  {%- if load_result('pgtrickle_must_wait')['data'][0][0] -%}
    {%- call statement('pgtrickle_wait', fetch_result=True, auto_begin=False) -%}
      select set_config('pgtrickle.refresh_timeout', (extract(epoch from {{ dbt_pgtrickle.pgtrickle_literal(timeout) }}::interval) * 1000)::bigint || 'ms', false),
        pgtrickle.refresh_stream_table({{ name }})
    {%- endcall -%}
  {%- endif -%}
{% endmacro %}

{# Is there a seed, a snapshot, or a model that is neither a stream table nor ephemeral among its ancestors? #}
{% macro pgtrickle_reads_what_dbt_builds() %}
  {%- set waiting = (model.depends_on.nodes or []) | list -%}
  {%- set seen = [] -%}
  {%- for turn in range(10000) -%}
    {%- if not waiting -%}
      {{ return(false) }}
    {%- endif -%}
    {%- set id = waiting.pop() -%}
    {%- set node = graph.nodes.get(id) -%}
    {%- if node and id not in seen -%}
      {%- if node.config.materialized not in ['pgtrickle', 'stream_table', 'ephemeral'] -%}
        {{ return(true) }}
      {%- endif -%}
      {%- do seen.append(id) -%}
      {%- do waiting.extend(node.depends_on.nodes or []) -%}
    {%- endif -%}
  {%- endfor -%}
  {{ return(true) }}
{% endmacro %}

{# A contract says in which order the columns come. #}
{% macro pgtrickle_query_in_contract_order(sql) %}
  {%- set names = [] -%}
  {%- for column in model.columns.values() -%}
    {%- do names.append(adapter.quote(column.name) if column.quote else column.name) -%}
  {%- endfor -%}
  {{ return('select ' ~ names | join(', ') ~ ' from (\n' ~ sql ~ '\n) as model_subq') }}
{% endmacro %}
