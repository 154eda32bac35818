/*
 * delta/stage.h
 *     From records of the change stream to rowsets: the entrance of a tick.
 *
 * Reads the protobuf records that the applier sends (proto/README.md), turns each value into a datum
 * through its type's receive (or input) function, and collects per change set and relation one rowset with an
 * insert as +new, a delete as -old and an update as -old +new.
 *
 * Bad bytes are an ERROR (08P01) that says where; they never crash and never lose a row silently.
 */
#ifndef PGTRICKLE_STAGE_H
#define PGTRICKLE_STAGE_H

#include "postgres.h"

#include "nodes/bitmapset.h"
#include "rowset.h"

typedef struct Stage Stage;		/* all change sets of one tick */

/* Why the changes of a relation cannot be used as a delta; the first reason found is kept. */
typedef enum StageObstacle
{
	STAGE_USABLE = 0,
	STAGE_TRUNCATED,			/* the relation was truncated */
	STAGE_OLD_ROW_MISSING,		/* an update or delete came without its old row (or key only and not all used columns are in the key) */
	STAGE_VALUE_MISSING,		/* a used value was too large, or not logged, and the old row does not have it either */
	STAGE_SHAPE_CHANGED			/* a used column is missing from the records or has another type than the relation now */
} StageObstacle;

/*
 * An empty stage; everything it allocates lives in the current context or below.  Files of rowsets that spill belong to
 * the present (sub)transaction, so the stage may be filled and read by several statements; call stage_free before it ends.
 */
extern Stage *stage_create(void);

/*
 * Declares, before any data, that change set `set` wants relation `relid` and reads `used_attnos` of it (attribute
 * numbers of relid, not offset; may be called again: the union counts); with `only`, without the rows of its child tables.  Records of other relations in the set are ignored.
 * The rowset has the relation's own attribute numbers (rowset_tupdesc_for); unused columns are NULL.
 */
extern void stage_expect(Stage *stage, int set, Oid relid, bool only, const Bitmapset *used_attnos);

/*
 * Takes records: `data` is a serialized Batch of proto/pgtrickle.proto.  Relation records are remembered for the
 * whole stage, by their number.  A record counts for every expected relation that its Relation.publish_as names,
 * columns matched by name.  An update whose used columns are all image-equal adds nothing.  An unchanged TOAST value is taken from the old row.
 * Texts are taken to be in the encoding of this database.
 */
extern void stage_append(Stage *stage, int set, const char *data, size_t length);

/*
 * The staged rows of a relation, or NULL when no row came of its records.  The rowset is named __pgt_delta_<relid>, or __pgt_delta_<relid>_only.  *obstacle
 * tells whether they may be used (if not, the result is NULL).  Owned by the stage.  Rows that cancel each other are both
 * there: call consolidate() where that matters.
 */
extern Rowset *stage_rowset(Stage *stage, int set, Oid relid, bool only, StageObstacle *obstacle);

/* A phrase for messages and history: "the source was truncated". */
extern const char *stage_obstacle_reason(StageObstacle obstacle);

extern void stage_free(Stage *stage);

#endif							/* PGTRICKLE_STAGE_H */
