{#
    dbt/macros/operations/refresh.sql
        Operations on stream tables that are there: refreshing now, how fresh they are, whether their sources' changes arrive.
#}

{# A name, with or without schema, or a relation. #}
{% macro pgtrickle_refresh(relation=none, model_name=none, schema=none) %}
  {%- if execute -%}
    {%- set name = dbt_pgtrickle.pgtrickle_relation_name(relation or model_name) -%}
    {%- if '.' not in name -%}
      {%- set name = adapter.quote(schema or target.schema) ~ '.' ~ adapter.quote(name) -%}
    {%- endif -%}
    {%- do run_query("select pgtrickle.refresh_stream_table(" ~ dbt_pgtrickle.pgtrickle_literal(name) ~ ")") -%}
    {{ print('refreshed ' ~ name) }}
  {%- endif -%}
{% endmacro %}

{# Those of this project, one after the other; sources come first, since they are older. #}
{% macro refresh_all_stream_tables() %}
  {%- if execute -%}
    {%- for row in dbt_pgtrickle.pgtrickle_made_here(dbt_pgtrickle.pgtrickle_schemas()) | reverse -%}
      {%- do dbt_pgtrickle.pgtrickle_refresh(adapter.quote(row[0]) ~ '.' ~ adapter.quote(row[1])) -%}
    {%- endfor -%}
  {%- endif -%}
{% endmacro %}

{# Fails when one of this project's stream tables is staler than that, or has errors. #}
{% macro pgtrickle_check_freshness(model_name=none, warn_seconds=300) %}
  {%- if execute -%}
    {%- set bad = [] -%}
    {%- for row in dbt_pgtrickle.pgtrickle_made_here(dbt_pgtrickle.pgtrickle_schemas()) if model_name is none or row[1] == model_name -%}
      {%- set state = run_query("select staleness, status, coalesce(staleness_seconds > " ~ warn_seconds ~ ", true) or status <> 'ACTIVE' from pgtrickle.get_staleness("
          ~ dbt_pgtrickle.pgtrickle_literal(adapter.quote(row[0]) ~ '.' ~ adapter.quote(row[1])) ~ ")").rows[0] -%}
      {{ print(row[0] ~ '.' ~ row[1] ~ ': ' ~ state[1] ~ ', ' ~ state[0] ~ ' behind') }}
      {%- if state[2] -%}
        {%- do bad.append(row[0] ~ '.' ~ row[1]) -%}
      {%- endif -%}
    {%- endfor -%}
    {%- if bad -%}
      {%- do exceptions.raise_compiler_error('not fresh: ' ~ bad | join(', ')) -%}
    {%- endif -%}
  {%- endif -%}
{% endmacro %}

{% macro pgtrickle_check_cdc_health() %}
  {%- if execute -%}
    {%- set bad = [] -%}
    {%- for row in run_query('select source_table, alert from pgtrickle.check_cdc_health()').rows -%}
      {{ print(row[0] ~ ': ' ~ (row[1] or 'OK')) }}
    {%- endfor -%}
  {%- endif -%}
{% endmacro %}
