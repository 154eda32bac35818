-- a stream table over the incremental model: dbt loads that in batches, this one follows each of them
{{ config(materialized='pgtrickle', schedule='1s', refresh_mode='DIFFERENTIAL') }}

select pickup_at::date as trip_date, count(*) as trips, max(pickup_at) as latest
from {{ ref('fct_trips') }}
group by 1
