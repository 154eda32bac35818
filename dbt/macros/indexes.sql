{#
    dbt/macros/indexes.sql
        Indexes and constraints of a stream table: what the model wants and the stream table does not have is made, what it no longer wants is dropped.

    An index of ours carries a hash of its definition in its comment; others are never touched.
#}
{% macro pgtrickle_wanted_indexes(relation) %}
  {%- set wanted = [] -%}
  {%- set specs = [] -%}
  {%- for spec in config.get('indexes', default=[]) or [] -%}
    {%- do specs.append(spec) -%}
  {%- endfor -%}
  {%- set unique_key = dbt_pgtrickle.pgtrickle_config('unique_key') -%}
  {%- if unique_key is not none -%}
    {%- do specs.append({'columns': [unique_key] if unique_key is string else unique_key, 'unique': true}) -%}
  {%- endif -%}
  {%- for spec in specs -%}
    {%- for key in spec -%}
      {%- if key not in ['columns', 'unique', 'type', 'name', 'cluster', 'default'] -%}
        {%- do exceptions.raise_compiler_error("Could not parse index config: unknown key '" ~ key ~ "' of model " ~ model.name) -%}
      {%- endif -%}
    {%- endfor -%}
    {%- if spec.get('cluster') -%}
      {%- do exceptions.warn("model " ~ model.name ~ ": cluster of an index has no meaning here and is ignored") -%}
    {%- endif -%}
    {%- set columns = spec.get('columns') or [] -%}
    {%- if not columns and spec.get('default') -%}
      {%- set columns = adapter.get_columns_in_relation(relation) | map(attribute='quoted') | list -%}
    {%- endif -%}
    {%- if not columns or columns is string -%}
      {%- do exceptions.raise_compiler_error("Could not parse index config: an index of model " ~ model.name ~ " needs a list of columns") -%}
    {%- endif -%}
    {%- set method = spec.get('type') or 'btree' -%}
    {%- set unique = 'unique ' if spec.get('unique') else '' -%}
    {%- set mark = 'dbt_pgtrickle ' ~ local_md5(unique ~ method ~ ' (' ~ columns | join(', ') ~ ') ' ~ (spec.get('name') or '')) -%}
    {%- set base = modules.re.sub('[^a-z0-9_]+', '_', (relation.identifier ~ '_' ~ columns | join('_')) | lower) -%}
    {%- set name = spec.get('name') or base[:48] ~ '_' ~ mark[14:22] ~ '_idx' -%}
    {%- do wanted.append({'mark': mark, 'name': name, 'statement': 'create ' ~ unique ~ 'index "' ~ name ~ '" on ' ~ relation ~ ' using ' ~ method ~ ' (' ~ columns | join(', ') ~ ')'}) -%}
  {%- endfor -%}
  {{ return(wanted) }}
{% endmacro %}

{% macro pgtrickle_sync_indexes(relation) %}
  {%- set wanted = dbt_pgtrickle.pgtrickle_wanted_indexes(relation) -%}
  {%- call statement('pgtrickle_indexes', fetch_result=True) -%}
    select c.relname, obj_description(c.oid, 'pg_class')
    from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
    where i.indrelid = {{ dbt_pgtrickle.pgtrickle_literal(relation.include(database=false).render()) }}::regclass
      and obj_description(c.oid, 'pg_class') like 'dbt\_pgtrickle %'
  {%- endcall -%}
  {%- set found = load_result('pgtrickle_indexes')['data'] -%}
  {%- set wanted_marks = wanted | map(attribute='mark') | list -%}
  {%- set found_marks = found | map(attribute=1) | list -%}
  {%- for row in found if row[1] not in wanted_marks -%}
    {%- call statement('pgtrickle_drop_index') -%}
      drop index if exists {{ relation.include(database=false, identifier=false) }}."{{ row[0] }}"
    {%- endcall -%}
  {%- endfor -%}
  {%- for index in wanted if index.mark not in found_marks -%}
    {%- call statement('pgtrickle_create_index') -%}
      {{ index.statement }}
    {%- endcall -%}
    {%- call statement('pgtrickle_mark_index') -%}
      comment on index {{ relation.include(database=false, identifier=false) }}."{{ index.name }}" is '{{ index.mark }}'
    {%- endcall -%}
  {%- endfor -%}
{% endmacro %}

{# Constraints of a contract.  A stream table keeps them when its query changes, so they are only added to a new one or where they are missing. #}
{% macro pgtrickle_constraints(relation, action) %}
  {%- if config.get('contract') and config.get('contract').enforced and action != 'noop' -%}
    {%- for column in model.columns.values() -%}
      {%- for constraint in column.constraints or [] -%}
        {%- do dbt_pgtrickle.pgtrickle_constraint(relation, constraint, [adapter.quote(column.name) if column.quote else column.name]) -%}
      {%- endfor -%}
    {%- endfor -%}
    {%- for constraint in model.constraints or [] -%}
      {%- do dbt_pgtrickle.pgtrickle_constraint(relation, constraint, constraint.columns) -%}
    {%- endfor -%}
  {%- endif -%}
{% endmacro %}

{% macro pgtrickle_constraint(relation, constraint, columns) %}
  {%- set type = constraint.type | string -%}
  {%- set type = type.split('.')[-1] -%}
  {%- if type == 'foreign_key' -%}
    {%- do exceptions.warn("model " ~ model.name ~ ": foreign keys of stream tables are not supported") -%}
    {{ return('') }}
  {%- elif type == 'not_null' -%}
    {%- for column in columns -%}
      {%- call statement('pgtrickle_not_null') -%}
        alter table {{ relation }} alter column {{ column }} set not null
      {%- endcall -%}
    {%- endfor -%}
    {{ return('') }}
  {%- endif -%}
  {%- if type == 'check' -%}
    {%- set text = 'check (' ~ constraint.expression ~ ')' -%}
  {%- elif type in ['unique', 'primary_key'] -%}
    {%- set text = type | replace('_', ' ') ~ ' (' ~ columns | join(', ') ~ ')' -%}
  {%- else -%}
    {%- do exceptions.raise_compiler_error("model " ~ model.name ~ ": unknown constraint type " ~ type) -%}
  {%- endif -%}
  {%- set name = constraint.get('name') or 'dbt_' ~ local_md5(relation.identifier ~ text)[:12] -%}
  {%- call statement('pgtrickle_has_constraint', fetch_result=True) -%}
    select count(*) from pg_catalog.pg_constraint
    where conname = {{ dbt_pgtrickle.pgtrickle_literal(name) }}
      and conrelid = {{ dbt_pgtrickle.pgtrickle_literal(relation.include(database=false).render()) }}::regclass
  {%- endcall -%}
  {%- if load_result('pgtrickle_has_constraint')['data'][0][0] == 0 -%}
    {%- call statement('pgtrickle_add_constraint') -%}
      alter table {{ relation }} add constraint "{{ name }}" {{ text }}
    {%- endcall -%}
  {%- endif -%}
{% endmacro %}
