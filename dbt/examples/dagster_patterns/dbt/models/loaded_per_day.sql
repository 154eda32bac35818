-- over a table that dbt loads day by day, backfills included
{{ config(materialized='pgtrickle', schedule='1s', tags=['partitioned']) }}
select (event_time at time zone 'UTC')::date as day, count(*) as events from {{ ref('microbatch_model') }} group by 1
