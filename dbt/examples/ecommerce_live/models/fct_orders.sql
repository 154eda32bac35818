{{ config(materialized='pgtrickle', schedule='1s', refresh_mode='DIFFERENTIAL') }}

with orders as (
    select * from {{ ref('stg_orders') }}
),

order_payments as (
    select * from {{ ref('stg_payments') }}
)

select
    orders.order_id,
    orders.user_id,
    order_payments.amount
from orders
left join order_payments using (order_id)
