/*
 * delta/stage_relations.h
 *     What the stream says a relation looks like, matched with what somebody expects of it.
 *
 *     StageRelation (a Relation record) --binding--> StageExpectation (what the tick's programs read)
 *
 * A relation of the stream can count for several expected ones (a partition and its ancestors), and for
 * the same one in several change sets.
 */
#ifndef PGTRICKLE_STAGE_RELATIONS_H
#define PGTRICKLE_STAGE_RELATIONS_H

#include "postgres.h"

#include "nodes/bitmapset.h"
#include "nodes/pg_list.h"
#include "records.h"
#include "rowset.h"
#include "stage.h"
#include "stage_values.h"

/* What a change set's programs want to know of a relation, and what they get. */
typedef struct StageExpectation
{
	int			  set;
	Oid			  relid;
	bool		  only;	   /* rows of child tables do not count */
	Oid			  owner_id; /* of the relation: with whose rights its values are read */
	Bitmapset	 *used_attnos;
	TupleDesc	  columns; /* the relation's now; NULL: there is none of this OID */
	TupleDesc	  tupdesc; /* of the rowset */
	StageObstacle obstacle;
	Rowset		 *rowset; /* NULL until the first row */
	Datum		 *values; /* room for one row without its weight; unused columns are NULL */
	bool		 *nulls;
} StageExpectation;

typedef struct StageColumn
{
	char		 *name;
	AttrNumber	  attnum; /* in the relation whose rows these are; 0: the stream does not say */
	Oid			  type;
	int32		  typmod;
	ValueEncoding encoding;
	bool		  in_identity;
} StageColumn;

/* A used column. */
typedef struct BoundColumn
{
	int			 source; /* in StageRelation.columns */
	int			 target; /* in the rowset, from 0 */
	ValueDecoder decoder;
} BoundColumn;

typedef struct StageBinding
{
	StageExpectation *expectation;
	int				  ncolumns;
	BoundColumn		 *columns;
	bool			  within_identity; /* every used column is part of the replica identity */
} StageBinding;

typedef struct StageRelation
{
	uint32		  number;
	Oid			  relid;
	MemoryContext context; /* everything below */
	ByteRange	  encoded; /* the record, for recognizing it when it comes again */
	char		 *name; /* qualified, for messages */
	List		 *publish_as; /* of OIDs */
	int			  ncolumns;
	StageColumn	 *columns;

	/* Bindings of the change set that was used last; a set's records come together. */
	bool		  is_bound;
	int			  bound_set;
	List		 *bindings; /* of StageBinding */
	MemoryContext binding_context;

	/* Room for one record's rows. */
	TupleValue *old_values;
	TupleValue *new_values;
} StageRelation;

/* An expectation of the relation as it is now.  Allocated in the current context. */
extern StageExpectation *stage_expectation_create(int set, Oid relid, bool only);

/* Keeps the first obstacle, and gives up the rows so far: they are of no use either. */
extern void stage_expectation_set_obstacle(StageExpectation *expectation, StageObstacle obstacle);

/* A relation from its record (kind RELATION), which is copied.  Lives in a context below the current one. */
extern StageRelation *stage_relation_create(const RecordView *record);
extern void			  stage_relation_free(StageRelation *relation);

/* Finds the values of a row, one for each column.  Returns NULL, or what is wrong with it and where. */
extern const char *stage_relation_read_row(const StageRelation *relation, ByteRange row, TupleValue *values,
										   const uint8_t **error_at);

/* Binds the relation to those of the expectations that belong to `set` and that it counts for. */
extern void stage_relation_bind(StageRelation *relation, int set, List *expectations);

#endif /* PGTRICKLE_STAGE_RELATIONS_H */
