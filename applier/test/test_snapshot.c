/*
 * applier/test/test_snapshot.c
 *     Snapshots: what parses, and what they see.  Positions in the WAL.
 */
#include "snapshot.h"
#include "testing.h"

static bool
parses(const char *text)
{
	Snapshot *snapshot = NULL;
	Error	  error;
	bool	  good = snapshot_parse(text, &snapshot, &error);

	snapshot_release(snapshot);
	return good;
}

static void
test_parsing(void)
{
	CHECK(parses("10:10:"));
	CHECK(parses("10:20:10,14,19"));
	CHECK(parses("18446744073709551614:18446744073709551615:18446744073709551614"));
	CHECK(!parses(""));
	CHECK(!parses("10"));
	CHECK(!parses("10:20"));
	CHECK(!parses("0:0:"));
	CHECK(!parses("20:10:"));
	CHECK(!parses("10:20:9"));
	CHECK(!parses("10:20:20"));
	CHECK(!parses("10:20:14,10"));
	CHECK(!parses("10:20:14,14"));
	CHECK(!parses("10:20:14,"));
	CHECK(!parses("10:20:,14"));
	CHECK(!parses("10:20:14 "));
	CHECK(!parses("-1:20:"));
	CHECK(!parses("10:99999999999999999999:"));
}

static void
test_seeing(void)
{
	Snapshot *snapshot;
	Error	  error;

	CHECK(snapshot_parse("4294967300:4294967310:4294967300,4294967304", &snapshot, &error));
	CHECK(snapshot_sees(snapshot, 3));
	CHECK(snapshot_sees(snapshot, 4294967299));
	CHECK(!snapshot_sees(snapshot, 4294967300));
	CHECK(snapshot_sees(snapshot, 4294967301));
	CHECK(!snapshot_sees(snapshot, 4294967304));
	CHECK(snapshot_sees(snapshot, 4294967309));
	CHECK(!snapshot_sees(snapshot, 4294967310));
	CHECK(!snapshot_sees(snapshot, UINT64_MAX));
	/* The same number in another epoch is another transaction. */
	CHECK(snapshot_sees(snapshot, 4294967304 - 4294967296));
	CHECK(!snapshot_sees(NULL, 3));
	snapshot_release(snapshot);
}

static void
test_equality(void)
{
	Snapshot *a;
	Snapshot *b;
	Snapshot *c;
	Error	  error;

	CHECK(snapshot_parse("10:20:11", &a, &error));
	CHECK(snapshot_parse("10:20:11", &b, &error));
	CHECK(snapshot_parse("10:20:12", &c, &error));
	CHECK(snapshot_equals(a, b));
	CHECK(!snapshot_equals(a, c));
	CHECK(!snapshot_equals(a, NULL));
	CHECK(snapshot_equals(NULL, NULL));
	snapshot_release(snapshot_share(a));
	snapshot_release(a);
	snapshot_release(b);
	snapshot_release(c);
}

static void
test_lsn(void)
{
	Lsn		 lsn;
	uint64_t segment = 16 * 1024 * 1024;

	CHECK(lsn_parse("16/B374D848", &lsn) && lsn == UINT64_C(0x16B374D848));
	CHECK(!lsn_parse("16", &lsn));
	CHECK(!lsn_parse("16/0 ", &lsn));
	CHECK(strcmp(lsn_text(UINT64_C(0x16B374D848)).text, "16/B374D848") == 0);

	/* Behind an empty page's header is as good as before it; elsewhere a position is what it is. */
	CHECK(lsn_before_page_header(3 * 8192 + 24, segment) == 3 * 8192);
	CHECK(lsn_before_page_header(5 * segment + 40, segment) == 5 * segment);
	CHECK(lsn_before_page_header(5 * segment + 8192 + 40, segment) == 5 * segment + 8192 + 40);
	CHECK(lsn_before_page_header(5 * segment + 48, segment) == 5 * segment + 48);
}

int
main(void)
{
	test_parsing();
	test_seeing();
	test_equality();
	test_lsn();
	return testing_done("snapshot");
}
