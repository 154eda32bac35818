/*
 * delta/create.h
 *     The parts of creating a stream table that changing its query needs as well (redefine.c).
 */
#ifndef PGTRICKLE_CREATE_H
#define PGTRICKLE_CREATE_H

#include "postgres.h"

#include "program.h"
#include "utils/snapshot.h"

typedef struct CreateRequest
{
	char	   *schema_name;
	char	   *relation_name;
	char	   *qualified_name;
	const char *shown_name;		/* in messages */
	char	   *query;
	char	   *schedule;
	char	   *refresh_mode;
	bool		initialize;
	bool		rows_only;		/* somebody takes its rows and drops it: no index, no guard, no statistics */
	Datum		options;		/* jsonb, or 0 */
	/* what creating it has found out */
	DeltaProgram *program;
	const char *effective_mode;
	Oid			relid;
	int64		pgt_id;
	Snapshot	filled;			/* registered; what the first fill of an IMMEDIATE one saw */
} CreateRequest;

/* Everything that follows the checks of the name; needs an SPI connection.  Fills in the rest of the request. */
extern void create_stream_table(CreateRequest *request);

/*
 * Makes the index by which refreshes find rows, on request->relid, and writes it into the definition request->pgt_id.  Its name is
 * pgt_key_<pgt_id>.
 */
extern void create_key_index(CreateRequest *request);

/* The trigger that refuses foreign writes, on request->qualified_name. */
extern void create_guard(CreateRequest *request);

#endif							/* PGTRICKLE_CREATE_H */
