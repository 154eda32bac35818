-- silver: trips with their pickup zones, kept in the warehouse; read from the lake every ten seconds, rewritten only where it differs
{{ config(materialized='pgtrickle', schema='silver', schedule='10s') }}

select trips.*, zones.borough as pickup_borough, zones.zone_name as pickup_zone
from {{ ref('stg_yellow_trips') }} trips
join {{ ref('stg_zone_lookup') }} zones on zones.zone_id = trips.pickup_zone_id
