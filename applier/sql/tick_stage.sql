/* applier/sql/tick_stage.sql: records of one change set. */
SELECT pgtrickle.tick_stage($1::int, $2::bytea);
