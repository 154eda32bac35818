/*
 * applier/preconditions.h
 *     What the server must offer, looked at once: for setup, which stops at the first thing
 *     missing, and for doctor, which lists everything.
 */
#ifndef PGTRICKLE_APPLIER_PRECONDITIONS_H
#define PGTRICKLE_APPLIER_PRECONDITIONS_H

#include "error.h"
#include "memory.h"
#include "options.h"

typedef struct Preconditions
{
	PGresult   *result; /* the strings below point into it */
	int			version_number;
	const char *version;
	bool		is_in_recovery;
	const char *wal_level;
	int			max_replication_slots;
	int			used_replication_slots;
	int			max_wal_senders;
	int			used_wal_senders;
	const char *output_plugin_libraries; /* NULL: the server does not have the setting */
	bool		may_see_settings; /* else that is not known */
	const char *synchronous_standby_names;
	const char *max_slot_wal_keep_size;
	const char *idle_replication_slot_timeout; /* NULL: the server does not have it */
	bool		is_superuser;
	const char *available_version; /* of the extension; NULL: not installed on the machine */
	const char *installed_version; /* NULL: not in this database */
	bool		role_exists;
	bool		role_is_superuser;
	bool		role_can_login;
	bool		role_can_replicate;
	bool		role_reads_all_data;
	bool		role_can_connect;
	bool		slot_exists;
	const char *slot_plugin;
	const char *slot_database;
	bool		slot_is_active;
	const char *slot_wal_status; /* NULL: none */
	const char *database;
} Preconditions;

extern bool preconditions_load(PGconn *conn, const char *role, const char *slot,
							   Preconditions *preconditions, Error *error) MUST_CHECK;
extern void preconditions_free(Preconditions *preconditions);

/* Is a name one of a comma-separated list, as settings print it? */
extern bool list_contains(const char *list, const char *name);

/*
 * The statement that lets the server load our plugin: the present list with our name added.  Each
 * name is a constant of its own; quotes around the whole list would make it one name.
 */
extern void append_plugin_statement(Text *statement, PGconn *conn, const char *present);

#endif /* PGTRICKLE_APPLIER_PRECONDITIONS_H */
