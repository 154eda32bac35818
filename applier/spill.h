/*
 * applier/spill.h
 *     Bytes that had to leave memory: append to temporary files, read back, give up.
 *
 * Files are made without a name (nothing is left behind by a kill -9), are cut into segments, and a
 * segment's disk space is returned when its last extent is released.
 */
#ifndef PGTRICKLE_APPLIER_SPILL_H
#define PGTRICKLE_APPLIER_SPILL_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

typedef struct Spill		Spill;
typedef struct SpillSegment SpillSegment;

/* A run of bytes on disk. */
typedef struct Extent
{
	SpillSegment *segment;
	uint64_t	  offset;
	uint64_t	  length;
} Extent;

/* Files go to `directory`; NULL: TMPDIR, or /tmp. */
extern Spill *spill_create(const char *directory);
extern void	  spill_free(Spill *spill);

/* Writes bytes; the extent must be released once. */
extern bool
spill_write(Spill *spill, const void *data, size_t length, Extent *extent, Error *error) MUST_CHECK;

/* Reads `length` bytes from `offset` within the extent. */
extern bool spill_read(Spill *spill, const Extent *extent, uint64_t offset, void *target,
					   size_t length, Error *error) MUST_CHECK;

/* Two extents become one if they touch: true, and *first covers both. */
extern bool spill_merge(Spill *spill, Extent *first, const Extent *second);

extern void spill_release(Spill *spill, const Extent *extent);

/* Bytes in extents that were not released. */
extern uint64_t spill_bytes(const Spill *spill);

#endif /* PGTRICKLE_APPLIER_SPILL_H */
