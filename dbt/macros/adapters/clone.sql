{#
    dbt/macros/adapters/clone.sql
        `dbt clone` of stream tables: another one with the same query over the same sources.

    dbt's materialization "clone" makes a view where an adapter cannot clone tables.  Takes part when the project's dbt_project.yml has the dispatch block of README.md.
    It does not commit, because where tables can be cloned every statement commits; so that is done here.
#}
{% macro postgres__can_clone_table() %}
  {{ return(model.config.materialized in ['pgtrickle', 'stream_table']) }}
{% endmacro %}

{% macro postgres__create_or_replace_clone(this_relation, defer_relation) %}
  {%- if not dbt_pgtrickle.pgtrickle_is_stream_table(defer_relation) -%}
    {{ return('create table ' ~ this_relation ~ ' as select * from ' ~ defer_relation) }}
  {%- endif -%}
  {%- set existing = load_cached_relation(this_relation) -%}
  {%- if existing is not none and not dbt_pgtrickle.pgtrickle_is_stream_table(this_relation) -%}
    {{ drop_relation_if_exists(existing) }}
  {%- endif -%}
  {%- call statement('pgtrickle_clone', fetch_result=True) -%}
    select action from pgtrickle.pgt_stream_tables s,
      pgtrickle.build_model({{ dbt_pgtrickle.pgtrickle_literal(this_relation.render()) }}, s.defining_query,
        jsonb_build_object('schedule', s.schedule, 'refresh_mode', s.refresh_mode))
    where s.pgt_relid = {{ dbt_pgtrickle.pgtrickle_literal(defer_relation.include(database=false).render()) }}::regclass
  {%- endcall -%}
  {%- do dbt_pgtrickle.pgtrickle_set_mark(this_relation) -%}
  {{ adapter.commit() }}
  {{ return("select 'CLONE STREAM TABLE' as action") }}
{% endmacro %}
