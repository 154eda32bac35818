/*
 * delta/equality.h
 *     Which equality says what.
 */
#ifndef PGTRICKLE_EQUALITY_H
#define PGTRICKLE_EQUALITY_H

#include "postgres.h"

#include "nodes/nodes.h"

/* Are strings that are equal under one collation equal under the other, and the other way round? */
extern bool collations_agree(Oid one, Oid other);

/* Does the operator compare values of this type as GROUP BY, DISTINCT and unique indexes do, but for the collation? */
extern bool is_usual_comparison(Oid operator, Oid type);

/* The expression, with COLLATE where that makes a difference to who is equal to whom. */
extern Node *under_collation(Node *expr, Oid collation);

/* Is anything done with a column of the level `level` above, other than comparing it, that could tell equal values from each other? */
extern bool images_matter(Node *node, int level);

#endif							/* PGTRICKLE_EQUALITY_H */
