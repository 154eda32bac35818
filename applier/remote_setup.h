/*
 * applier/remote_setup.h
 *     What set-up, doctor and drop do about remotes.
 */
#ifndef PGTRICKLE_APPLIER_REMOTE_SETUP_H
#define PGTRICKLE_APPLIER_REMOTE_SETUP_H

#include "options.h"
#include "server.h"

/* remote_setup.c: looks at the remote before anything is changed; prints what is wrong there. */
extern bool remote_setup_check(PGconn *target, const Options *options, Error *error) MUST_CHECK;

/* Adds the remote to the target's catalog, makes its slot, asks for copies.  Undoes what it did when a step fails. */
extern bool
remote_setup(PGconn *target, const Options *options, const char *role, Error *error) MUST_CHECK;

/* remote_doctor.c: reports on every remote; `report` is as in remote_checks.h. */
extern bool remote_doctor(PGconn *target, void (*report)(void *, int, const char *, const char *),
						  void *context, Error *error) MUST_CHECK;

/* remote_drop.c: the slot of a remote, and on the target the remote with its copies if `forget`. */
extern bool remote_drop(PGconn *target, const char *name, bool forget, Error *error) MUST_CHECK;

/* The slots of all remotes; those that cannot be dropped now are named. */
extern bool remote_drop_slots(PGconn *target, Error *error) MUST_CHECK;

#endif /* PGTRICKLE_APPLIER_REMOTE_SETUP_H */
