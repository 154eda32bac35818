{#
    dbt/macros/materializations/test.sql
        Continuous tests: the stored failures of a test are a stream table, kept up to date after dbt has ended.

    dbt lets no package replace its own materializations, so a project calls this from one of its own; README.md has the three lines.  Who asks for
    a table or a view by store_failures_as gets dbt's own behaviour.  A query that no stream table can have (it calls a volatile function, say) becomes a table,
    with a warning.
#}
{% macro materialization_test_postgres() %}
  {%- set meta = (model.config.get('meta') or {}).get('pgtrickle') or {} -%}
  {#- dbt turns store_failures: true into store_failures_as: table; what the project says itself is here -#}
  {%- set stored_as = config.get('store_failures_as') if 'store_failures_as' in (model.unrendered_config or {}) else none -%}
  {%- set is_continuous = should_store_failures() and stored_as in [none, 'stream_table'] and meta.get('continuous', true) -%}
  {%- if not is_continuous -%}
    {{ return(dbt.materialization_test_default()) }}
  {%- endif -%}

  {%- set target_relation = api.Relation.create(database=database, schema=schema, identifier=model['alias'], type='table') -%}
  {%- set old_relation = adapter.get_relation(database=database, schema=schema, identifier=model['alias']) -%}
  {%- set was_stream_table = old_relation is not none and dbt_pgtrickle.pgtrickle_is_stream_table(target_relation) -%}
  {%- if old_relation is not none and not was_stream_table -%}
    {%- do adapter.drop_relation(old_relation) -%}
  {%- endif -%}
  {%- set query = sql if config.get('limit') is none else 'select * from (' ~ sql ~ ') as dbt_limited limit ' ~ config.get('limit') -%}
  {%- set options = {'schedule': meta.get('schedule', '1s'), 'refresh_mode': meta.get('refresh_mode', 'AUTO'), 'full_refresh': flags.FULL_REFRESH | as_bool} -%}
  {%- call statement('pgtrickle_apply', fetch_result=True) -%}
    select action, detail from pgtrickle.try_build_model({{ dbt_pgtrickle.pgtrickle_literal(target_relation.render()) }}, {{ dbt_pgtrickle.pgtrickle_literal(query) }},
      {{ dbt_pgtrickle.pgtrickle_literal(tojson(options)) }}::jsonb)
  {%- endcall -%}
  {%- set row = load_result('pgtrickle_apply')['data'][0] -%}
  {%- if row[0] == 'refused' -%}
    {%- do exceptions.warn("Test " ~ model.name ~ ": its failures are stored in a table, which does not follow its sources: " ~ row[1]) -%}
    {%- if was_stream_table -%}
      {%- do adapter.drop_relation(target_relation) -%}
    {%- endif -%}
    {%- call statement('pgtrickle_store') -%}
      {{ get_create_sql(target_relation, query) }}
    {%- endcall -%}
  {%- else -%}
    {%- do dbt_pgtrickle.pgtrickle_set_mark(target_relation) -%}
  {%- endif -%}
  {{ adapter.commit() }}
  {%- if row[0] == 'noop' -%}
    {%- do dbt_pgtrickle.pgtrickle_refresh_now(target_relation, '5m') -%}
  {%- endif -%}

  {%- call statement('main', fetch_result=True) -%}
    {{ get_test_sql('select * from ' ~ target_relation, config.get('fail_calc'), config.get('warn_if'), config.get('error_if'), none) }}
  {%- endcall -%}
  {{ return({'relations': [target_relation]}) }}
{% endmacro %}
