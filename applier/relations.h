/*
 * applier/relations.h
 *     The Relation records of one stream connection, by number.
 *
 * The applier understands of them only whose rows these are; the record itself is kept as it came,
 * for the change sets of later ticks.  Numbers start again with every connection, and so does this.
 */
#ifndef PGTRICKLE_APPLIER_RELATIONS_H
#define PGTRICKLE_APPLIER_RELATIONS_H

#include "error.h"
#include "proto/records.h"

typedef struct Relation
{
	uint32_t number;
	Oid		 relid;
	char	*name; /* schema.name, for messages */
	Oid		*publish_as; /* the relations of the interest list for which its rows count */
	size_t	 publish_as_count;
	uint8_t *encoded; /* the record, with its key and length in a batch */
	size_t	 encoded_length;
} Relation;

typedef struct Relations Relations;

extern Relations *relations_create(void);
extern void		  relations_free(Relations *relations);

/* Remembers a record of kind RELATION. */
extern bool relations_add(Relations *relations, const RecordView *record, Error *error) MUST_CHECK;

/* NULL when no such number was defined. */
extern const Relation *relations_find(const Relations *relations, uint32_t number);

extern bool relation_counts_for(const Relation *relation, Oid relid);

#endif /* PGTRICKLE_APPLIER_RELATIONS_H */
