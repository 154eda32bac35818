/*
 * applier/copy_rate.h
 *     A limit to the bytes a second that all jobs together read from the remotes.
 */
#ifndef PGTRICKLE_APPLIER_COPY_RATE_H
#define PGTRICKLE_APPLIER_COPY_RATE_H

#include <pthread.h>

#include "log.h"

typedef struct CopyRate
{
	pthread_mutex_t mutex;
	uint64_t		bytes_per_second; /* 0: no limit */
	Micros			free_at; /* when what has been read so far may have been read */
} CopyRate;

extern void copy_rate_init(CopyRate *rate, uint64_t bytes_per_second);

/* Accounts for bytes that were read, and sleeps as long as they were too early. */
extern void copy_rate_wait(CopyRate *rate, size_t bytes);

/* "20MB", "512kB", "1GB", or bytes; false when it is none of these. */
extern bool copy_rate_parse(const char *text, uint64_t *bytes_per_second) MUST_CHECK;

/* For the unit test: how long to sleep when `bytes` have been read at `now`. */
extern Micros copy_rate_delay(CopyRate *rate, size_t bytes, Micros now);

#endif /* PGTRICKLE_APPLIER_COPY_RATE_H */
