{{ config(materialized='pgtrickle', schedule='1s', indexes=[{'columns': ['region']}]) }}

select o.*, c.region
from {{ source('app', 'orders') }} o
join {{ source('app', 'customers') }} c on c.id = o.customer_id
