/*
 * applier/chunk.c
 *     The bytes of one relation's records in one transaction.
 *
 * Blocks grow with their chunk, so a one-row transaction costs what its row costs and a large one is not copied again and again.
 */
#include "chunk.h"

#include <assert.h>

#include "memory.h"

#define BLOCK_BYTES_MAX (UINT64_C(1024) * 1024)

struct Block
{
	Block  *next;
	size_t	length;
	size_t	capacity;
	uint8_t data[];
};

static void
free_blocks(uint64_t *memory_bytes, Chunk *chunk)
{
	while (chunk->first != NULL)
	{
		Block *block = chunk->first;

		chunk->first = block->next;
		*memory_bytes -= sizeof(Block) + block->capacity;
		free(block);
	}
	chunk->last = NULL;
}

void
chunk_release(Spill *spill, uint64_t *memory_bytes, Chunk *chunk)
{
	free_blocks(memory_bytes, chunk);
	for (size_t i = 0; i < chunk->extent_count; i++)
		spill_release(spill, &chunk->extents[i]);
	*memory_bytes -= chunk->extent_capacity * sizeof(Extent);
	free(chunk->extents);
}

static Block *
add_block(uint64_t *memory_bytes, Chunk *chunk, size_t length)
{
	uint64_t in_memory = chunk->length - chunk->extent_bytes;
	size_t	 capacity = (size_t) (in_memory < BLOCK_BYTES_MAX ? in_memory : BLOCK_BYTES_MAX);
	Block	*block;

	if (capacity < length)
		capacity = length;
	block = memory_take(sizeof(Block) + capacity);
	block->next = NULL;
	block->length = 0;
	block->capacity = capacity;
	*memory_bytes += sizeof(Block) + capacity;
	if (chunk->last != NULL)
		chunk->last->next = block;
	else
		chunk->first = block;
	chunk->last = block;
	return block;
}

void
chunk_append(uint64_t *memory_bytes, Chunk *chunk, const void *data, size_t length)
{
	Block *block = chunk->last;
	size_t fits = block != NULL ? block->capacity - block->length : 0;

	if (fits > length)
		fits = length;
	if (fits > 0)
	{
		memcpy(block->data + block->length, data, fits);
		block->length += fits;
		chunk->length += fits;
	}
	if (fits < length)
	{
		block = add_block(memory_bytes, chunk, length - fits);
		memcpy(block->data, (const uint8_t *) data + fits, length - fits);
		block->length = length - fits;
		chunk->length += length - fits;
	}
}

bool
chunk_spill(Spill *spill, uint64_t *memory_bytes, Chunk *chunk, Error *error)
{
	for (Block *block = chunk->first; block != NULL; block = block->next)
	{
		Extent extent;
		size_t capacity_before = chunk->extent_capacity;

		if (!spill_write(spill, block->data, block->length, &extent, error))
			return false;
		chunk->extent_bytes += block->length;
		/* The block is on disk now: should a later one fail, reading must not see it twice. */
		block->length = 0;
		if (chunk->extent_count > 0 &&
			spill_merge(spill, &chunk->extents[chunk->extent_count - 1], &extent))
			continue;
		chunk->extents = memory_grow_array(chunk->extents, chunk->extent_count,
										   &chunk->extent_capacity, sizeof(Extent));
		*memory_bytes += (chunk->extent_capacity - capacity_before) * sizeof(Extent);
		chunk->extents[chunk->extent_count++] = extent;
	}
	free_blocks(memory_bytes, chunk);
	return true;
}

/* Reads from what is on disk, starting at `offset` of the chunk; stops at the end of that part. */
static bool
read_extents(Spill *spill, const Chunk *chunk, uint64_t offset, uint8_t *target,
				   size_t length, size_t *got, Error *error)
{
	for (size_t i = 0; i < chunk->extent_count && *got < length; i++)
	{
		const Extent *extent = &chunk->extents[i];
		size_t		  part;

		if (offset >= extent->length)
		{
			offset -= extent->length;
			continue;
		}
		part = length - *got;
		if (part > extent->length - offset)
			part = (size_t) (extent->length - offset);
		if (!spill_read(spill, extent, offset, target + *got, part, error))
			return false;
		*got += part;
		offset = 0;
	}
	return true;
}

static void
read_blocks(const Chunk *chunk, uint64_t offset, uint8_t *target, size_t length, size_t *got)
{
	for (const Block *block = chunk->first; block != NULL && *got < length; block = block->next)
	{
		size_t part;

		if (offset >= block->length)
		{
			offset -= block->length;
			continue;
		}
		part = length - *got;
		if (part > block->length - offset)
			part = (size_t) (block->length - offset);
		memcpy(target + *got, block->data + offset, part);
		*got += part;
		offset = 0;
	}
}

bool
chunk_read(Spill *spill, const Chunk *chunk, uint64_t offset, void *target, size_t length,
		   size_t *got, Error *error)
{
	*got = 0;
	if (offset < chunk->extent_bytes &&
		!read_extents(spill, chunk, offset, target, length, got, error))
		return false;
	if (*got < length)
	{
		uint64_t behind = offset + *got;

		assert(behind >= chunk->extent_bytes);
		read_blocks(chunk, behind - chunk->extent_bytes, target, length, got);
	}
	return true;
}
