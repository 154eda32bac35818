{#
    dbt/macros/deploy/clone_and_swap.sql
        Two schemas, green for readers and blue to build in: a run begins from what is live, and goes live only when all of it has succeeded.

    For the hooks on-run-start and on-run-end of a project whose models are built into blue.  Incremental models go on from where green is, so its tables are copied;
    stream tables are maintained in both schemas and views have no rows, so these are what the last run made them.  Going live is one call of
    pgtrickle.try_swap_schemas(): all marts at one moment, and blue then is what was live before.
#}
{% macro clone_green_to_blue(green=var('green_schema', 'green'), blue=var('blue_schema', 'blue')) %}
  {%- if execute -%}
    {%- do run_query("create schema if not exists " ~ adapter.quote(blue)) -%}
    {%- set tables = run_query("select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind = 'r' and n.nspname = " ~ dbt_pgtrickle.pgtrickle_literal(green) ~ "
        and not exists (select from pgtrickle.pgt_stream_tables s where s.pgt_relid = c.oid) order by c.relname") -%}
    {%- for row in tables.rows -%}
      {%- set copy = api.Relation.create(database=target.database, schema=blue, identifier=row[0], type='table') -%}
      {%- set original = api.Relation.create(database=target.database, schema=green, identifier=row[0], type='table') -%}
      {#- one statement, so a transaction of its own; with the same columns the table stays, because views in blue may read it -#}
      {%- do run_query("do $clone$ begin if " ~ dbt_pgtrickle.pgtrickle_columns_of(copy) ~ " = " ~ dbt_pgtrickle.pgtrickle_columns_of(original)
          ~ " then truncate " ~ copy ~ "; else drop table if exists " ~ copy ~ "; create table " ~ copy ~ " (like " ~ original ~ " including all); end if; insert into "
          ~ copy ~ " select * from " ~ original ~ "; end $clone$") -%}
      {%- do adapter.cache_added(copy) -%}
    {%- endfor -%}
    {{ log('cloned ' ~ tables.rows | length ~ ' table(s) from ' ~ green ~ ' to ' ~ blue, info=True) }}
  {%- endif -%}
{% endmacro %}

{# An expression: names and types of the columns in their order, null when there is no such table. #}
{% macro pgtrickle_columns_of(relation) %}
  {{ return("(select string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' order by attnum) from pg_attribute where attrelid = to_regclass("
      ~ dbt_pgtrickle.pgtrickle_literal(relation.render()) ~ ") and attnum > 0 and not attisdropped)") }}
{% endmacro %}

{% macro swap_blue_to_green_if_clean(results, green=var('green_schema', 'green'), blue=var('blue_schema', 'blue')) %}
  {%- if execute and results -%}
    {%- set failures = [] -%}
    {%- for result in results -%}
      {%- if result.status not in ['success', 'pass', 'warn'] -%}
        {%- do failures.append(result.node.unique_id ~ ' (' ~ result.status ~ ')') -%}
      {%- endif -%}
    {%- endfor -%}
    {%- if failures -%}
      {{ log(green ~ ' stays as it is, ' ~ blue ~ ' holds what was built; not clean: ' ~ failures | join(', '), info=True) }}
    {%- else -%}
      {%- do run_query("create schema if not exists " ~ adapter.quote(green)) -%}
      {%- do run_query("select pgtrickle.try_swap_schemas(" ~ dbt_pgtrickle.pgtrickle_text_array([green]) ~ ", " ~ dbt_pgtrickle.pgtrickle_text_array([blue])
          ~ ", 'promoted by dbt', interval '2 seconds', 10)") -%}
      {{ log(green ~ ' is live with all that was built in ' ~ blue, info=True) }}
    {%- endif -%}
  {%- endif -%}
{% endmacro %}
