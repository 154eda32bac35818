select event_id, event_type, user_id from {{ source('shared', 'events') }}
