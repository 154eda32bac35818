/*
 * delta/run_owner.h
 *     Acting as a stream table's owner, and stopping to.
 */
#ifndef PGTRICKLE_RUN_OWNER_H
#define PGTRICKLE_RUN_OWNER_H

#include "postgres.h"

#include "run.h"

typedef struct OwnerScope
{
	Oid			saved_user;
	int			saved_context;
	int			guc_nest_level;
	ErrorContextCallback error_context;
} OwnerScope;

/*
 * Switches to the owner's rights as REFRESH MATERIALIZED VIEW does: security-restricted (the owner's functions cannot change the session), with a search_path
 * that finds only pg_catalog, and with the settings pinned at creation.  Messages raised inside name the stream table.  An error ends the scope by
 * itself, through the end of the (sub)transaction.
 */
extern void owner_scope_enter(OwnerScope *scope, LoadedTable *table);
extern void owner_scope_leave(OwnerScope *scope);

#endif							/* PGTRICKLE_RUN_OWNER_H */
