/*
 * applier/options.h
 *     What the command line said.
 */
#ifndef PGTRICKLE_APPLIER_OPTIONS_H
#define PGTRICKLE_APPLIER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "log.h"

/* Options that may be given several times. */
#define NAMES_MAX 256

#define PGTRICKLE_VERSION "0.1"
#define PGTRICKLE_ROLE_DEFAULT "pgtrickle_applier"
#define PGTRICKLE_PLUGIN "pgtrickle_decoder"

typedef struct Options
{
	const char *dbname; /* connection string, or NULL */
	const char *slot; /* NULL: made from the database's name */

	/* run */
	uint64_t	buffer_bytes_max;
	uint64_t	spill_bytes_max; /* 0: no limit */
	const char *spill_directory;
	Micros		heartbeat_interval;
	Micros spool_after; /* changes that wait longer are kept in the database and not in the WAL */
	int	   lock_timeout_ms;
	Micros remote_timeout; /* a remote that is silent for longer is gone */

	/* copy */
	const char *remote; /* NULL: all of them */
	int			jobs; /* 0, and so below: what the remote's options say */
	uint64_t	rate_bytes_max; /* per second */
	uint64_t	chunk_rows;

	/* setup, drop */
	const char *role;
	bool		fix;
	bool		drop_extension;
	bool		keep_role;

	/* setup, drop, of a remote */
	const char *source; /* connection string of the remote; NULL: no remote */
	const char *name; /* of the remote; NULL: the database's */
	const char *publication; /* pgoutput and this publication in the place of our plugin */
	const char *schemas[NAMES_MAX + 1];
	const char *tables[NAMES_MAX + 1];
} Options;

#endif /* PGTRICKLE_APPLIER_OPTIONS_H */
