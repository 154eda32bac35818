{#
    dbt/macros/adapters/freshness.sql
        `dbt source freshness` of stream tables, with loaded_at_field: data_timestamp.

    A stream table has no column data_timestamp; the moment up to which it contains everything is in the catalog.  Takes part when the project's
    dbt_project.yml has the dispatch block of README.md.  A source's schema is the source's name when none is given, so a table that is not there is
    looked for among all stream tables.
#}
{% macro postgres__collect_freshness(source, loaded_at_field, filter) %}
  {%- if adapter.type() == 'postgres' and loaded_at_field == 'data_timestamp' -%}
    {%- set exact = dbt_pgtrickle.pgtrickle_is_stream_table(source) -%}
    {%- set name = source.include(database=false).render() if exact else adapter.quote(source.identifier) -%}
    {%- call statement('collect_freshness', fetch_result=True, auto_begin=False) -%}
      select data_timestamp as max_loaded_at, clock_timestamp() as snapshotted_at
      from pgtrickle.get_staleness({{ dbt_pgtrickle.pgtrickle_literal(name) }})
    {%- endcall -%}
    {{ return(load_result('collect_freshness')) }}
  {%- endif -%}
  {{ return(dbt.default__collect_freshness(source, loaded_at_field, filter)) }}
{% endmacro %}
