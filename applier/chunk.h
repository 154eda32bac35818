/*
 * applier/chunk.h
 *     The bytes of one relation's records in one transaction, laid end to end: in memory, or some of them on disk.
 *
 * Whoever has the chunk counts the memory of all its chunks in *memory_bytes, and has the files.
 */
#ifndef PGTRICKLE_APPLIER_CHUNK_H
#define PGTRICKLE_APPLIER_CHUNK_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "spill.h"

/* In place of a relation number: Truncate records, which name several relations. */
#define CHUNK_TRUNCATES 0

typedef struct Block Block;

/* First what is on disk, then blocks. */
typedef struct Chunk
{
	uint32_t relation; /* Relation.number, or CHUNK_TRUNCATES */
	uint64_t length;
	Extent	*extents;
	size_t	 extent_count;
	size_t	 extent_capacity;
	uint64_t extent_bytes;
	Block	*first;
	Block	*last;
} Chunk;

extern void chunk_append(uint64_t *memory_bytes, Chunk *chunk, const void *data, size_t length);

/* Writes all blocks to disk. */
extern bool chunk_spill(Spill *spill, uint64_t *memory_bytes, Chunk *chunk, Error *error) MUST_CHECK;

/* Reads up to `length` bytes from `offset` of a chunk; returns how many were read through *got. */
extern bool chunk_read(Spill *spill, const Chunk *chunk, uint64_t offset, void *target,
					   size_t length, size_t *got, Error *error) MUST_CHECK;

/* Everything but the struct itself. */
extern void chunk_release(Spill *spill, uint64_t *memory_bytes, Chunk *chunk);

#endif /* PGTRICKLE_APPLIER_CHUNK_H */
