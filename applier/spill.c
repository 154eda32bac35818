/*
 * applier/spill.c
 *     Bytes that had to leave memory.
 *
 * Small writes (many small transactions that wait for a slow schedule) are collected in one write
 * buffer; what is still in it is written out before anything of it is read back.
 */
#include "spill.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory.h"

#define SEGMENT_BYTES_MAX (UINT64_C(256) * 1024 * 1024)
#define WRITE_BUFFER_BYTES (UINT64_C(256) * 1024)

struct SpillSegment
{
	int		 fd;
	uint64_t length; /* including what is still in the write buffer */
	size_t	 extents; /* not released yet */
};

struct Spill
{
	char		 *directory;
	SpillSegment *current; /* NULL before the first write; not counted in its extents */
	uint8_t		 *buffer;
	size_t		  buffered; /* the last bytes of `current` */
	uint64_t	  bytes;
};

Spill *
spill_create(const char *directory)
{
	Spill *spill = memory_take_zeroed(sizeof(Spill));

	if (directory == NULL)
		directory = getenv("TMPDIR");
	if (directory == NULL || directory[0] == '\0')
		directory = "/tmp";
	spill->directory = memory_copy_text(directory);
	return spill;
}

static void
segment_free(SpillSegment *segment)
{
	close(segment->fd);
	free(segment);
}

void
spill_free(Spill *spill)
{
	if (spill->current != NULL)
		segment_free(spill->current);
	free(spill->buffer);
	free(spill->directory);
	free(spill);
}

/*
 * A file without a name, or one whose name is removed at once where the file system has no such
 * thing.
 */
static int
open_nameless_file(const char *directory)
{
	char path[4096];
	int	 fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0)
		return fd;
	snprintf(path, sizeof(path), "%s/pgtrickle_spill_XXXXXX", directory);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return fd;
}

static bool
start_segment(Spill *spill, Error *error)
{
	int fd = open_nameless_file(spill->directory);

	if (fd < 0)
	{
		error_set(error, FAIL_RETRY, "could not create temporary file in \"%s\": %s",
				  spill->directory, strerror(errno));
		error_hint(error, "Name another directory with --spill-dir.");
		return false;
	}
	if (spill->buffer == NULL)
		spill->buffer = memory_take(WRITE_BUFFER_BYTES);
	spill->current = memory_take_zeroed(sizeof(SpillSegment));
	spill->current->fd = fd;
	return true;
}

static bool
write_all(Spill *spill, const uint8_t *data, size_t length, uint64_t offset, Error *error)
{
	while (length > 0)
	{
		ssize_t written = pwrite(spill->current->fd, data, length, (off_t) offset);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
		{
			error_set(error, FAIL_RETRY, "could not write to temporary file in \"%s\": %s",
					  spill->directory, strerror(errno));
			error_hint(error, "Free space there, or name another directory with --spill-dir.");
			return false;
		}
		data += written;
		length -= (size_t) written;
		offset += (uint64_t) written;
	}
	return true;
}

static bool
flush_buffer(Spill *spill, Error *error)
{
	if (spill->buffered > 0 && !write_all(spill, spill->buffer, spill->buffered,
										  spill->current->length - spill->buffered, error))
		return false;
	spill->buffered = 0;
	return true;
}

/* The current segment has become large: it lives on through its extents. */
static bool
finish_segment(Spill *spill, Error *error)
{
	if (!flush_buffer(spill, error))
		return false;
	if (spill->current->extents == 0)
		segment_free(spill->current);
	spill->current = NULL;
	return true;
}

bool
spill_write(Spill *spill, const void *data, size_t length, Extent *extent, Error *error)
{
	if (spill->current != NULL && spill->current->length >= SEGMENT_BYTES_MAX &&
		!finish_segment(spill, error))
		return false;
	if (spill->current == NULL && !start_segment(spill, error))
		return false;

	if (spill->buffered + length > WRITE_BUFFER_BYTES && !flush_buffer(spill, error))
		return false;
	if (length > WRITE_BUFFER_BYTES)
	{
		if (!write_all(spill, data, length, spill->current->length, error))
			return false;
	}
	else
	{
		memcpy(spill->buffer + spill->buffered, data, length);
		spill->buffered += length;
	}

	extent->segment = spill->current;
	extent->offset = spill->current->length;
	extent->length = length;
	spill->current->length += length;
	spill->current->extents++;
	spill->bytes += length;
	return true;
}

bool
spill_merge(Spill *spill, Extent *first, const Extent *second)
{
	if (first->segment != second->segment || first->offset + first->length != second->offset)
		return false;
	first->length += second->length;
	assert(first->segment->extents > 1);
	first->segment->extents--;
	return true;
}

bool
spill_read(Spill *spill, const Extent *extent, uint64_t offset, void *target, size_t length,
		   Error *error)
{
	uint8_t *at = target;
	uint64_t position = extent->offset + offset;

	assert(offset + length <= extent->length);
	if (extent->segment == spill->current && !flush_buffer(spill, error))
		return false;
	while (length > 0)
	{
		ssize_t got = pread(extent->segment->fd, at, length, (off_t) position);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return error_set(error, FAIL_RETRY, "could not read temporary file in \"%s\": %s",
							 spill->directory, got < 0 ? strerror(errno) : "unexpected end");
		at += got;
		length -= (size_t) got;
		position += (uint64_t) got;
	}
	return true;
}

void
spill_release(Spill *spill, const Extent *extent)
{
	assert(extent->segment->extents > 0);
	spill->bytes -= extent->length;
	if (--extent->segment->extents > 0)
		return;
	if (extent->segment != spill->current)
	{
		segment_free(extent->segment);
		return;
	}

	/* Nothing in the current segment is wanted any more: start it again from its beginning. */
	spill->buffered = 0;
	spill->current->length = 0;
	if (ftruncate(spill->current->fd, 0) != 0)
		return; /* then it is overwritten */
}

uint64_t
spill_bytes(const Spill *spill)
{
	return spill->bytes;
}
