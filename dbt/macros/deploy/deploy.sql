{#
    dbt/macros/deploy/deploy.sql
        Blue/green: deploy_init, `dbt run --vars 'deploy: True'`, deploy_await, deploy_promote, deploy_cleanup.

    The schemas come from the variable deployment of dbt_project.yml.  A schema x goes live by changing places with x_dbt_deploy.  That is one call of
    pgtrickle.swap_schemas(), so all schemas change places at one moment or none does; promoting once more, before deploy_cleanup, takes it back.
#}

{# The live schemas, checked; the target's entry, or the one named default. #}
{% macro pgtrickle_deployment_schemas() %}
  {%- set deployment = var('deployment', {}) or {} -%}
  {%- set ours = deployment.get(target.name) or deployment.get('default') -%}
  {%- if not ours or not ours.get('schemas') -%}
    {%- do exceptions.raise_compiler_error("no deployment is configured for target " ~ target.name ~ ": set deployment." ~ target.name ~ ".schemas in the vars of dbt_project.yml") -%}
  {%- endif -%}
  {%- if ours.schemas is string -%}
    {%- do exceptions.raise_compiler_error("deployment." ~ target.name ~ ".schemas must be a list") -%}
  {%- endif -%}
  {%- if ours.get('clusters') -%}
    {{ print('clusters have no meaning here and are ignored: ' ~ ours.clusters | join(', ')) }}
  {%- endif -%}
  {{ return(ours.schemas | map('string') | list) }}
{% endmacro %}

{% macro pgtrickle_deploy_suffix() %}
  {{ return('_dbt_deploy') }}
{% endmacro %}

{# Where a model goes that would otherwise go into this schema.  For generate_schema_name. #}
{% macro pgtrickle_deploy_schema(schema) %}
  {%- set wanted = var('deploy', false) -%}
  {%- if wanted is true or wanted | string | lower == 'true' -%}
    {%- set deployment = var('deployment', {}) or {} -%}
    {%- set ours = deployment.get(target.name) or deployment.get('default') or {} -%}
    {%- if schema in (ours.get('schemas') or []) -%}
      {{ return(schema ~ dbt_pgtrickle.pgtrickle_deploy_suffix()) }}
    {%- endif -%}
  {%- endif -%}
  {{ return(schema) }}
{% endmacro %}

{# Takes part when the project has the dispatch block and no generate_schema_name of its own. #}
{% macro postgres__generate_schema_name(custom_schema_name, node) %}
  {{ return(dbt_pgtrickle.pgtrickle_deploy_schema(dbt.default__generate_schema_name(custom_schema_name, node) | trim)) }}
{% endmacro %}

{% macro pgtrickle_text_array(texts) %}
  {%- set literals = [] -%}
  {%- for text in texts -%}
    {%- do literals.append(dbt_pgtrickle.pgtrickle_literal(text)) -%}
  {%- endfor -%}
  {{ return("array[" ~ literals | join(', ') ~ "]::text[]") }}
{% endmacro %}

{% macro pgtrickle_next_schemas(schemas) %}
  {%- set names = [] -%}
  {%- for schema in schemas -%}
    {%- do names.append(schema ~ dbt_pgtrickle.pgtrickle_deploy_suffix()) -%}
  {%- endfor -%}
  {{ return(names) }}
{% endmacro %}

{# Relations in a schema; none: there is no such schema. #}
{% macro pgtrickle_schema_size(schema) %}
  {%- set answer = run_query("select (select count(*) from pg_catalog.pg_class c where c.relnamespace = s.oid and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')) from pg_catalog.pg_namespace s where s.nspname = " ~ dbt_pgtrickle.pgtrickle_literal(schema)) -%}
  {{ return(answer.rows[0][0] if answer.rows | length > 0 else none) }}
{% endmacro %}

{% macro deploy_init(ignore_existing_objects=false) %}
  {%- if execute -%}
    {%- set live = dbt_pgtrickle.pgtrickle_deployment_schemas() -%}
    {%- set statements = [] -%}
    {%- for schema in live -%}
      {%- set next = schema ~ dbt_pgtrickle.pgtrickle_deploy_suffix() -%}
      {%- if dbt_pgtrickle.pgtrickle_schema_size(schema) is none -%}
        {%- do exceptions.raise_compiler_error("schema " ~ schema ~ " does not exist: deploy once without a deployment, or create it") -%}
      {%- endif -%}
      {%- set owned = run_query("select pg_catalog.pg_has_role(nspowner, 'USAGE') from pg_catalog.pg_namespace where nspname = " ~ dbt_pgtrickle.pgtrickle_literal(schema)).rows[0][0] -%}
      {%- if not owned -%}
        {%- do exceptions.raise_compiler_error("role " ~ target.user ~ " is not the owner of schema " ~ schema ~ ", so it cannot swap it: have its owner run ALTER SCHEMA " ~ adapter.quote(schema) ~ " OWNER TO " ~ adapter.quote(target.user)) -%}
      {%- endif -%}
      {%- set size = dbt_pgtrickle.pgtrickle_schema_size(next) -%}
      {%- if size is none -%}
        {%- do statements.append("pgtrickle.create_schema_like(" ~ dbt_pgtrickle.pgtrickle_literal(schema) ~ ", " ~ dbt_pgtrickle.pgtrickle_literal(next) ~ ")") -%}
      {%- elif size > 0 and not ignore_existing_objects -%}
        {%- do exceptions.raise_compiler_error("schema " ~ next ~ " is not empty: run deploy_cleanup, or pass --args '{ignore_existing_objects: true}'") -%}
      {%- endif -%}
    {%- endfor -%}
    {%- if statements -%}
      {%- do run_query("select " ~ statements | join(', ')) -%}
    {%- endif -%}
    {{ print('ready to deploy into ' ~ dbt_pgtrickle.pgtrickle_next_schemas(live) | join(', ')) }}
  {%- endif -%}
{% endmacro %}

{# Waits until all stream tables in the schemas are filled, without errors, and not further behind their schedule than that. #}
{% macro pgtrickle_await(schemas, poll_interval, lag_threshold, timeout) %}
  {%- set query -%}
    select s.pgt_schema || '.' || s.pgt_name, s.status, s.consecutive_errors, s.last_error_message,
      s.status = 'PAUSED' or (s.is_populated and s.status = 'ACTIVE' and not s.needs_reinit
        and (f.schedule_ms is null or coalesce(f.staleness < f.schedule_ms * interval '1 millisecond' + {{ dbt_pgtrickle.pgtrickle_literal(lag_threshold) }}::interval, false))) as ready,
      f.staleness::text
    from pgtrickle.pgt_stream_tables s join pgtrickle.pgt_freshness f using (pgt_id)
    where s.pgt_schema = any ({{ dbt_pgtrickle.pgtrickle_text_array(schemas) }})
    order by 1
  {%- endset -%}
  {%- set state = namespace(ready=false, waited=0.0) -%}
  {%- for round in range(100000) if not state.ready -%}
    {%- set rows = run_query(query).rows -%}
    {%- set waiting = [] -%}
    {%- for row in rows -%}
      {%- if row[1] in ['ERROR', 'SUSPENDED'] or row[2] > 0 -%}
        {%- do exceptions.raise_compiler_error("stream table " ~ row[0] ~ " has failed: " ~ row[3]) -%}
      {%- elif not row[4] -%}
        {%- do waiting.append(row[0] ~ (' (' ~ row[5] ~ ' behind)' if row[5] else ' (not filled yet)')) -%}
      {%- endif -%}
    {%- endfor -%}
    {%- if not waiting -%}
      {%- set state.ready = true -%}
      {{ print(rows | length ~ ' stream tables are ready') }}
    {%- elif state.waited >= timeout -%}
      {%- do exceptions.raise_compiler_error("not ready after " ~ timeout ~ " seconds: " ~ waiting | join(', ')) -%}
    {%- else -%}
      {{ print('waiting for ' ~ waiting | join(', ')) }}
      {%- do run_query("select pg_catalog.pg_sleep(" ~ [poll_interval | float, 0.1] | max ~ ")") -%}
      {%- set state.waited = state.waited + [poll_interval | float, 0.1] | max -%}
    {%- endif -%}
  {%- endfor -%}
{% endmacro %}

{% macro deploy_await(poll_interval=15, lag_threshold='1s', timeout=3600) %}
  {%- if execute -%}
    {%- set next = dbt_pgtrickle.pgtrickle_next_schemas(dbt_pgtrickle.pgtrickle_deployment_schemas()) -%}
    {%- do dbt_pgtrickle.pgtrickle_await(next, poll_interval, lag_threshold, timeout) -%}
  {%- endif -%}
{% endmacro %}

{# Who, when, what: the comment of a schema that has gone live. #}
{% macro pgtrickle_deploy_tag() %}
  {%- set sha = env_var('DBT_DEPLOY_SHA', env_var('GITHUB_SHA', env_var('CI_COMMIT_SHA', ''))) -%}
  {{ return('Deployed by ' ~ target.user ~ ' on ' ~ run_started_at.strftime('%Y-%m-%d %H:%M:%S') ~ ' UTC' ~ (', commit ' ~ sha if sha else '')) }}
{% endmacro %}

{% macro deploy_promote(dry_run=false, wait=false, poll_interval=15, lag_threshold='1s', timeout=3600, force=false, lock_timeout='5s', attempts=5) %}
  {%- if execute -%}
    {%- set live = dbt_pgtrickle.pgtrickle_deployment_schemas() -%}
    {%- set next = dbt_pgtrickle.pgtrickle_next_schemas(live) -%}
    {%- set arguments = dbt_pgtrickle.pgtrickle_text_array(live) ~ ", " ~ dbt_pgtrickle.pgtrickle_text_array(next) -%}
    {%- if wait and not dry_run -%}
      {%- do dbt_pgtrickle.pgtrickle_await(next, poll_interval, lag_threshold, timeout) -%}
    {%- endif -%}
    {%- set errors = [] -%}
    {%- for row in run_query("select severity, finding, detail from pgtrickle.swap_report(" ~ arguments ~ ")").rows -%}
      {{ print(row[0] ~ ': ' ~ row[1] ~ (' (' ~ row[2] ~ ')' if row[2] else '')) }}
      {%- if row[0] == 'error' -%}
        {%- do errors.append(row[1] ~ (' (' ~ row[2] ~ ')' if row[2] else '')) -%}
      {%- endif -%}
    {%- endfor -%}
    {%- set statement = "select pgtrickle.swap_schemas(" ~ arguments ~ ", " ~ dbt_pgtrickle.pgtrickle_literal(dbt_pgtrickle.pgtrickle_deploy_tag()) ~ ")" -%}
    {%- if dry_run -%}
      {{ print('dry run, nothing is executed; in one transaction:') }}
      {%- for schema in live -%}
        {{ print('ALTER SCHEMA ' ~ adapter.quote(schema) ~ ' RENAME TO <a name for a moment>;') }}
        {{ print('ALTER SCHEMA ' ~ adapter.quote(next[loop.index0]) ~ ' RENAME TO ' ~ adapter.quote(schema) ~ ';') }}
        {{ print('ALTER SCHEMA <a name for a moment> RENAME TO ' ~ adapter.quote(next[loop.index0]) ~ ';') }}
      {%- endfor -%}
      {{ print('by: ' ~ statement ~ ';') }}
    {%- elif errors and not force -%}
      {%- do exceptions.raise_compiler_error("nothing was swapped: " ~ errors | join('; ') ~ ". --args '{force: true}' swaps nevertheless") -%}
    {%- else -%}
      {%- set answer = run_query("select pgtrickle.try_swap_schemas(" ~ arguments ~ ", " ~ dbt_pgtrickle.pgtrickle_literal(dbt_pgtrickle.pgtrickle_deploy_tag()) ~ ", " ~ dbt_pgtrickle.pgtrickle_literal(lock_timeout) ~ "::interval, " ~ attempts ~ ")") -%}
      {{ print('live now: ' ~ live | join(', ') ~ '; the old version is in ' ~ next | join(', ')) }}
    {%- endif -%}
  {%- endif -%}
{% endmacro %}

{% macro deploy_cleanup(force=false) %}
  {%- if execute -%}
    {%- set found = [] -%}
    {%- for schema in dbt_pgtrickle.pgtrickle_next_schemas(dbt_pgtrickle.pgtrickle_deployment_schemas()) -%}
      {%- if dbt_pgtrickle.pgtrickle_schema_size(schema) is not none -%}
        {%- do found.append(schema) -%}
      {%- endif -%}
    {%- endfor -%}
    {%- if not found -%}
      {{ print('there is nothing to clean up') }}
      {{ return('') }}
    {%- endif -%}
    {%- set readers = [] -%}
    {%- for row in run_query("select kind, name, reads from pgtrickle.readers_outside(" ~ dbt_pgtrickle.pgtrickle_text_array(found) ~ ")").rows -%}
      {%- do readers.append(row[0] ~ ' ' ~ row[1] ~ ' reads ' ~ row[2]) -%}
    {%- endfor -%}
    {%- if readers and not force -%}
      {%- do exceptions.raise_compiler_error("nothing was dropped: " ~ readers | join('; ') ~ ". --args '{force: true}' drops nevertheless") -%}
    {%- endif -%}
    {%- set quoted = [] -%}
    {%- for schema in found -%}
      {%- do quoted.append(adapter.quote(schema)) -%}
    {%- endfor -%}
    {%- do run_query("drop schema " ~ quoted | join(', ') ~ " cascade") -%}
    {{ print('dropped ' ~ found | join(', ')) }}
  {%- endif -%}
{% endmacro %}
