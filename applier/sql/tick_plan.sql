/* applier/sql/tick_plan.sql: who takes part in the tick, with which change set and action. */
SELECT pgtrickle.tick_plan($1::bigint[], $2::int[], $3::text[]);
