/*
 * applier/snapshot.c
 *     Snapshots in their text form, and the one question asked of them.
 */
#include "snapshot.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"

/* Reads a number and the character behind it, which must be `end`. */
static bool
take_number(const char **at, char end, Xid *number)
{
	char *behind;

	if (**at < '0' || **at > '9')
		return false;
	errno = 0;
	*number = strtoull(*at, &behind, 10);
	if (errno != 0 || *behind != end)
		return false;
	*at = end != '\0' ? behind + 1 : behind;
	return true;
}

static bool
take_xip(const char *at, Snapshot *snapshot, size_t count)
{
	for (size_t i = 0; i < count; i++)
	{
		Xid xid;

		if (!take_number(&at, i + 1 < count ? ',' : '\0', &xid))
			return false;
		if (xid < snapshot->xmin || xid >= snapshot->xmax)
			return false;
		if (i > 0 && xid <= snapshot->xip[i - 1])
			return false; /* snapshot_sees searches, so the order matters */
		snapshot->xip[snapshot->xip_count++] = xid;
	}
	return true;
}

bool
snapshot_parse(const char *text, Snapshot **snapshot, Error *error)
{
	const char *at = text;
	size_t		count = 0;
	Snapshot   *result;
	Xid			xmin;
	Xid			xmax;

	if (!take_number(&at, ':', &xmin) || !take_number(&at, ':', &xmax) || xmin == XID_NONE ||
		xmax < xmin)
		return error_set(error, FAIL_FATAL, "\"%.100s\" is not a snapshot", text);

	if (*at != '\0')
	{
		count = 1;
		for (const char *c = at; *c != '\0'; c++)
			count += *c == ',';
	}
	result = memory_take_zeroed(sizeof(Snapshot) + count * sizeof(Xid));
	result->references = 1;
	result->xmin = xmin;
	result->xmax = xmax;
	if (!take_xip(at, result, count))
	{
		free(result);
		return error_set(error, FAIL_FATAL, "\"%.100s\" is not a snapshot", text);
	}
	*snapshot = result;
	return true;
}

Snapshot *
snapshot_share(Snapshot *snapshot)
{
	if (snapshot != NULL)
		snapshot->references++;
	return snapshot;
}

void
snapshot_release(Snapshot *snapshot)
{
	if (snapshot == NULL)
		return;
	assert(snapshot->references > 0);
	if (--snapshot->references == 0)
		free(snapshot);
}

bool
snapshot_equals(const Snapshot *a, const Snapshot *b)
{
	if (a == b)
		return true;
	if (a == NULL || b == NULL)
		return false;
	return a->xmin == b->xmin && a->xmax == b->xmax && a->xip_count == b->xip_count &&
		   memcmp(a->xip, b->xip, a->xip_count * sizeof(Xid)) == 0;
}

bool
snapshot_sees(const Snapshot *snapshot, Xid xid)
{
	size_t low = 0;
	size_t high;

	if (snapshot == NULL || xid >= snapshot->xmax)
		return false;
	if (xid < snapshot->xmin)
		return true;
	high = snapshot->xip_count;
	while (low < high)
	{
		size_t middle = low + (high - low) / 2;

		if (snapshot->xip[middle] < xid)
			low = middle + 1;
		else
			high = middle;
	}
	return low == snapshot->xip_count || snapshot->xip[low] != xid;
}
