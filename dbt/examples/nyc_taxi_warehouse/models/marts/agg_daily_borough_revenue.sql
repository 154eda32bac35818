{{ config(materialized='pgtrickle', schedule='10s') }}

with trips as (
    select * from {{ ref('stg_yellow_trips') }}
),
zones as (
    select * from {{ ref('stg_zone_lookup') }}
)
select
    date_trunc('day', trips.pickup_at)::date as trip_date,
    zones.borough,
    count(*) as trips,
    sum(trips.total_amount) as revenue,
    sum(trips.tip_amount) / nullif(sum(trips.fare_amount), 0) as tip_rate,
    avg(trips.distance_miles) as avg_distance
from trips
join zones on zones.zone_id = trips.pickup_zone_id
group by 1, 2
