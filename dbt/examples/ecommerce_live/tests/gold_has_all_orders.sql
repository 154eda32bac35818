{{ dbt_pgtrickle.pgtrickle_wait_fresh() }}
select g.orders as there, o.orders as here
from (select sum(orders) as orders from {{ ref('gold_revenue') }}) g, (select count(*) as orders from {{ source('app', 'orders') }}) o
where g.orders is distinct from o.orders
