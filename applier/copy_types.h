/*
 * applier/copy_types.h
 *     The remote's types on the target: which type there is which here.
 */
#ifndef PGTRICKLE_APPLIER_COPY_TYPES_H
#define PGTRICKLE_APPLIER_COPY_TYPES_H

#include "copy.h"

typedef struct TypeMapEntry
{
	char *oid; /* on the remote */
	char *name; /* on the target, as SQL */
} TypeMapEntry;

typedef struct TypeMap
{
	TypeMapEntry *entries;
	size_t		  count;
	size_t		  capacity;
} TypeMap;

/*
 * Finds every type that the remote's table `relid` needs on the target, and makes enums, domains, composite types, ranges and
 * extensions that are missing there, in the transaction that is open on the target.
 */
extern bool
copy_types_map(CopyRemote *work, const char *relid, TypeMap *map, Error *error) MUST_CHECK;

/* Appends `use` with the target's names in the place of the remote's OIDs. */
extern void type_map_substitute(const TypeMap *map, const char *use, Text *text);

extern void type_map_free(TypeMap *map);

#endif /* PGTRICKLE_APPLIER_COPY_TYPES_H */
