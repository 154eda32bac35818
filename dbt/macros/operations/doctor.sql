{#
    dbt/macros/operations/doctor.sql
        dbt run-operation pgtrickle_doctor: is everything there that stream tables need, in the server, the role and the project?

    Prints one line per check and fails when one is critical.  What must be well in the server the server says itself: pgtrickle.health_check().
#}
{% macro pgtrickle_doctor() %}
  {%- if not execute -%}
    {{ return('') }}
  {%- endif -%}
  {%- set checks = [] -%}
  {%- set version = run_query("select installed_version from pg_catalog.pg_available_extensions where name = 'pgtrickle'") -%}
  {%- if version.rows | length == 0 or version.rows[0][0] is none -%}
    {%- do checks.append(['extension', 'CRITICAL', 'the extension pgtrickle is not in this database: run "pgtrickle setup", or create extension pgtrickle']) -%}
  {%- else -%}
    {%- do checks.append(['extension', 'OK', 'pgtrickle ' ~ version.rows[0][0]]) -%}
    {%- for row in run_query('select check_name, severity, detail from pgtrickle.health_check()').rows -%}
      {%- do checks.append([row[0], row[1], row[2]]) -%}
    {%- endfor -%}
  {%- endif -%}
  {%- set may = run_query("select has_database_privilege(current_database(), 'CREATE'), current_user, coalesce((select has_schema_privilege(oid, 'CREATE') from pg_catalog.pg_namespace where nspname = " ~ dbt_pgtrickle.pgtrickle_literal(target.schema) ~ "), false)").rows[0] -%}
  {%- do checks.append(['rights', 'OK' if may[0] or may[2] else 'CRITICAL',
      'role ' ~ may[1] ~ (' may create in schema ' if may[2] else ' may create schemas, also ' if may[0] else ' may create neither schemas nor tables in schema ') ~ target.schema]) -%}
  {%- for name, macro in [('collect_freshness', adapter.dispatch('collect_freshness', 'dbt')), ('get_catalog_relations', adapter.dispatch('get_catalog_relations', 'dbt'))] -%}
    {%- set found = macro.macro.package_name -%}
    {%- do checks.append(['dispatch of ' ~ name, 'OK' if found == 'dbt_pgtrickle' else 'WARNING',
        'from ' ~ found if found == 'dbt_pgtrickle' else 'from ' ~ found ~ ': add the dispatch block to dbt_project.yml, "dbt run-operation pgtrickle_generate_shims" prints it']) -%}
  {%- endfor -%}
  {%- for node in graph.nodes.values() if node.resource_type == 'model' and node.config.materialized in ['view', 'ephemeral'] and node.config.get('indexes') -%}
    {%- do checks.append(['indexes of ' ~ node.name, 'WARNING', 'indexes of a ' ~ node.config.materialized ~ ' are ignored: PostgreSQL has none; materialized=\'pgtrickle\' has']) -%}
  {%- endfor -%}
  {%- for check in checks -%}
    {{ print('%-9s %s: %s' | format(check[1], check[0], check[2])) }}
  {%- endfor -%}
  {%- set critical = checks | selectattr(1, 'equalto', 'CRITICAL') | list -%}
  {%- if critical -%}
    {%- do exceptions.raise_compiler_error(critical | map(attribute=2) | join('; ')) -%}
  {%- endif -%}
{% endmacro %}

{# What a project has to contain besides packages.yml. #}
{% macro pgtrickle_generate_shims() %}
  {{ print("# dbt_project.yml: the package takes part in freshness checks, docs, clone\ndispatch:\n  - macro_namespace: dbt\n    search_order: ['" ~ project_name ~ "', 'dbt_pgtrickle', 'dbt']\n\n"
      ~ "# macros/continuous_tests.sql: stored failures of tests become stream tables\n"
      ~ "{% materialization test, adapter='postgres' %}\n  {{ return(dbt_pgtrickle.materialization_test_postgres()) }}\n{% endmaterialization %}") }}
{% endmacro %}

{# Sources with a freshness check for the stream tables of a schema, for projects that only read them. #}
{% macro pgtrickle_generate_sources(schema=none, name='stream_tables') %}
  {%- if not execute -%}
    {{ return('') }}
  {%- endif -%}
  {%- set lines = ['version: 2', 'sources:', '  - name: ' ~ name, '    schema: ' ~ (schema or target.schema), '    loaded_at_field: data_timestamp',
      '    freshness:', '      warn_after: {count: 1, period: minute}', '      error_after: {count: 5, period: minute}', '    tables:'] -%}
  {%- for row in run_query("select pgt_name from pgtrickle.pgt_stream_tables where pgt_schema = " ~ dbt_pgtrickle.pgtrickle_literal(schema or target.schema) ~ " order by 1").rows -%}
    {%- do lines.append('      - name: ' ~ row[0]) -%}
  {%- endfor -%}
  {{ print(lines | join('\n')) }}
{% endmacro %}
