{{ config(materialized='table') }}

select date_trunc('month', order_date) as month, region, sum(revenue) as revenue
from {{ ref('revenue_by_region') }}
group by 1, 2
