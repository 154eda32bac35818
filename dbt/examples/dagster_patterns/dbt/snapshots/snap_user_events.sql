{% snapshot snap_user_events %}
{{ config(unique_key='user_id', strategy='check', check_cols=['events']) }}
select * from {{ ref('user_events') }}
{% endsnapshot %}
