/*
 * applier/timeline.c
 *     What a server's history of timelines says about a position that was reached on an earlier one.
 *
 * The file has a line for each timeline before: its number, the position where it was left, and a
 * reason in words, separated by tabs or blanks.  Anything after a # is a comment.
 */
#include "timeline.h"

#include <stdlib.h>
#include <string.h>

/* Reads one line; false when it says nothing about `timeline`. */
static bool
line_tells(const char *line, size_t length, int timeline, Lsn *end_lsn)
{
	char  copy[64] = "";
	char *lsn;
	long  number;

	memcpy(copy, line, length < sizeof(copy) - 1 ? length : sizeof(copy) - 1);
	copy[strcspn(copy, "#")] = '\0';
	number = strtol(copy, &lsn, 10);
	if (lsn == copy || number != timeline)
		return false;
	lsn += strspn(lsn, " \t");
	lsn[strcspn(lsn, " \t\r")] = '\0';
	return lsn_parse(lsn, end_lsn);
}

bool
timeline_end(const char *history, int timeline, Lsn *end_lsn)
{
	while (*history != '\0')
	{
		size_t length = strcspn(history, "\n");

		if (line_tells(history, length, timeline, end_lsn))
			return true;
		history += length;
		history += *history == '\n';
	}
	return false;
}
