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
      {#- one statement, so a transaction of its own: who reads blue by a view is told instead of losing the view -#}
      {%- do run_query("do $clone$ begin drop table if exists " ~ copy ~ "; create table " ~ copy ~ " (like " ~ original ~ " including all); insert into "
          ~ copy ~ " select * from " ~ original ~ "; end $clone$") -%}
      {%- do adapter.cache_added(copy) -%}
    {%- endfor -%}
    {{ log('cloned ' ~ tables.rows | length ~ ' table(s) from ' ~ green ~ ' to ' ~ blue, info=True) }}
  {%- endif -%}
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
