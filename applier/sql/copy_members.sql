/* applier/sql/copy_members.sql: what the table $2 of the copy $1 consists of ($3), compared with the last look. */
SELECT m.changed, m.rewritten, m.altered FROM pgtrickle.copy_members($1::bigint, $2::oid, $3::jsonb) m;
