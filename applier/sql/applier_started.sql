/* applier/sql/applier_started.sql: we own the slot; with a reason, every stream table is filled again. */
SELECT pgtrickle.applier_started($1, $2);
