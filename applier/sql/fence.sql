/* applier/sql/fence.sql: a message that comes back on the stream behind everything that was visible. */
SELECT pgtrickle.fence($1);
