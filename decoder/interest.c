/*
 * decoder/interest.c
 *     The set of relations whose rows the reader of the stream wants.
 *
 * Knows OIDs only: whether there is such a relation, or one above it in a partition tree, is
 * relation.c's question.  Nothing here touches the catalogs, since messages arrive outside of
 * transactions.
 */
#include "postgres.h"

#include "interest.h"

void
interest_init(Interest *interest, MemoryContext context)
{
	HASHCTL control = {.keysize = sizeof(Oid), .entrysize = sizeof(Oid), .hcxt = context};

	interest->is_all = false;
	interest->relids =
		hash_create("pgtrickle interest", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static void
add_relid(Interest *interest, Oid relid)
{
	if (hash_get_num_entries(interest->relids) < INTEREST_RELATIONS_MAX)
		hash_search(interest->relids, &relid, HASH_ENTER, NULL);
}

/* Reads the OID at *at and moves past it. */
static bool
read_relid(const char **at, Oid *relid)
{
	uint64 number = 0;

	while (**at >= '0' && **at <= '9' && number <= PG_UINT32_MAX)
		number = number * 10 + (uint64) (*(*at)++ - '0');
	*relid = (Oid) number;
	return number > 0 && number <= PG_UINT32_MAX;
}

/* Walks over `16385,16402` and adds to `interest`, or only checks when that is NULL. */
static bool
walk_relids(const char *at, Interest *interest)
{
	for (;;)
	{
		Oid relid;

		if (!read_relid(&at, &relid))
			return false;
		if (interest != NULL)
			add_relid(interest, relid);
		if (*at == '\0')
			return true;
		if (*at++ != ',')
			return false;
	}
}

bool
interest_add_text(Interest *interest, const char *text)
{
	if (strcmp(text, "*") == 0)
	{
		interest->is_all = true;
		return true;
	}
	if (*text == '\0')
		return true;
	return walk_relids(text, NULL) && walk_relids(text, interest);
}

bool
interest_add_message(Interest *interest, const char *payload, Size length)
{
	static const char verb[] = "interest ";
	const char		 *relids;
	char			 *text;
	bool			  is_added;

	if (length < sizeof(verb) - 1 || memcmp(payload, verb, sizeof(verb) - 1) != 0)
		return false;

	text = pnstrdup(payload, length);
	relids = strchr(text + sizeof(verb) - 1, ' '); /* behind the creating transaction */
	is_added = relids != NULL && walk_relids(relids + 1, NULL) && walk_relids(relids + 1, interest);
	pfree(text);
	return is_added;
}

bool
interest_names(const Interest *interest, Oid relid)
{
	return hash_search(interest->relids, &relid, HASH_FIND, NULL) != NULL;
}

bool
interest_contains(const Interest *interest, Oid relid)
{
	return interest->is_all || interest_names(interest, relid);
}
