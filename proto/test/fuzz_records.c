/*
 * proto/test/fuzz_records.c
 *     libFuzzer's entrance to the reader.  `make fuzz` runs it, starting from the sample's records.
 */
#include "walk.h"

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
	uint32_t column_count = length > 0 ? data[length - 1] % 8 : 0;

	walk_batch(data, length, column_count);
	return 0;
}
