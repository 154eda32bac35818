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

#include "access/genam.h"
#include "access/tableam.h"
#include "executor/executor.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h" /* was part of postgres.h */
#endif

#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_namespace.h"
#include "parser/parse_relation.h" /* getRTEPermissionInfo() */
#include "replication/message.h"
#include "utils/acl.h"
#include "utils/guc_tables.h"

/* 18 writes it before the declaration, and has dropped the old spelling. */
#ifndef pg_noreturn
#define pg_noreturn pg_attribute_noreturn()
#endif

/* Until 16 two entries of the relation cache that exchange their files must have none of them open. */
#if PG_VERSION_NUM >= 170000
#define compat_close_files(relid) ((void) (relid))
#else
#define compat_close_files(relid) RelationCloseSmgrByOid(relid)
#endif

/* Builds an index anew, with the rights of its table's owner. */
#if PG_VERSION_NUM >= 170000
#define compat_reindex(relid, persistence) reindex_index(NULL, relid, false, persistence, &(ReindexParams) {0})
#else
#define compat_reindex(relid, persistence) reindex_index(relid, false, persistence, &(ReindexParams) {0})
#endif

/* 18 can reserve room before the copy. */
#if PG_VERSION_NUM >= 180000
#define compat_copy_minimal_tuple(tuple) heap_copy_minimal_tuple(tuple, 0)
#else
#define compat_copy_minimal_tuple(tuple) heap_copy_minimal_tuple(tuple)
#endif

/* 18 has NOT NULL constraints that older rows need not meet. */
#if PG_VERSION_NUM >= 180000
#define compat_is_never_null(tupdesc, attno)                                                       \
	(TupleDescCompactAttr(tupdesc, (attno) -1)->attnullability == ATTNULLABLE_VALID)
#else
#define compat_is_never_null(tupdesc, attno) (TupleDescAttr(tupdesc, (attno) -1)->attnotnull)
#endif

/* A setting of the server by its name; NULL: none.  Until 15 the server keeps its own search to itself. */
#if PG_VERSION_NUM >= 160000
#define compat_find_setting(name) find_option(name, false, true, 0)
#else
static inline struct config_generic *
compat_find_setting(const char *name)
{
	struct config_generic **all = get_guc_variables();

	for (int i = 0; i < GetNumConfigOptions(); i++)
	{
		if (pg_strcasecmp(all[i]->name, name) == 0)
			return all[i];
	}
	return NULL;
}
#endif

/* Since 17 the server can flush a message itself; before, wal_message.c does. */
#if PG_VERSION_NUM >= 170000
#define compat_log_logical_message(prefix, message, size, transactional)                           \
	LogLogicalMessage(prefix, message, size, transactional, false)
#else
#define compat_log_logical_message(prefix, message, size, transactional)                           \
	LogLogicalMessage(prefix, message, size, transactional)
#endif

/* 18 knows strategies of other access methods, too. */
#if PG_VERSION_NUM >= 180000
#define OpBtreeInterpretation OpIndexInterpretation
#define compat_btree_interpretation(opno) get_op_index_interpretation(opno)
#define compat_strategy(meaning)                                                                   \
	((meaning)->cmptype >= COMPARE_LT && (meaning)->cmptype <= COMPARE_GT ? (int) (meaning)->cmptype : 0)
#else
#define compat_btree_interpretation(opno) get_op_btree_interpretation(opno)
#define compat_strategy(meaning) ((meaning)->strategy)
#endif

/* May the current user read all that a level of a query reads?  Else an error.  16 moved rights out of the range table. */
#if PG_VERSION_NUM >= 160000
#define compat_check_permissions(query) ((void) ExecCheckPermissions((query)->rtable, (query)->rteperminfos, true))
#else
#define compat_check_permissions(query) ((void) ExecCheckRTPerms((query)->rtable, true))
#endif

/* 16 replaced the ownership check per kind of object by one for all. */
#if PG_VERSION_NUM >= 160000
#define compat_owns_relation(relid, role) object_ownercheck(RelationRelationId, relid, role)
#define compat_owns_schema(schema, role) object_ownercheck(NamespaceRelationId, schema, role)
#else
#define compat_owns_relation(relid, role) pg_class_ownercheck(relid, role)
#define compat_owns_schema(schema, role) pg_namespace_ownercheck(schema, role)
#endif

#if PG_VERSION_NUM >= 160000
#define compat_schema_aclcheck(schema, role, mode) object_aclcheck(NamespaceRelationId, schema, role, mode)
#define compat_database_aclcheck(database, role, mode) object_aclcheck(DatabaseRelationId, database, role, mode)
#else
#define compat_schema_aclcheck(schema, role, mode) pg_namespace_aclcheck(schema, role, mode)
#define compat_database_aclcheck(database, role, mode) pg_database_aclcheck(database, role, mode)
#endif

/* With whose rights a relation is read: the owner of the view that it stands in, or nobody in particular. */
#if PG_VERSION_NUM >= 160000
#define compat_check_as_user(query, rte)                                                           \
	((rte)->perminfoindex > 0 ? getRTEPermissionInfo((query)->rteperminfos, rte)->checkAsUser : InvalidOid)
#else
#define compat_check_as_user(query, rte) ((void) (query), (rte)->checkAsUser)
#endif

/* Up to 15 a subcommand of ALTER TABLE that recurses to children has a type of its own. */
#if PG_VERSION_NUM >= 160000
#define compat_alter_table_type(subtype) (subtype)
#else
#define compat_alter_table_type(subtype)                                                           \
	((subtype) == AT_AddColumnRecurse			 ? AT_AddColumn                                    \
	 : (subtype) == AT_DropColumnRecurse		 ? AT_DropColumn                                   \
	 : (subtype) == AT_AddConstraintRecurse		 ? AT_AddConstraint                                \
	 : (subtype) == AT_DropConstraintRecurse	 ? AT_DropConstraint                               \
	 : (subtype) == AT_ValidateConstraintRecurse ? AT_ValidateConstraint                           \
												 : (subtype))
#endif

/*
 * Which indexes an UPDATE has to feed.  Up to 15 that is all or none; 16 knows a third answer, only
 * those that summarize blocks (BRIN).
 */
#if PG_VERSION_NUM >= 160000
typedef TU_UpdateIndexes CompatUpdateIndexes;

#define COMPAT_UPDATE_NO_INDEXES TU_None
#else
typedef bool CompatUpdateIndexes;

#define COMPAT_UPDATE_NO_INDEXES false
#endif

/* Index entries for a row that was inserted. */
static inline List *
compat_insert_index_entries(ResultRelInfo *rri, TupleTableSlot *slot, EState *estate)
{
#if PG_VERSION_NUM >= 160000
	return ExecInsertIndexTuples(rri, slot, estate, false, false, NULL, NIL, false);
#else
	return ExecInsertIndexTuples(rri, slot, estate, false, false, NULL, NIL);
#endif
}

/* Index entries for the new version of a row; `which` is table_tuple_update's answer, not "none". */
static inline List *
compat_update_index_entries(ResultRelInfo *rri, TupleTableSlot *slot, EState *estate,
							CompatUpdateIndexes which)
{
	Assert(which != COMPAT_UPDATE_NO_INDEXES);
#if PG_VERSION_NUM >= 160000
	return ExecInsertIndexTuples(rri, slot, estate, true, false, NULL, NIL,
								 which == TU_Summarizing);
#else
	return ExecInsertIndexTuples(rri, slot, estate, true, false, NULL, NIL);
#endif
}

static inline IndexScanDesc
compat_index_beginscan(Relation heap, Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(heap, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(heap, index, snapshot, nkeys, 0);
#endif
}

#endif /* PGTRICKLE_COMPAT_H */
