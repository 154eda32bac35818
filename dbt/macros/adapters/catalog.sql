{#
    dbt/macros/adapters/catalog.sql
        What `dbt docs generate` shows of a stream table: schedule, mode, latency, last refresh, staleness.

    dbt turns columns named stats:<id>:<property> into the statistics of a node.  So dbt's own catalog is joined with ours.  Takes part when the project's
    dbt_project.yml has the dispatch block of README.md.
#}
{% macro postgres__get_catalog_relations(information_schema, relations) %}
  {{ return(dbt_pgtrickle.pgtrickle_add_stats(dbt.postgres__get_catalog_relations(information_schema, relations))) }}
{% endmacro %}

{% macro postgres__get_catalog(information_schema, schemas) %}
  {{ return(dbt_pgtrickle.pgtrickle_add_stats(dbt.postgres__get_catalog(information_schema, schemas))) }}
{% endmacro %}

{% macro pgtrickle_add_stats(catalog) %}
  {%- set stats = [
      ['schedule', 'Schedule', 's.schedule', 'How often it is refreshed when its sources change'],
      ['refresh_mode', 'Refresh mode', 's.refresh_mode', 'How it is asked to be refreshed'],
      ['effective_mode', 'Effective mode', 't.effective_refresh_mode', 'How it is refreshed'],
      ['avg_refresh_ms', 'Average refresh latency (ms)', 'round(s.avg_duration_ms::numeric, 3)', 'Mean duration of its refreshes'],
      ['last_refresh_at', 'Last refresh', 's.last_refresh_at', 'When it was refreshed last'],
      ['data_timestamp', 'Data timestamp', 't.data_timestamp', 'The moment whose data the last refresh brought'],
      ['staleness_s', 'Staleness (s)', 'round(extract(epoch from s.staleness)::numeric, 3)', 'How far behind its sources it could be at most'],
      ['status', 'Status', 's.status', 'ACTIVE, PAUSED, SUSPENDED, ERROR or INITIALIZING']] -%}
  {%- call statement('pgtrickle_stats', fetch_result=True, auto_begin=False) -%}
    select s.pgt_schema as stats_schema, s.pgt_name as stats_name
    {%- for stat in stats %},
      '{{ stat[1] }}'::text as "stats:{{ stat[0] }}:label", ({{ stat[2] }})::text || '' as "stats:{{ stat[0] }}:value",
      '{{ stat[3] }}'::text as "stats:{{ stat[0] }}:description", true as "stats:{{ stat[0] }}:include"
    {%- endfor %}
    from pgtrickle.pg_stat_stream_tables s join pgtrickle.pgt_stream_tables t using (pgt_id)
  {%- endcall -%}
  {%- set found = load_result('pgtrickle_stats').table -%}
  {%- if found.rows | length == 0 -%}
    {{ return(catalog) }}
  {%- endif -%}
  {{ return(catalog.join(found, ['table_schema', 'table_name'], ['stats_schema', 'stats_name'])) }}
{% endmacro %}
