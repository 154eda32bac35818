-- the aggregate of the dashboard over trips as they end: maintained change by change; the zones are a materialized copy, not the foreign table
{{ config(materialized='pgtrickle', schedule='1s', refresh_mode='DIFFERENTIAL') }}

select
    date_trunc('day', trips.pickup_at)::date as trip_date,
    zones.borough,
    count(*) as trips,
    sum(trips.total_amount::numeric) as revenue,
    sum(trips.tip_amount::numeric) / nullif(sum(trips.fare_amount::numeric), 0) as tip_rate,
    avg(trips.trip_distance::numeric) as avg_distance
from {{ ref('live_trips') }} trips
join {{ ref('dim_pickup_zone') }} zones on zones.zone_id = trips.pu_location_id
group by 1, 2
