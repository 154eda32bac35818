{{ config(materialized='pgtrickle', schedule='1s', refresh_mode='DIFFERENTIAL') }}

select payment_type, payment_name
from {{ ref('payment_types') }}
