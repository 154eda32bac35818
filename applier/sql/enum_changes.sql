/*
 * applier/sql/enum_changes.sql
 *     The statements that give the enum $1 the labels $2, in their order.
 *
 * A new label in the place of one that is gone, while the others are as they were, is a new name for it.  Labels that the
 * remote does not have do no harm.
 */
WITH have AS (
	SELECT e.enumlabel::text AS label, row_number() OVER (ORDER BY e.enumsortorder) AS number
	FROM pg_catalog.pg_enum e
	WHERE e.enumtypid = $1
), want AS (
	SELECT w.label, w.number FROM pg_catalog.unnest($2::text[]) WITH ORDINALITY w (label, number)
)
SELECT CASE
	WHEN replaced.label IS NOT NULL THEN
		pg_catalog.format('ALTER TYPE %s RENAME VALUE %L TO %L', pg_catalog.format_type($1, NULL), replaced.label, want.label)
	WHEN want.number > 1 THEN
		pg_catalog.format('ALTER TYPE %s ADD VALUE %L AFTER %L', pg_catalog.format_type($1, NULL), want.label, ($2::text[])[want.number - 1])
	ELSE
		pg_catalog.format('ALTER TYPE %s ADD VALUE %L', pg_catalog.format_type($1, NULL), want.label)
			|| coalesce(pg_catalog.format(' BEFORE %L', (SELECT have.label FROM have WHERE have.number = 1)), '')
	END AS statement
FROM want
LEFT JOIN have replaced ON replaced.number = want.number
	AND replaced.label NOT IN (SELECT label FROM want)
	AND (SELECT count(*) FROM have) = (SELECT count(*) FROM want)
WHERE want.label NOT IN (SELECT label FROM have)
ORDER BY want.number;
