/*
 * applier/command.h
 *     The subcommands, and what those that report have in common.
 */
#ifndef PGTRICKLE_APPLIER_COMMAND_H
#define PGTRICKLE_APPLIER_COMMAND_H

#include "error.h"
#include "options.h"

/* Exit codes. */
#define EXIT_FINE 0
#define EXIT_PROBLEM 1 /* it failed, or doctor found something */
#define EXIT_USAGE 2 /* the command line */
#define EXIT_NO_SERVER 3 /* could not connect */

extern int command_setup(const Options *options);
extern int command_status(const Options *options);
extern int command_doctor(const Options *options);
extern int command_drop(const Options *options);
extern int command_copy(const Options *options);

/*
 * An error as a subcommand shows it: "pgtrickle: error: ...", DETAIL and HINT.  Returns
 * EXIT_PROBLEM.
 */
extern int command_fail(const Error *error);

/* Connects and finds out the slot's name; NULL after having said why not. */
extern PGconn *command_connect(const Options *options, char slot[64]);

/* Prints a result as a table with a heading; columns of numbers are aligned to the right. */
extern void command_print_table(const PGresult *result);

#endif /* PGTRICKLE_APPLIER_COMMAND_H */
