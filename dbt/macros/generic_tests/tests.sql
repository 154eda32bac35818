{#
    dbt/macros/generic_tests/tests.sql
        Tests that a model's YAML can name: stream_table_healthy, pgtrickle_fresh, pgtrickle_consistent.
#}
{# Fails when there is no such stream table, when it is not active or has errors, or is staler than that. #}
{% test stream_table_healthy(model, warn_seconds=300) %}
select coalesce(s.status, 'not a stream table') as status, s.staleness, s.consecutive_errors
from (select 1) as one
left join pgtrickle.pg_stat_stream_tables s on s.pgt_schema = '{{ model.schema }}' and s.pgt_name = '{{ model.identifier }}'
where s.pgt_id is null or s.status <> 'ACTIVE' or s.consecutive_errors > 0 or not s.is_populated
  or s.staleness is null or s.staleness > interval '{{ warn_seconds }} seconds'
{% endtest %}

{% test pgtrickle_fresh(model, max_lag='10 seconds') %}
select * from pgtrickle.get_staleness({{ dbt_pgtrickle.pgtrickle_literal(model.include(database=false).render()) }})
where staleness is null or staleness > interval '{{ max_lag }}'
{% endtest %}

{# The rows in which the stream table and its query differ at one snapshot. #}
{% test pgtrickle_consistent(model) %}
select * from pgtrickle.verify({{ dbt_pgtrickle.pgtrickle_literal(model.include(database=false).render()) }})
{% endtest %}
