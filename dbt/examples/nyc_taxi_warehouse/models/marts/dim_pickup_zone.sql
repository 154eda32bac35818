{{ config(materialized='pgtrickle', schedule='10s', unique_key='zone_id') }}

select zone_id, borough, zone_name, service_zone
from {{ ref('stg_zone_lookup') }}
