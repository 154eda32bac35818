/*
 * t/models/immediate.pml
 *     The locks of IMMEDIATE stream tables (docs/explanation/immediate.md, sections 3 to 6), for the model checker spin.
 *
 * A few writers change the inputs of one join whose rows are counted by group, and maintain that count each in its own transaction.  The data is as small
 * as it can be: how many rows each input has for each join value, and the count of each group.  All that can go wrong is about who sees what, and
 * that is here as it is in the server: what a transaction has written nobody else sees before its commit, a snapshot is a copy of what is committed,
 * and locks go after the commit has become visible.  The numbers may become negative; deltas are sums and products, which do not care.
 *
 * Properties: (1) whenever a transaction has become visible, the committed counts equal the query over the committed rows; (2) after each
 * of its statements a transaction's own counts equal the query over what it sees; (3) with one statement each, nobody waits for ever.
 *
 * What is asked is chosen by macros:
 *
 *   WRITERS, STATEMENTS (each), INPUTS 2 or 3, KEYS (join values), GROUPS (key k counts in group k % GROUPS)
 *   CROSS       the join equates nothing: each pair has one value
 *   STATE       input 0 is DISTINCT of its rows, kept as a state that is merged by key below the join
 *   ANEW        groups are computed from the inputs again, as min and max are, rather than added to
 *   MAY_ABORT   who waits may be rolled back, as by a deadlock (needed for more than one statement)
 *   SAVEPOINTS  a statement may be rolled back, and its locks with it
 *   COARSE      a run may be coarse
 *   MANY        a fine run may take all values of a pair, or all keys of a state, in place of those that it needs
 *   REPEATABLE  writer 0 is REPEATABLE READ
 *
 * and, to see that the model can fail, each of these leaves something out:
 *
 *   NO_PAIR_LOCK, ONE_PAIR_MODE, NO_KEY_LOCK, NO_TABLE_LOCK, NO_SOME_LOCK (who takes some of them does not say so), OLD_SNAPSHOT (of before the locks), SAME_SNAPSHOT (the states at the join's),
 *   EARLY_RELEASE (locks go before the commit is visible), NO_COMPARISON (with the snapshot of REPEATABLE READ)
 */
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef STATEMENTS
#define STATEMENTS 1
#endif
#ifndef INPUTS
#define INPUTS 2
#endif
#ifndef KEYS
#define KEYS 2
#endif
#ifndef GROUPS
#define GROUPS 1
#endif

#define CELLS (INPUTS * KEYS)
#define CELL(input, key) ((input) * KEYS + (key))
#define OTHERS(mask) ((mask) & ~(1 << me))

#ifdef CROSS
#define VALUES 1
#define REST(x, input) (x[CELL(input, 0)] + x[CELL(input, 1)])
#else
#define VALUES KEYS
#endif

#if INPUTS == 2
#define PAIRS 1
#define FIRST(pair) 0
#define SECOND(pair) 1
#ifdef CROSS
#define JOINED(x, key) (x[CELL(0, key)] * REST(x, 1))
#else
#define JOINED(x, key) (x[CELL(0, key)] * x[CELL(1, key)])
#endif
#else
#define PAIRS 3
#define FIRST(pair) ((pair) == 2 -> 1 : 0)
#define SECOND(pair) ((pair) == 0 -> 1 : 2)
#ifdef CROSS
#define JOINED(x, key) (x[CELL(0, key)] * REST(x, 1) * REST(x, 2))
#else
#define JOINED(x, key) (x[CELL(0, key)] * x[CELL(1, key)] * x[CELL(2, key)])
#endif
#endif

/* What is committed. */
short rows[CELLS];
short state[KEYS];
short total[GROUPS];

/* Who holds what, a bit per writer.  A pair's two modes exclude each other, but not themselves; both together are EXCLUSIVE. */
byte table_fine;
byte table_coarse;
byte pair_left[PAIRS * VALUES];
byte pair_right[PAIRS * VALUES];
byte key_of_state[KEYS];
byte key_of_total[GROUPS];

/* What stands above them: for each pair, and (PAIRS, PAIRS + 1) for the state and the totals, who has some and who has all. */
#ifdef MANY
byte has_some[PAIRS + 2];
byte has_all[PAIRS + 2];
#endif

/* now[] = what input 0's rows amount to for the join: themselves, or whether there are any. */
#ifdef STATE
#define INPUT_OF_STATE(count) ((count) > 0 -> 1 : 0)
#endif

/* The query over the cells x, group g, into sum. */
#define QUERY(x, g) sum = 0; \
	for (k : 0 .. KEYS - 1) { \
		if \
		:: k % GROUPS == g -> sum = sum + JOINED(x, k) \
		:: else -> skip \
		fi \
	}

/* What this transaction sees of the inputs over a copy of committed rows: into now[]. */
#define SEE(from) \
	for (i : 0 .. CELLS - 1) { now[i] = from[i] + change[i] }

/* DISTINCT of the true rows, for the checks. */
#ifdef STATE
#define SEE_QUERY(from) SEE(from); for (k : 0 .. KEYS - 1) { now[k] = INPUT_OF_STATE(now[k]) }
#else
#define SEE_QUERY(from) SEE(from)
#endif

inline take_snapshot()
{
	d_step {
		for (i : 0 .. CELLS - 1) { seen_rows[i] = rows[i] }
		for (k : 0 .. KEYS - 1) { seen_state[k] = state[k] }
		for (g : 0 .. GROUPS - 1) { seen_total[g] = total[g] }
	}
}

inline later_snapshot()
{
#ifndef OLD_SNAPSHOT
	take_snapshot()
#else
	skip
#endif
}

/* The delta of the join's rows by key, from the rows and states of a snapshot: into result[].  (Spin passes no arrays, hence macros.) */
#ifdef STATE
#define SEE_STATE(from) for (k : 0 .. KEYS - 1) { now[k] = INPUT_OF_STATE((wrote_state[k] -> own_state[k] : from[k])) }
#else
#define SEE_STATE(from) skip
#endif
#define COMPUTE_DELTA(from_rows, from_state, result) \
	SEE(from_rows); \
	SEE_STATE(from_state); \
	for (i : 0 .. CELLS - 1) { was[i] = now[i] - delta[i] } \
	for (k : 0 .. KEYS - 1) { result[k] = JOINED(now, k) - JOINED(was, k) }

/* Is the pair's input changed at this value? */
inline is_changed(input, value, answer)
{
#ifdef CROSS
	answer = (delta[CELL(input, 0)] != 0 || delta[CELL(input, 1)] != 0)
#else
	answer = (delta[CELL(input, value)] != 0)
#endif
}

#ifdef MAY_ABORT
#define OR_ABORT :: goto rolled_back
#else
#define OR_ABORT
#endif

inline lock_table()
{
#ifndef NO_TABLE_LOCK
	if
	:: atomic { !coarse && OTHERS(table_coarse) == 0 -> table_fine = table_fine | (1 << me) }
	:: atomic { coarse && OTHERS(table_coarse | table_fine) == 0 -> table_coarse = table_coarse | (1 << me) }
	OR_ABORT
	fi
#else
	skip
#endif
}

/* Before any of them: decides whether to take some or all, and says so. */
#ifdef MANY
#ifndef NO_SOME_LOCK
#define SOME_LOCK(above) has_some[above] = has_some[above] | (1 << me)
#else
#define SOME_LOCK(above) skip
#endif
#define LOCK_ABOVE(above, is_needed) \
	if \
	:: coarse || !(is_needed) \
	:: !coarse && (is_needed) -> takes_all = false \
	:: !coarse && (is_needed) -> takes_all = true \
	fi; \
	if \
	:: coarse || !(is_needed) \
	:: atomic { !coarse && (is_needed) && !takes_all && OTHERS(has_all[above]) == 0 -> SOME_LOCK(above) } \
	:: atomic { !coarse && (is_needed) && takes_all && OTHERS(has_all[above] | has_some[above]) == 0 -> \
		has_all[above] = has_all[above] | (1 << me) } \
	OR_ABORT \
	fi; \
	takes_all = false
#define HAS_ALL(above) ((has_all[above] & (1 << me)) != 0)
#else
#define HAS_ALL(above) false
#endif

inline lock_pairs()
{
#ifdef MANY
	p = 0;
	do
	:: p < PAIRS ->
		d_step {
			touched = false;
			for (k : 0 .. KEYS - 1) { touched = touched || delta[CELL(FIRST(p), k)] != 0 || delta[CELL(SECOND(p), k)] != 0 }
		}
		LOCK_ABOVE(p, touched);
		p++
	:: else -> break
	od;
	touched = false;
#endif
	p = 0;
	do
	:: p < PAIRS * VALUES ->
		d_step {
			is_changed(FIRST(p / VALUES), p % VALUES, left);
			is_changed(SECOND(p / VALUES), p % VALUES, right)
		}
#ifdef ONE_PAIR_MODE
		d_step { left = left || right; right = false }
#endif
#ifdef MANY
		if
		:: HAS_ALL(p / VALUES) -> d_step { left = false; right = false }
		:: else
		fi;
#endif
		if
		:: !left && !right
		:: atomic { left && !right && OTHERS(pair_right[p]) == 0 -> pair_left[p] = pair_left[p] | (1 << me) }
		:: atomic { !left && right && OTHERS(pair_left[p]) == 0 -> pair_right[p] = pair_right[p] | (1 << me) }
		:: atomic { left && right && OTHERS(pair_left[p] | pair_right[p]) == 0 ->
			pair_left[p] = pair_left[p] | (1 << me); pair_right[p] = pair_right[p] | (1 << me) }
		OR_ABORT
		fi;
		p++
	:: else -> break
	od;
	p = 0;
	d_step { left = 0; right = 0 }
}

/* The lock of a key; a coarse run needs none. */
#ifndef NO_KEY_LOCK
#define LOCK_KEY(locks, key, above) \
	if \
	:: coarse || HAS_ALL(above) \
	:: atomic { !coarse && !HAS_ALL(above) && OTHERS(locks[key]) == 0 -> locks[key] = locks[key] | (1 << me) } \
	OR_ABORT \
	fi
#else
#define LOCK_KEY(locks, key, above) skip
#endif

/* The state below the join: counts of input 0 by key.  What the join sees of it replaces that input's delta. */
inline maintain_state()
{
#ifdef MANY
	d_step {
		touched = false;
		for (k : 0 .. KEYS - 1) { touched = touched || delta[k] != 0 }
	}
	LOCK_ABOVE(PAIRS, touched);
	touched = false;
#endif
	p = 0;
	do
	:: p < KEYS ->
		if
		:: delta[p] != 0 -> LOCK_KEY(key_of_state, p, PAIRS)
		:: else
		fi;
		p++
	:: else -> break
	od;
	p = 0;
	later_snapshot();
	d_step {
		for (k : 0 .. KEYS - 1) {
			if
			:: delta[k] != 0 ->
#ifdef REPEATABLE
#ifndef NO_COMPARISON
				fails = fails || (me == 0 && !wrote_state[k] && seen_state[k] != first_state[k]);
#endif
#endif
				sum = (wrote_state[k] -> own_state[k] : seen_state[k]);
				own_state[k] = sum + delta[k];
				wrote_state[k] = true;
				delta[k] = INPUT_OF_STATE(own_state[k]) - INPUT_OF_STATE(sum);
				sum = 0
			:: else
			fi
		}
	}
}

inline maintain_totals()
{
#ifdef MANY
	d_step {
		touched = false;
		for (k : 0 .. KEYS - 1) { touched = touched || joined[k] != 0 }
	}
	LOCK_ABOVE(PAIRS + 1, touched);
	touched = false;
#endif
	p = 0;
	do
	:: p < GROUPS ->
		d_step {
			left = 0;
			for (k : 0 .. KEYS - 1) { left = left || (k % GROUPS == p && joined[k] != 0) }
		}
		if
		:: left -> left = 0; LOCK_KEY(key_of_total, p, PAIRS + 1)
		:: else
		fi;
		p++
	:: else -> break
	od;
	p = 0;
#ifndef SAME_SNAPSHOT
	later_snapshot();
#endif
	d_step {
#ifdef ANEW
		SEE(seen_rows);
		SEE_STATE(seen_state);
#endif
		for (g : 0 .. GROUPS - 1) {
			touched = false;
			change_of_group = 0;
			for (k : 0 .. KEYS - 1) {
				touched = touched || (k % GROUPS == g && joined[k] != 0);
				change_of_group = change_of_group + (k % GROUPS == g -> joined[k] : 0)
			}
			if
			:: touched ->
#ifdef REPEATABLE
#ifndef NO_COMPARISON
				fails = fails || (me == 0 && !wrote[g] && seen_total[g] != first_total[g]);
#endif
#endif
#ifdef ANEW
				QUERY(now, g);
				own_total[g] = sum;
#else
				own_total[g] = (wrote[g] -> own_total[g] : seen_total[g]) + change_of_group;
#endif
				wrote[g] = true
			:: else
			fi
		}
		sum = 0; touched = false; change_of_group = 0;
		for (i : 0 .. CELLS - 1) { now[i] = 0; was[i] = 0 }
	}
}

/* Property 2. */
inline check_own_view()
{
	d_step {
#ifdef REPEATABLE
		for (i : 0 .. CELLS - 1) { was[i] = (me == 0 -> first_rows[i] : rows[i]) }
		SEE_QUERY(was);
#else
		SEE_QUERY(rows);
#endif
		for (g : 0 .. GROUPS - 1) {
			QUERY(now, g);
#ifdef REPEATABLE
			assert(sum == (wrote[g] -> own_total[g] : (me == 0 -> first_total[g] : total[g])))
#else
			assert(sum == (wrote[g] -> own_total[g] : total[g]))
#endif
		}
		sum = 0;
		for (i : 0 .. CELLS - 1) { now[i] = 0; was[i] = 0 }
	}
}

/* Rows of inputs come, or move from one join value to another, in one input or in two at once. */
inline write_something()
{
	atomic {
		if
		:: delta[CELL(0, 0)] = 1
		:: delta[CELL(1, 0)] = 1
#if INPUTS == 3
		:: delta[CELL(2, 0)] = 1
#endif
#if KEYS > 1
		:: delta[CELL(1, 1)] = 1
		:: delta[CELL(0, 0)] = -1; delta[CELL(0, 1)] = 1
#endif
		:: delta[CELL(0, 0)] = -1; delta[CELL(1, 0)] = 1
		fi;
		d_step { for (i : 0 .. CELLS - 1) { change[i] = change[i] + delta[i]; given[i] = delta[i] } }
	}
}

inline release_locks()
{
	d_step {
		table_fine = OTHERS(table_fine);
		table_coarse = OTHERS(table_coarse);
		for (i : 0 .. PAIRS * VALUES - 1) { pair_left[i] = OTHERS(pair_left[i]); pair_right[i] = OTHERS(pair_right[i]) }
		for (k : 0 .. KEYS - 1) { key_of_state[k] = OTHERS(key_of_state[k]) }
		for (g : 0 .. GROUPS - 1) { key_of_total[g] = OTHERS(key_of_total[g]) }
#ifdef MANY
		for (p : 0 .. PAIRS + 1) { has_some[p] = OTHERS(has_some[p]); has_all[p] = OTHERS(has_all[p]) }
		p = 0
#endif
	}
}

/* Property 1. */
inline become_visible()
{
	d_step {
		for (i : 0 .. CELLS - 1) { rows[i] = rows[i] + change[i]; change[i] = 0 }
		for (k : 0 .. KEYS - 1) { state[k] = (wrote_state[k] -> own_state[k] : state[k]) }
		for (g : 0 .. GROUPS - 1) { total[g] = (wrote[g] -> own_total[g] : total[g]) }
		SEE_QUERY(rows);
		for (g : 0 .. GROUPS - 1) {
			QUERY(now, g);
			assert(sum == total[g])
		}
		sum = 0
	}
}

#ifdef SAVEPOINTS
/* What a subtransaction has locked for the first time is not locked any more when it is rolled back. */
inline remember_locks()
{
	d_step {
		had_fine = table_fine; had_coarse = table_coarse;
#ifdef MANY
		for (p : 0 .. PAIRS + 1) { had_some[p] = has_some[p]; had_all[p] = has_all[p] }
		p = 0;
#endif
		for (i : 0 .. PAIRS * VALUES - 1) { had_left[i] = pair_left[i]; had_right[i] = pair_right[i] }
		for (k : 0 .. KEYS - 1) { had_key_of_state[k] = key_of_state[k]; old_own_state[k] = own_state[k]; old_wrote_state[k] = wrote_state[k] }
		for (g : 0 .. GROUPS - 1) { had_key_of_total[g] = key_of_total[g]; old_own_total[g] = own_total[g]; old_wrote[g] = wrote[g] }
	}
}

#define KEEP(now_held, was_held) (OTHERS(now_held) | (now_held & was_held & (1 << me)))
inline roll_back_statement()
{
	d_step {
		table_fine = KEEP(table_fine, had_fine); table_coarse = KEEP(table_coarse, had_coarse);
#ifdef MANY
		for (p : 0 .. PAIRS + 1) { has_some[p] = KEEP(has_some[p], had_some[p]); has_all[p] = KEEP(has_all[p], had_all[p]) }
		p = 0;
#endif
		for (i : 0 .. PAIRS * VALUES - 1) { pair_left[i] = KEEP(pair_left[i], had_left[i]); pair_right[i] = KEEP(pair_right[i], had_right[i]) }
		for (k : 0 .. KEYS - 1) { key_of_state[k] = KEEP(key_of_state[k], had_key_of_state[k]); own_state[k] = old_own_state[k]; wrote_state[k] = old_wrote_state[k] }
		for (g : 0 .. GROUPS - 1) { key_of_total[g] = KEEP(key_of_total[g], had_key_of_total[g]); own_total[g] = old_own_total[g]; wrote[g] = old_wrote[g] }
		for (i : 0 .. CELLS - 1) { change[i] = change[i] - given[i] }
	}
}
#endif

proctype Writer(byte me)
{
	/* of the transaction */
	short change[CELLS];
	short own_state[KEYS];
	bool wrote_state[KEYS];
	short own_total[GROUPS];
	bool wrote[GROUPS];
	bool coarse;
#ifdef REPEATABLE
	short first_rows[CELLS];
	short first_state[KEYS];
	short first_total[GROUPS];
	short joined_first[KEYS];
#endif
#ifdef SAVEPOINTS
	byte had_fine, had_coarse, had_left[PAIRS * VALUES], had_right[PAIRS * VALUES], had_key_of_state[KEYS], had_key_of_total[GROUPS];
	short old_own_state[KEYS], old_own_total[GROUPS];
	bool old_wrote_state[KEYS], old_wrote[GROUPS];
#ifdef MANY
	byte had_some[PAIRS + 2], had_all[PAIRS + 2];
#endif
#endif
	/* of the statement */
	short given[CELLS];
	short delta[CELLS];
	short seen_rows[CELLS];
	short seen_state[KEYS];
	short seen_total[GROUPS];
	short joined[KEYS];
	bool fails;
	/* of a moment */
	short now[CELLS];
	short was[CELLS];
	short sum, change_of_group;
	bool touched;
#ifdef MANY
	bool takes_all;
#endif
	byte i, k, g, p, left, right, statement;

#ifdef REPEATABLE
	d_step {
		for (i : 0 .. CELLS - 1) { first_rows[i] = (me == 0 -> rows[i] : 0) }
		for (k : 0 .. KEYS - 1) { first_state[k] = (me == 0 -> state[k] : 0) }
		for (g : 0 .. GROUPS - 1) { first_total[g] = (me == 0 -> total[g] : 0) }
	}
#endif
	do
	:: statement < STATEMENTS ->
		write_something();
#ifdef COARSE
		if
		:: coarse = true
		:: skip
		fi;
#endif
#ifdef OLD_SNAPSHOT
		take_snapshot();
#endif
#ifdef SAVEPOINTS
		remember_locks();
#endif
		lock_table();
#ifdef STATE
		maintain_state();
#endif
#ifndef NO_PAIR_LOCK
		if
		:: !coarse -> lock_pairs()
		:: else
		fi;
#endif
		later_snapshot();
		d_step {
			COMPUTE_DELTA(seen_rows, seen_state, joined);
#ifdef REPEATABLE
#ifndef NO_COMPARISON
			COMPUTE_DELTA(first_rows, first_state, joined_first);
			for (k : 0 .. KEYS - 1) { fails = fails || (me == 0 && joined[k] != joined_first[k]); joined_first[k] = 0 }
#endif
#endif
			for (i : 0 .. CELLS - 1) { now[i] = 0; was[i] = 0 }
		}
		maintain_totals();
		if
		:: fails -> goto rolled_back
		:: else
		fi;
		check_own_view();
#ifdef SAVEPOINTS
		if
		:: roll_back_statement(); check_own_view()
		:: skip
		fi;
#endif
		d_step {
			statement++;
			for (i : 0 .. CELLS - 1) { delta[i] = 0; seen_rows[i] = 0; given[i] = 0 }
			for (k : 0 .. KEYS - 1) { seen_state[k] = 0; joined[k] = 0 }
			for (g : 0 .. GROUPS - 1) { seen_total[g] = 0 }
		}
	:: else -> break
	od;
#ifdef EARLY_RELEASE
	release_locks();
#endif
	become_visible();
rolled_back:
	release_locks()
}

init
{
	byte i, k, g;
	short sum, now[CELLS];

	atomic {
		for (i : 0 .. CELLS - 1) { rows[i] = 1; now[i] = 1 }
		for (k : 0 .. KEYS - 1) { state[k] = 1 }
		for (g : 0 .. GROUPS - 1) {
			QUERY(now, g);
			total[g] = sum
		}
		sum = 0;
		for (i : 0 .. CELLS - 1) { now[i] = 0 }
		for (i : 0 .. WRITERS - 1) { run Writer(i) }
	}
}
