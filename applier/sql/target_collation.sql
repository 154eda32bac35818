/* applier/sql/target_collation.sql: the collation $2 of schema $1, as SQL; no row when this database has none. */
SELECT pg_catalog.format('%I.%I', n.nspname, l.collname)
FROM pg_catalog.pg_collation l
JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
WHERE n.nspname = $1 AND l.collname = $2 AND l.collencoding IN (-1, d.encoding);
