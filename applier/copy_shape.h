/*
 * applier/copy_shape.h
 *     What a copy has to look like: the remote's table in the target's words.
 */
#ifndef PGTRICKLE_APPLIER_COPY_SHAPE_H
#define PGTRICKLE_APPLIER_COPY_SHAPE_H

#include "copy_types.h"

typedef struct CopyShape
{
	RemoteTable table;
	TypeMap		types;
	char	  **type_names; /* per column, as SQL of the target */
	char	  **collations; /* per column; NULL: the type's */
} CopyShape;

/*
 * Reads the remote's table, and finds or makes its types in the transaction that is open on the target.  `shape` is to be freed
 * in any case.
 */
extern bool
copy_shape_load(CopyRemote *work, const Copy *copy, CopyShape *shape, Error *error) MUST_CHECK;
extern void copy_shape_free(CopyShape *shape);

/* "name type [COLLATE ...]" of a column. */
extern void
copy_shape_append_column(CopyRemote *work, const CopyShape *shape, int column, Text *text);

/* "name, ..." of the key, in its order. */
extern void copy_shape_append_key(CopyRemote *work, const CopyShape *shape, Text *text);

/*
 * Gives the table `target` its key and its comments, and tells the server what it is a copy of.  `recopy`: why its rows have to be
 * copied again, or NULL.
 */
extern bool copy_shape_make_key(CopyRemote *work, const Copy *copy, const CopyShape *shape,
								const char *target, Error *error) MUST_CHECK;
extern bool copy_shape_tell(CopyRemote *work, const Copy *copy, const CopyShape *shape,
							const char *target, const char *recopy, Error *error) MUST_CHECK;

#endif /* PGTRICKLE_APPLIER_COPY_SHAPE_H */
