{{ config(materialized='pgtrickle', schedule='1s', refresh_mode='DIFFERENTIAL') }}
select user_id, count(*) as events, max(event_time) as latest from {{ ref('all_events') }} group by user_id
