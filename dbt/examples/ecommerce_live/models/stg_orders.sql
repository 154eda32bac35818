with raw_orders as (
    select * from {{ source('app', 'orders') }}
)

select
    id as order_id,
    customer_id as user_id,
    created_at as order_date,
    lower(status) as order_status -- Standardizing raw strings
from raw_orders
