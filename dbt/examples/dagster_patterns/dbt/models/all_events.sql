-- event_time lets dbt cut what the microbatch model reads into days
{{ config(materialized='pgtrickle', schedule='1s', event_time='event_time') }}
select event_id, event_time, user_id, event_type from {{ source('app', 'events') }}
