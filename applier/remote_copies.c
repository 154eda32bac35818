/*
 * applier/remote_copies.c
 *     Which copies does a relation of a remote have?
 */
#include "remote.h"

#include <stdlib.h>

#include "memory.h"

static int
compare_copies(const void *a, const void *b)
{
	Oid left = (*(StreamTable *const *) a)->copy.remote_relid;
	Oid right = (*(StreamTable *const *) b)->copy.remote_relid;

	return left < right ? -1 : left > right;
}

void
remote_find_copies(Remote *remote, const Catalog *catalog)
{
	remote->copies = memory_resize(remote->copies, (catalog->count + 1) * sizeof(StreamTable *));
	remote->copy_count = 0;
	for (size_t i = 0; i < catalog->count; i++)
	{
		StreamTable *table = catalog->tables[i];

		if (stream_table_is_copy(table) && table->copy.remote_id == remote->remote_id)
			remote->copies[remote->copy_count++] = table;
	}
	if (remote->copy_count > 0)
		qsort(remote->copies, remote->copy_count, sizeof(StreamTable *), compare_copies);
}

StreamTable *const *
remote_copies_of(const Remote *remote, Oid relid, size_t *count)
{
	size_t low = 0;
	size_t high = remote->copy_count;

	while (low < high)
	{
		size_t middle = low + (high - low) / 2;

		if (remote->copies[middle]->copy.remote_relid < relid)
			low = middle + 1;
		else
			high = middle;
	}
	*count = 0;
	while (low + *count < remote->copy_count &&
		   remote->copies[low + *count]->copy.remote_relid == relid)
		(*count)++;
	return *count > 0 ? &remote->copies[low] : NULL;
}
