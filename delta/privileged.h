/*
 * delta/privileged.h
 *     Short sections of SQL that run as the extension's owner, to read and write the catalog of stream tables.
 *
 * Users have no rights on the catalog tables.  A function in C checks what its caller may do, with the caller's own
 * rights and search_path, and enters a section only for fixed statements of ours.
 *
 *     PrivilegedSection section;
 *
 *     privileged_begin(&section);
 *     SPI_execute...
 *     privileged_end(&section);
 *
 * After an error nothing is to be done: ending the (sub)transaction puts the user, the settings and SPI back.
 */
#ifndef PGTRICKLE_PRIVILEGED_H
#define PGTRICKLE_PRIVILEGED_H

#include "postgres.h"

typedef struct PrivilegedSection
{
	Oid caller_id;
	int caller_sec_context;
	int settings_level;
} PrivilegedSection;

/* Connects SPI, with search_path = pg_catalog, pg_temp. */
extern void privileged_begin(PrivilegedSection *section);
extern void privileged_end(PrivilegedSection *section);

/* The role that owns the extension. */
extern Oid extension_owner_id(void);

#endif /* PGTRICKLE_PRIVILEGED_H */
