/* applier/sql/tick_lock_list.sql: what a tick of these stream tables has to lock. */
SELECT pgtrickle.tick_lock_list($1::bigint[]);
