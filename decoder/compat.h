/*
 * decoder/compat.h
 *     What differs between PostgreSQL 15 and 18 for an output plugin.
 *
 * The only place in this folder that looks at PG_VERSION_NUM.
 */
#ifndef PGTRICKLE_DECODER_COMPAT_H
#define PGTRICKLE_DECODER_COMPAT_H

#include "postgres.h"

#include "catalog/pg_attribute.h"
#include "replication/reorderbuffer.h"

/* Before 17 a change's tuple is wrapped in a buffer of the reorder buffer. */
#if PG_VERSION_NUM >= 170000
#define change_tuple(buffered) (buffered)
#else
#define change_tuple(buffered) ((buffered) != NULL ? &(buffered)->tuple : NULL)
#endif

/* From 16 on the reorder buffer itself reports progress while a plugin skips changes. */
#define PLUGIN_REPORTS_PROGRESS (PG_VERSION_NUM < 160000)

/* Generated columns that are computed when read have no value in a tuple (from 18 on). */
#if PG_VERSION_NUM >= 180000
#define attribute_is_virtual(attribute) ((attribute)->attgenerated == ATTRIBUTE_GENERATED_VIRTUAL)
#else
#define attribute_is_virtual(attribute) false
#endif

#endif /* PGTRICKLE_DECODER_COMPAT_H */
