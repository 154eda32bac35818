/*
 * applier/stop_point.h
 *     Named places where a test can kill the applier.
 *
 * PGTRICKLE_STOP_AT=name or name:n makes the process kill itself with SIGKILL when it passes that
 * place for the n-th time (default 1), so that nothing it could do on its way out helps it.
 * Without the variable a stop point costs one test of a pointer.
 */
#ifndef PGTRICKLE_APPLIER_STOP_POINT_H
#define PGTRICKLE_APPLIER_STOP_POINT_H

#include <stdbool.h>

/* Reads the environment; false (and what is wrong in *problem) when it names no stop point. */
extern bool stop_point_init(const char **problem);

/* Is this the one that was asked for? */
extern bool stop_point_is_armed(const char *name);

extern void stop_point_pass(const char *name);

#endif /* PGTRICKLE_APPLIER_STOP_POINT_H */
