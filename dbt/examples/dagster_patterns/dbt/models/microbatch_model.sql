{{ config(
    materialized='incremental',
    incremental_strategy='microbatch',
    unique_key='event_id',
    event_time='event_time',
    batch_size='day',
    begin='2026-01-01',
    tags=['partitioned']
) }}
select
    event_id,
    event_time,
    user_id,
    event_type
from {{ ref('all_events') }}
