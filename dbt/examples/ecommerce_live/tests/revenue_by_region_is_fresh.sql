{{ dbt_pgtrickle.pgtrickle_wait_fresh(ref('revenue_by_region')) }}
SELECT * FROM pgtrickle.get_staleness('revenue_by_region')
WHERE staleness > interval '10 seconds'
