/*
 * proto/test/test_mutations.c
 *     Damages the sample batch in many ways, always the same ones, and reads what is left.
 *
 * What a fuzzer does, without needing one: it runs with every `make check`.  Each damaged batch
 * lies in memory of exactly its size, so that the address sanitizer sees a single byte read too
 * many.
 */
#include "sample.h"
#include "walk.h"

#include <stdio.h>

#define ROUNDS 100000
#define DAMAGES_MAX 4

/* Xorshift: the same numbers everywhere, unlike rand(). */
static uint32_t
next_random(void)
{
	static uint32_t state = 2463534242u;

	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state;
}

static size_t
random_below(size_t limit)
{
	return limit == 0 ? 0 : next_random() % limit;
}

/* Damages a batch once; returns its new length, which is at most `capacity`. */
static size_t
damage(uint8_t *data, size_t length, size_t capacity)
{
	static const uint8_t nasty[] = {0x00, 0x01, 0x7f, 0x80, 0xff, 0x0a, 0x12, 0x3a};
	size_t				 at = random_below(length);
	size_t				 count = random_below(length - at);

	switch (next_random() % 6)
	{
		case 0: /* one bit */
			if (length > 0)
				data[at] ^= (uint8_t) (1 << next_random() % 8);
			return length;
		case 1: /* one byte that means something */
			if (length > 0)
				data[at] = nasty[random_below(sizeof(nasty))];
			return length;
		case 2: /* cut off */
			return at;
		case 3: /* a piece is missing */
			memmove(data + at, data + at + count, length - at - count);
			return length - count;
		case 4: /* a piece comes twice */
			count = count > capacity - length ? capacity - length : count;
			memmove(data + at + count, data + at, length - at);
			return length + count;
		default: /* a piece stands elsewhere */
			memmove(data + random_below(length - count), data + at, count);
			return length;
	}
}

int
main(void)
{
	WireBuffer sample = sample_buffer();
	size_t	   readable = 0;
	size_t	   capacity;
	uint8_t	  *scratch;

	sample_write(&sample);
	capacity = 2 * sample.length;
	scratch = malloc(capacity);
	for (int round = 0; round < ROUNDS; round++)
	{
		size_t	 length = sample.length;
		uint8_t *exact;

		memcpy(scratch, sample.data, sample.length);
		for (size_t n = 1 + random_below(DAMAGES_MAX); n > 0; n--)
			length = damage(scratch, length, capacity);
		exact = malloc(length);
		memcpy(exact, scratch, length);
		if (walk_batch(exact, length, SAMPLE_COLUMNS).error == NULL)
			readable++;
		free(exact);
	}
	printf("test_mutations: %d damaged batches read, %zu without complaint\n", ROUNDS, readable);
	free(scratch);
	free(sample.data);
	return 0;
}
