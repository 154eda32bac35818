{% snapshot snap_order_totals %}
{{ config(unique_key='customer_id', strategy='check', check_cols=['total_spend']) }}
select * from {{ ref('order_totals') }}
{% endsnapshot %}
