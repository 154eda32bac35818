{{ config(materialized='view') }}

select
    vendor_id as vendor_id,
    pickup_at,
    dropoff_at,
    extract(epoch from (dropoff_at - pickup_at)) as duration_seconds,
    passenger_count,
    trip_distance as distance_miles,
    pu_location_id as pickup_zone_id,
    do_location_id as dropoff_zone_id,
    payment_type,
    fare_amount,
    tip_amount,
    total_amount,
    dt as partition_month
from {{ source('bronze', 'nyc_yellow_trips') }}
where pickup_at is not null
  and dropoff_at >= pickup_at
  and trip_distance between 0 and 200
