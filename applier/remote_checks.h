/*
 * applier/remote_checks.h
 *     What a remote must offer: looked at by set-up, which stops at a failure, and by doctor, which reports all.
 */
#ifndef PGTRICKLE_APPLIER_REMOTE_CHECKS_H
#define PGTRICKLE_APPLIER_REMOTE_CHECKS_H

#include "server.h"

typedef enum Verdict
{
	VERDICT_FINE,
	VERDICT_WARNING, /* it works, but can hurt */
	VERDICT_FAILURE
} Verdict;

/* One finding; `repair` says what to do, NULL when all is well. */
typedef void (*ReportFinding)(void *context, Verdict verdict, const char *finding,
							  const char *repair);

typedef struct RemoteChecks
{
	PGconn		 *remote; /* as the role of the applier */
	const char	 *dbname; /* its connection string */
	const char	 *name;
	const char	 *slot;
	const char	 *publication; /* when pgoutput is read, else NULL */
	const char	 *target_encoding;
	ReportFinding report;
	void		 *context;
} RemoteChecks;

/* The server, the role, the slot.  False only when they could not be looked at. */
extern bool remote_checks_server(const RemoteChecks *checks, Error *error) MUST_CHECK;

/* One table: can it be copied, does the stream have what its copy needs? */
extern void remote_checks_table(const RemoteChecks *checks, const char *schema, const char *name,
								const char *columns_wanted);

#endif /* PGTRICKLE_APPLIER_REMOTE_CHECKS_H */
