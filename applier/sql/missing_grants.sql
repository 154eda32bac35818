/* applier/sql/missing_grants.sql: functions that the role $1 may not execute although the applier calls them. */
SELECT f::text
FROM pgtrickle.applier_functions() f
WHERE NOT pg_catalog.has_function_privilege($1, f, 'EXECUTE')
ORDER BY 1;
