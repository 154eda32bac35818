/*
 * applier/copy_rate.c
 *     A limit to the bytes a second.
 *
 * Reading moves a moment into the future: the one at which so many bytes are due.  Whoever reads sleeps until then.  A pause saves up at most
 * BURST, so that the remote never sees a second of full speed after a slow target.
 */
#include "copy_rate.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BURST (MICROS_PER_SECOND / 10)

void
copy_rate_init(CopyRate *rate, uint64_t bytes_per_second)
{
	pthread_mutex_init(&rate->mutex, NULL);
	rate->bytes_per_second = bytes_per_second;
	rate->free_at = 0;
}

Micros
copy_rate_delay(CopyRate *rate, size_t bytes, Micros now)
{
	if (rate->bytes_per_second == 0)
		return 0;
	if (rate->free_at < now - BURST)
		rate->free_at = now - BURST;
	rate->free_at +=
		(Micros) ((double) bytes * (double) MICROS_PER_SECOND / (double) rate->bytes_per_second);
	return rate->free_at > now ? rate->free_at - now : 0;
}

void
copy_rate_wait(CopyRate *rate, size_t bytes)
{
	Micros delay;

	pthread_mutex_lock(&rate->mutex);
	delay = copy_rate_delay(rate, bytes, clock_now());
	pthread_mutex_unlock(&rate->mutex);
	if (delay > 0)
		usleep((useconds_t) delay);
}

bool
copy_rate_parse(const char *text, uint64_t *bytes_per_second)
{
	static const struct
	{
		const char *name;
		uint64_t	bytes;
	} units[] = {{"", 1}, {"kB", 1024}, {"MB", 1024 * 1024}, {"GB", 1024 * 1024 * 1024}};
	char	*end;
	uint64_t number;

	if (text[0] < '0' || text[0] > '9')
		return false;
	number = strtoull(text, &end, 10);
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
	{
		if (strcmp(end, units[i].name) != 0 || number > UINT64_MAX / 2 / units[i].bytes)
			continue;
		*bytes_per_second = number * units[i].bytes;
		return true;
	}
	return false;
}
