{#
    dbt/macros/helpers.sql
        Small macros for models, tests and operations: names, literals, freshness.
#}
{% macro pgtrickle_literal(text) %}
  {%- set text = text | string -%}
  {%- if '\\' in text -%}
    {{ return(" E'" ~ text | replace('\\', '\\\\') | replace("'", "''") ~ "'") }}
  {%- endif -%}
  {{ return("'" ~ text | replace("'", "''") ~ "'") }}
{% endmacro %}

{% macro pgtrickle_relation_name(relation) %}
  {{ return(relation if relation is string else relation.include(database=false).render()) }}
{% endmacro %}

{% macro pgtrickle_is_stream_table(relation) %}
  {%- if not execute -%}
    {{ return(false) }}
  {%- endif -%}
  {%- call statement('pgtrickle_is_stream_table', fetch_result=True, auto_begin=False) -%}
    select count(*) from pgtrickle.pgt_stream_tables
    where pgt_relid = to_regclass({{ dbt_pgtrickle.pgtrickle_literal(dbt_pgtrickle.pgtrickle_relation_name(relation)) }})
  {%- endcall -%}
  {{ return(load_result('pgtrickle_is_stream_table')['data'][0][0] > 0) }}
{% endmacro %}

{% macro pgtrickle_stream_table_exists(name) %}
  {{ return(dbt_pgtrickle.pgtrickle_is_stream_table(name)) }}
{% endmacro %}

{# Names of the stream tables that the node being run reads directly. #}
{% macro pgtrickle_parents() %}
  {%- set names = [] -%}
  {%- for id in (model.depends_on.nodes or []) -%}
    {%- set parent = graph.nodes.get(id) -%}
    {%- if parent and parent.config.materialized in ['pgtrickle', 'stream_table'] -%}
      {%- do names.append(adapter.quote(parent.schema) ~ '.' ~ adapter.quote(parent.alias)) -%}
    {%- endif -%}
  {%- endfor -%}
  {{ return(names) }}
{% endmacro %}

{# Waits until everything committed so far is in the stream table, or in all that the test reads when none is named.  Renders nothing. #}
{% macro pgtrickle_wait_fresh(relation=none, timeout='30s') %}
  {%- if execute -%}
    {%- set names = [dbt_pgtrickle.pgtrickle_relation_name(relation)] if relation is not none else dbt_pgtrickle.pgtrickle_parents() -%}
    {%- for name in names -%}
      {%- set answer = run_query("select pgtrickle.wait_fresh(" ~ dbt_pgtrickle.pgtrickle_literal(name) ~ ", " ~ dbt_pgtrickle.pgtrickle_literal(timeout) ~ "::interval)") -%}
      {%- if not answer.rows[0][0] -%}
        {%- set lag = run_query("select staleness from pgtrickle.get_staleness(" ~ dbt_pgtrickle.pgtrickle_literal(name) ~ ")") -%}
        {%- do exceptions.raise_compiler_error("stream table " ~ name ~ " is not fresh after " ~ timeout ~ "; it is " ~ lag.rows[0][0] ~ " behind") -%}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{% endmacro %}

{% macro pgtrickle_staleness(relation) %}
  {{ return("(select staleness from pgtrickle.get_staleness(" ~ dbt_pgtrickle.pgtrickle_literal(dbt_pgtrickle.pgtrickle_relation_name(relation)) ~ "))") }}
{% endmacro %}

{# With the variable pgtrickle_test_wait, generic tests of a stream table wait first until it contains what was committed before.  Needs the dispatch block. #}
{% macro postgres__get_where_subquery(relation) %}
  {%- if execute and var('pgtrickle_test_wait', false) -%}
    {%- do dbt_pgtrickle.pgtrickle_wait_fresh(timeout=var('pgtrickle_test_wait_timeout', '30s')) -%}
  {%- endif -%}
  {{ return(dbt.default__get_where_subquery(relation)) }}
{% endmacro %}
