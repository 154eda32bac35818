/*
 * delta/compat.h
 *     What differs between PostgreSQL 15, 16, 17 and 18, for the extension's library.
 *
 * The rest of delta/ is written for the newest spelling; this header gives the older servers that
 * spelling.  Version checks belong here and nowhere else.
 */
#ifndef PGTRICKLE_COMPAT_H
#define PGTRICKLE_COMPAT_H

#include "postgres.h"

#include "catalog/pg_class.h"
#include "replication/message.h"
#include "utils/acl.h"

/* Since 17 the server can flush a message itself; before, wal_message.c does. */
#if PG_VERSION_NUM >= 170000
#define compat_log_logical_message(prefix, message, size, transactional) \
	LogLogicalMessage(prefix, message, size, transactional, false)
#else
#define compat_log_logical_message(prefix, message, size, transactional) \
	LogLogicalMessage(prefix, message, size, transactional)
#endif

/* 16 replaced the ownership check per kind of object by one for all. */
#if PG_VERSION_NUM >= 160000
#define compat_owns_relation(relid, role) object_ownercheck(RelationRelationId, relid, role)
#else
#define compat_owns_relation(relid, role) pg_class_ownercheck(relid, role)
#endif

/* Up to 15 a subcommand of ALTER TABLE that recurses to children has a type of its own. */
#if PG_VERSION_NUM >= 160000
#define compat_alter_table_type(subtype) (subtype)
#else
#define compat_alter_table_type(subtype) \
	((subtype) == AT_AddColumnRecurse ? AT_AddColumn : \
	 (subtype) == AT_DropColumnRecurse ? AT_DropColumn : \
	 (subtype) == AT_AddConstraintRecurse ? AT_AddConstraint : \
	 (subtype) == AT_DropConstraintRecurse ? AT_DropConstraint : \
	 (subtype) == AT_ValidateConstraintRecurse ? AT_ValidateConstraint : (subtype))
#endif

#endif /* PGTRICKLE_COMPAT_H */
