/*
 * applier/test/test_timeline.c
 *     Histories of timelines as servers write them, and as they should not be.
 */
#include "timeline.h"

#include "testing.h"

static Lsn
end_of(const char *history, int timeline)
{
	Lsn end_lsn = LSN_NONE;

	return timeline_end(history, timeline, &end_lsn) ? end_lsn : LSN_NONE;
}

int
main(void)
{
	static const char history[] = "1\t0/3000148\tno recovery target specified\n"
								  "\n"
								  "# 2\t0/1\ta comment\n"
								  "2\tA/30001F0\tbefore 2024-01-01 00:00:00+00\r\n"
								  "12 1/2 # only blanks\n"
								  "13\tFFFFFFFF/FFFFFFFF\tno line feed";
	Lsn				  none = LSN_NONE;

	CHECK(end_of(history, 1) == UINT64_C(0x3000148));
	CHECK(end_of(history, 2) == UINT64_C(0xA030001F0));
	CHECK(end_of(history, 12) == UINT64_C(0x100000002));
	CHECK(end_of(history, 13) == UINT64_MAX);
	CHECK(!timeline_end(history, 3, &none));
	CHECK(!timeline_end("", 1, &none));
	CHECK(!timeline_end("\n\n#", 1, &none));
	CHECK(!timeline_end("1", 1, &none));
	CHECK(!timeline_end("1\tnowhere\treason\n", 1, &none));
	CHECK(!timeline_end("x\t0/1\t1\n", 1, &none));
	CHECK(none == LSN_NONE);
	return testing_done("timeline");
}
