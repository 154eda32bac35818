/*
 * applier/test/testing.h
 *     The least that a unit test needs: a check that says what was wrong and goes on.
 */
#ifndef PGTRICKLE_APPLIER_TESTING_H
#define PGTRICKLE_APPLIER_TESTING_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int testing_checks;
static int testing_failures;

#define CHECK(condition) testing_check((condition), #condition, __FILE__, __LINE__)

static inline void
testing_check(bool condition, const char *text, const char *file, int line)
{
	testing_checks++;
	if (condition)
		return;
	testing_failures++;
	fprintf(stderr, "%s:%d: not true: %s\n", file, line, text);
}

/* The same numbers everywhere, unlike rand(). */
static inline uint32_t
testing_random(void)
{
	static uint32_t state = 2463534242u;

	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state;
}

/* The last statement of main. */
static inline int
testing_done(const char *name)
{
	printf("%s %s: %d checks\n", testing_failures == 0 ? "ok    " : "FAILED", name, testing_checks);
	return testing_failures == 0 ? 0 : 1;
}

#endif /* PGTRICKLE_APPLIER_TESTING_H */
