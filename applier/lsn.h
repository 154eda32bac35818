/*
 * applier/lsn.h
 *     Positions in the WAL.
 */
#ifndef PGTRICKLE_APPLIER_LSN_H
#define PGTRICKLE_APPLIER_LSN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef uint64_t Lsn;

#define LSN_NONE UINT64_C(0)
#define LSN_MAX UINT64_MAX

#define LSN_FORMAT "%X/%X"
#define LSN_FORMAT_ARGS(lsn) (uint32_t)((lsn) >> 32), (uint32_t) (lsn)

/* Room for the text of one position with its NUL. */
typedef struct LsnText
{
	char text[18];
} LsnText;

static inline LsnText
lsn_text(Lsn lsn)
{
	LsnText result;

	snprintf(result.text, sizeof(result.text), LSN_FORMAT, LSN_FORMAT_ARGS(lsn));
	return result;
}

/* Reads "16/B374D848"; false when it is not one. */
static inline bool
lsn_parse(const char *text, Lsn *lsn)
{
	unsigned int high;
	unsigned int low;
	int			 length = 0;

	if (sscanf(text, "%X/%X%n", &high, &low, &length) != 2 || text[length] != '\0')
		return false;
	*lsn = (Lsn) high << 32 | low;
	return true;
}

/*
 * The insert position may stand behind the header of a page on which nothing has been written yet,
 * while a reader's position stays at the page's start.  No record lies between the two, so the
 * start is as good, and the reader does reach it.  The first page of a segment has a longer header;
 * an offset of that size on another page is the end of a record.
 */
#define WAL_PAGE_BYTES 8192
#define WAL_SHORT_PAGE_HEADER_BYTES 24
#define WAL_LONG_PAGE_HEADER_BYTES 40

static inline Lsn
lsn_before_page_header(Lsn insert_lsn, uint64_t wal_segment_bytes)
{
	if (insert_lsn % wal_segment_bytes == WAL_LONG_PAGE_HEADER_BYTES)
		return insert_lsn - WAL_LONG_PAGE_HEADER_BYTES;
	if (insert_lsn % WAL_PAGE_BYTES == WAL_SHORT_PAGE_HEADER_BYTES)
		return insert_lsn - WAL_SHORT_PAGE_HEADER_BYTES;
	return insert_lsn;
}

/*
 * The other way round, for a reader's position that is compared with insert positions: no record lies in the header, so a reader at
 * the page's start has everything before the header's end.
 */
static inline Lsn
lsn_behind_page_header(Lsn read_lsn, uint64_t wal_segment_bytes)
{
	if (read_lsn % wal_segment_bytes == 0)
		return read_lsn + WAL_LONG_PAGE_HEADER_BYTES;
	if (read_lsn % WAL_PAGE_BYTES == 0)
		return read_lsn + WAL_SHORT_PAGE_HEADER_BYTES;
	return read_lsn;
}

static inline Lsn
lsn_min(Lsn a, Lsn b)
{
	return a < b ? a : b;
}

static inline Lsn
lsn_max(Lsn a, Lsn b)
{
	return a > b ? a : b;
}

#endif /* PGTRICKLE_APPLIER_LSN_H */
