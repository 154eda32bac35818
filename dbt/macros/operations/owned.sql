{#
    dbt/macros/operations/owned.sql
        Which stream tables this project made: listing and dropping them.

    Each stream table says in the comment of its trigger which node made it: dbt_pgtrickle model.shop.orders.  A comment, because it goes where the table goes
    (another name, another schema, a dump), and nobody but its owner can change it.
#}
{% macro pgtrickle_mark() %}
  {{ return('dbt_pgtrickle ' ~ model.unique_id) }}
{% endmacro %}

{% macro pgtrickle_set_mark(relation) %}
  {%- call statement('pgtrickle_mark', fetch_result=True) -%}
    select count(*) from pg_catalog.pg_trigger t
    where t.tgrelid = {{ dbt_pgtrickle.pgtrickle_literal(relation.include(database=false).render()) }}::regclass and t.tgname = 'pgtrickle_guard'
      and obj_description(t.oid, 'pg_trigger') is distinct from {{ dbt_pgtrickle.pgtrickle_literal(dbt_pgtrickle.pgtrickle_mark()) }}
  {%- endcall -%}
  {%- if load_result('pgtrickle_mark')['data'][0][0] -%}
    {%- call statement('pgtrickle_set_mark') -%}
      comment on trigger pgtrickle_guard on {{ relation }} is {{ dbt_pgtrickle.pgtrickle_literal(dbt_pgtrickle.pgtrickle_mark()) }}
    {%- endcall -%}
  {%- endif -%}
{% endmacro %}

{# Rows schema, name, unique id of the node: what this project made in these schemas; what reads others comes first. #}
{% macro pgtrickle_made_here(schemas) %}
  {%- set query -%}
    select s.pgt_schema, s.pgt_name, substr(obj_description(t.oid, 'pg_trigger'), length('dbt_pgtrickle ') + 1)
    from pgtrickle.pgt_stream_tables s
    join pg_catalog.pg_trigger t on t.tgrelid = s.pgt_relid and t.tgname = 'pgtrickle_guard'
    where split_part(obj_description(t.oid, 'pg_trigger'), '.', 2) = {{ dbt_pgtrickle.pgtrickle_literal(project_name) }}
      and obj_description(t.oid, 'pg_trigger') like 'dbt\_pgtrickle %'
      and s.pgt_schema in ({% for schema in schemas %}{{ dbt_pgtrickle.pgtrickle_literal(schema) }}{{ ', ' if not loop.last }}{% endfor %})
    order by s.pgt_id desc
  {%- endset -%}
  {{ return(run_query(query).rows) }}
{% endmacro %}

{# The schemas that this target builds in. #}
{% macro pgtrickle_schemas() %}
  {%- set schemas = [target.schema] -%}
  {%- for node in graph.nodes.values() if node.package_name == project_name and node.resource_type in ['model', 'test'] and node.schema not in schemas -%}
    {%- do schemas.append(node.schema) -%}
  {%- endfor -%}
  {{ return(schemas) }}
{% endmacro %}

{% macro pgtrickle_drop(schema, name) %}
  {%- do run_query("select pgtrickle.drop_stream_table(" ~ dbt_pgtrickle.pgtrickle_literal(adapter.quote(schema) ~ '.' ~ adapter.quote(name)) ~ ", true)") -%}
{% endmacro %}

{# Stream tables whose model is gone, or is built under another name now. #}
{% macro pgtrickle_orphans(drop=false, schemas=none) %}
  {%- if not execute -%}
    {{ return([]) }}
  {%- endif -%}
  {%- set orphans = [] -%}
  {%- for row in dbt_pgtrickle.pgtrickle_made_here(schemas or dbt_pgtrickle.pgtrickle_schemas()) -%}
    {%- set node = graph.nodes.get(row[2]) -%}
    {%- if not node or node.schema != row[0] or (node.alias or node.name) != row[1] -%}
      {%- do orphans.append(row) -%}
    {%- endif -%}
  {%- endfor -%}
  {%- for row in orphans -%}
    {%- set name = row[0] ~ '.' ~ row[1] -%}
    {%- if not drop -%}
      {{ print('orphan ' ~ name ~ ' of ' ~ row[2]) }}
    {%- elif dbt_pgtrickle.pgtrickle_is_stream_table(adapter.quote(row[0]) ~ '.' ~ adapter.quote(row[1])) -%}
      {%- do dbt_pgtrickle.pgtrickle_drop_unless_read(row[0], row[1]) -%}
    {%- endif -%}
  {%- endfor -%}
  {%- if not orphans -%}
    {{ print('no orphans') }}
  {%- elif not drop -%}
    {{ print("nothing was dropped; --args '{drop: true}' drops them") }}
  {%- endif -%}
  {{ return(orphans) }}
{% endmacro %}

{# An orphan that something else reads stays, with the reason. #}
{% macro pgtrickle_drop_unless_read(schema, name) %}
  {%- set literal = dbt_pgtrickle.pgtrickle_literal(adapter.quote(schema) ~ '.' ~ adapter.quote(name)) -%}
  {%- set readers = run_query("select string_agg(s.pgt_schema || '.' || s.pgt_name, ', ') from pgtrickle.pgt_dependencies d join pgtrickle.pgt_stream_tables s using (pgt_id) where d.source_relid = " ~ literal ~ "::regclass").rows[0][0] -%}
  {%- set views = run_query("select string_agg(distinct r.ev_class::regclass::text, ', ') from pg_catalog.pg_depend d join pg_catalog.pg_rewrite r on r.oid = d.objid and d.classid = 'pg_rewrite'::regclass where d.refobjid = " ~ literal ~ "::regclass and r.ev_class <> d.refobjid").rows[0][0] -%}
  {%- if readers or views -%}
    {{ print('kept ' ~ schema ~ '.' ~ name ~ ': read by ' ~ [readers, views] | select | join(', ')) }}
  {%- else -%}
    {%- do run_query("select pgtrickle.drop_stream_table(" ~ literal ~ ")") -%}
    {{ print('dropped ' ~ schema ~ '.' ~ name) }}
  {%- endif -%}
{% endmacro %}

{# All stream tables of this project in this target's schemas. #}
{% macro drop_all_stream_tables() %}
  {%- if execute -%}
    {%- for row in dbt_pgtrickle.pgtrickle_made_here(dbt_pgtrickle.pgtrickle_schemas()) -%}
      {%- if dbt_pgtrickle.pgtrickle_is_stream_table(adapter.quote(row[0]) ~ '.' ~ adapter.quote(row[1])) -%}
        {%- do dbt_pgtrickle.pgtrickle_drop(row[0], row[1]) -%}
        {{ print('dropped ' ~ row[0] ~ '.' ~ row[1]) }}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{% endmacro %}

{# The same without asking who made them: every stream table in this target's schemas. #}
{% macro drop_all_stream_tables_force() %}
  {%- if execute -%}
    {%- for schema in dbt_pgtrickle.pgtrickle_schemas() -%}
      {%- for row in run_query("select pgt_schema, pgt_name from pgtrickle.pgt_stream_tables where pgt_schema = " ~ dbt_pgtrickle.pgtrickle_literal(schema) ~ " order by pgt_id desc").rows -%}
        {%- if dbt_pgtrickle.pgtrickle_is_stream_table(adapter.quote(row[0]) ~ '.' ~ adapter.quote(row[1])) -%}
          {%- do dbt_pgtrickle.pgtrickle_drop(row[0], row[1]) -%}
          {{ print('dropped ' ~ row[0] ~ '.' ~ row[1]) }}
        {%- endif -%}
      {%- endfor -%}
    {%- endfor -%}
  {%- endif -%}
{% endmacro %}

{# For an environment of a pull request: its schemas with all that is in them.  Refused for targets that are named in pgtrickle_protected_targets. #}
{% macro drop_environment() %}
  {%- if execute -%}
    {%- if target.name in var('pgtrickle_protected_targets', ['prod']) -%}
      {%- do exceptions.raise_compiler_error("drop_environment would drop the schemas of target " ~ target.name ~ ", which is protected (variable pgtrickle_protected_targets)") -%}
    {%- endif -%}
    {%- for schema in dbt_pgtrickle.pgtrickle_schemas() -%}
      {%- set relation = api.Relation.create(database=target.database, schema=schema) -%}
      {%- do adapter.drop_schema(relation) -%}
      {{ print('dropped schema ' ~ schema) }}
    {%- endfor -%}
  {%- endif -%}
{% endmacro %}
