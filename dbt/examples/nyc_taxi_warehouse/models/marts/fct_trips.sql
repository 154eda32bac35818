{{ config(
    materialized='incremental',
    unique_key='trip_id',
    on_schema_change='append_new_columns'
) }}

with new_rows as (
    select
        md5(vendor_id::text || pickup_at::text || pickup_zone_id::text) as trip_id,
        *
    from {{ ref('stg_yellow_trips') }}
    {% if is_incremental() %}
    where pickup_at > (select coalesce(max(pickup_at), '1900-01-01') from {{ this }})
    {% endif %}
)
select * from new_rows
