/*
 * applier/timeline.h
 *     What a server's history of timelines says about a position that was reached on an earlier one.
 *
 * A standby that is promoted goes on writing WAL from where it stood, under a new number, and notes in
 * a file where it left the old timeline.  What was followed on the old one up to there is history of
 * the new one too; what lies behind, the new primary has never had.
 */
#ifndef PGTRICKLE_APPLIER_TIMELINE_H
#define PGTRICKLE_APPLIER_TIMELINE_H

#include "lsn.h"

/*
 * Where `timeline` was left, according to the contents of the history file of a later one.  False
 * when that one does not descend from it.
 */
extern bool timeline_end(const char *history, int timeline, Lsn *end_lsn);

#endif /* PGTRICKLE_APPLIER_TIMELINE_H */
