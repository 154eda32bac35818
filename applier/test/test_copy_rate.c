/*
 * applier/test/test_copy_rate.c
 *     The limit to bytes a second: how long a reader has to wait, what a pause saves up, how sizes are written.
 */
#include "copy_rate.h"

#include "testing.h"

static uint64_t
parse(const char *text)
{
	uint64_t bytes = 0;

	return copy_rate_parse(text, &bytes) ? bytes : UINT64_MAX;
}

static void
test_sizes(void)
{
	CHECK(parse("20MB") == UINT64_C(20) * 1024 * 1024);
	CHECK(parse("512kB") == UINT64_C(512) * 1024);
	CHECK(parse("1GB") == UINT64_C(1024) * 1024 * 1024);
	CHECK(parse("7") == 7);
	CHECK(parse("0") == 0);
	CHECK(parse("") == UINT64_MAX);
	CHECK(parse("MB") == UINT64_MAX);
	CHECK(parse("-1") == UINT64_MAX);
	CHECK(parse("5 MB") == UINT64_MAX);
	CHECK(parse("5mb") == UINT64_MAX);
	CHECK(parse("18446744073709551615GB") == UINT64_MAX);
}

static void
test_delays(void)
{
	CopyRate rate;
	Micros	 now = 10 * MICROS_PER_SECOND;

	copy_rate_init(&rate, 1000);
	CHECK(copy_rate_delay(&rate, 100, now) == 0); /* a pause has saved up a tenth of a second */
	CHECK(copy_rate_delay(&rate, 500, now) == MICROS_PER_SECOND / 2);
	CHECK(copy_rate_delay(&rate, 500, now) == MICROS_PER_SECOND);
	now += MICROS_PER_SECOND;
	CHECK(copy_rate_delay(&rate, 250, now) == MICROS_PER_SECOND / 4);
	now += 3600 * MICROS_PER_SECOND;
	CHECK(copy_rate_delay(&rate, 1100, now) == MICROS_PER_SECOND); /* and no more than that */

	copy_rate_init(&rate, 0);
	CHECK(copy_rate_delay(&rate, 1000 * 1000, now) == 0);
}

int
main(void)
{
	test_sizes();
	test_delays();
	return testing_done("copy_rate");
}
