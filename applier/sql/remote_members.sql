/*
 * applier/sql/remote_members.sql
 *     What the remote's table $1 consists of: {"oid": {"name", "file", "columns", "link", "attached"}, ...}, itself and its partitions or children.
 *
 * `file` is another one after whatever has written all rows anew, or taken them away; `columns` after whatever has altered a column.  `link` is the transaction that made it a part of the one
 * above it, and `attached` says whether it was a table before.  That is seen from its columns: attaching changes the rows that describe those
 * which it inherits, so none is left that was made by the same command as the ones of the system's columns.
 */
WITH RECURSIVE member AS (
	SELECT $1::oid AS relid, NULL::text AS link, NULL::oid AS above
	UNION ALL
	SELECT i.inhrelid, i.xmin::text, i.inhparent
	FROM member m
	JOIN pg_catalog.pg_inherits i ON i.inhparent = m.relid
)
SELECT pg_catalog.jsonb_object_agg(m.relid, pg_catalog.jsonb_build_object(
	'name', pg_catalog.format('%I.%I', n.nspname, c.relname),
	'file', c.relfilenode,
	'columns', (SELECT pg_catalog.md5(pg_catalog.string_agg(a.attnum || ' ' || a.xmin::text, ',' ORDER BY a.attnum))
		FROM pg_catalog.pg_attribute a WHERE a.attrelid = m.relid AND a.attnum > 0),
	'link', m.link,
	'attached', m.above IS NOT NULL AND NOT EXISTS (
		SELECT FROM pg_catalog.pg_attribute a
		JOIN pg_catalog.pg_attribute made ON made.attrelid = a.attrelid AND made.attname = 'tableoid'
		WHERE a.attrelid = m.relid AND a.attinhcount > 0 AND a.xmin = made.xmin AND a.cmin = made.cmin AND a.xmax = '0'::xid)))
FROM member m
JOIN pg_catalog.pg_class c ON c.oid = m.relid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace;
