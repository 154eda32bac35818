select event_type, count(distinct user_id) as users from {{ ref('stg_events') }} group by event_type
