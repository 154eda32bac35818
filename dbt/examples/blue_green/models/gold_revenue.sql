{{ config(materialized='pgtrickle', schema='gold', schedule='1s') }}

select region::text as region, sum(amount)::numeric as revenue, count(*)::bigint as orders
from {{ ref('silver_orders') }}
group by region
