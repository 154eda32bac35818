{% snapshot snap_zone_lookup %}
{{ config(
    target_schema='silver',
    unique_key='zone_id',
    strategy='check',
    check_cols=['borough', 'zone_name', 'service_zone'],
) }}
select * from {{ source('bronze', 'zone_lookup') }}
{% endsnapshot %}
