{% snapshot snap_pickup_zone %}
{{ config(
    unique_key='zone_id',
    strategy='check',
    check_cols='all',
    hard_deletes='invalidate',
) }}
select * from {{ ref('dim_pickup_zone') }}
{% endsnapshot %}
