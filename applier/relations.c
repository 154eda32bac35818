/*
 * applier/relations.c
 *     The Relation records of one stream connection, by number.
 */
#include "relations.h"

#include <stdlib.h>

#include "memory.h"

/* The plugin counts from 1; anything far beyond what a database can hold is a broken stream. */
#define RELATION_NUMBER_MAX 10000000

struct Relations
{
	Relation **by_number; /* NULL where nothing is defined */
	size_t	   capacity;
};

Relations *
relations_create(void)
{
	return memory_take_zeroed(sizeof(Relations));
}

static void
relation_free(Relation *relation)
{
	if (relation == NULL)
		return;
	free(relation->name);
	free(relation->publish_as);
	free(relation->encoded);
	free(relation);
}

void
relations_free(Relations *relations)
{
	for (size_t i = 0; i < relations->capacity; i++)
		relation_free(relations->by_number[i]);
	free(relations->by_number);
	free(relations);
}

static Relation *
relation_from_record(const RecordView *record)
{
	const RelationView *view = &record->relation_def;
	Relation		   *relation = memory_take_zeroed(sizeof(Relation));
	RelidReader			publish_as = publish_as_reader(view);
	Oid					relid;
	Text				name = {0};

	relation->number = view->number;
	relation->relid = view->relid;
	text_append_format(&name, "%.*s.%.*s", (int) view->schema_name.length,
					   (const char *) view->schema_name.data, (int) view->relation_name.length,
					   (const char *) view->relation_name.data);
	relation->name = name.data;
	relation->publish_as = memory_take(view->publish_as_count * sizeof(Oid));
	while (relid_next(&publish_as, &relid))
		relation->publish_as[relation->publish_as_count++] = relid;
	relation->encoded = memory_take(record->encoded.length);
	memcpy(relation->encoded, record->encoded.data, record->encoded.length);
	relation->encoded_length = record->encoded.length;
	return relation;
}

/* A number means one thing for ever: buffered rows refer to it. */
static bool
check_same(const Relation *relation, const RecordView *record, Error *error)
{
	if (relation->encoded_length == record->encoded.length &&
		memcmp(relation->encoded, record->encoded.data, record->encoded.length) == 0)
		return true;
	return error_set(error, FAIL_RETRY, "relation number %u was given twice", relation->number);
}

bool
relations_add(Relations *relations, const RecordView *record, Error *error)
{
	uint32_t number = record->relation_def.number;

	if (number == 0 || number > RELATION_NUMBER_MAX)
		return error_set(error, FAIL_RETRY, "relation number %u is out of range", number);
	if (number >= relations->capacity)
	{
		size_t capacity = (size_t) number * 2 + 8;

		relations->by_number =
			memory_resize(relations->by_number, capacity * sizeof(relations->by_number[0]));
		memset(relations->by_number + relations->capacity, 0,
			   (capacity - relations->capacity) * sizeof(relations->by_number[0]));
		relations->capacity = capacity;
	}
	if (relations->by_number[number] != NULL)
		return check_same(relations->by_number[number], record, error);
	relations->by_number[number] = relation_from_record(record);
	return true;
}

const Relation *
relations_find(const Relations *relations, uint32_t number)
{
	return number < relations->capacity ? relations->by_number[number] : NULL;
}

bool
relation_counts_for(const Relation *relation, Oid relid)
{
	for (size_t i = 0; i < relation->publish_as_count; i++)
	{
		if (relation->publish_as[i] == relid)
			return true;
	}
	return false;
}
