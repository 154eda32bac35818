/*
 * applier/sql/applier_lock.sql
 *     Only one refresh connection at a time in a database.
 *
 * The session of an applier that was killed may still be executing a tick, whose commit would move
 * frontiers that its successor has read already.  The lock goes when that session has ended.
 */
SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtext('pgtrickle applier'), 0);
