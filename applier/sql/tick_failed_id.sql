/* applier/sql/tick_failed_id.sql: which stream table made the tick fail; 0: none in particular. */
SELECT pgtrickle.tick_failed_id();
