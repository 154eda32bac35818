{{ config(materialized='pgtrickle', schedule='1s', refresh_mode='DIFFERENTIAL') }}

select * from {{ source('bronze', 'live_trips') }}
