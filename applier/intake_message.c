/*
 * applier/intake_message.c
 *     Messages in the WAL that are meant for the applier: words separated by blanks, docs/explanation/tick.md lists them.
 */
#include "intake_parts.h"

#include "memory.h"

#define MESSAGE_WORDS_MAX 3

typedef struct MessageWords
{
	char *text;
	char *words[MESSAGE_WORDS_MAX];
	int	  count;
} MessageWords;

/* Cuts the payload at its blanks; the last word keeps the rest.  The caller frees the text. */
static void
split_message(const MessageView *message, MessageWords *words)
{
	char *at = memory_take(message->payload.length + 1);

	memcpy(at, message->payload.data, message->payload.length);
	at[message->payload.length] = '\0';
	words->text = at;
	words->count = 0;
	while (words->count < MESSAGE_WORDS_MAX)
	{
		words->words[words->count++] = at;
		if (words->count == MESSAGE_WORDS_MAX)
			break;
		at = strchr(at, ' ');
		if (at == NULL)
			break;
		*at++ = '\0';
	}
}

/* The next number of a comma-separated list; false at its end. */
static bool
next_relid(char **at, Oid *relid)
{
	if (**at < '0' || **at > '9')
		return false;
	*relid = (Oid) strtoul(*at, at, 10);
	if (**at == ',')
		(*at)++;
	return true;
}

static Oid *
parse_relids(char *list, size_t *count)
{
	Oid	  *relids = NULL;
	size_t capacity = 0;
	Oid	   relid;

	*count = 0;
	while (next_relid(&list, &relid))
	{
		relids = memory_grow_array(relids, *count, &capacity, sizeof(Oid));
		relids[(*count)++] = relid;
	}
	return relids;
}

static void
take_interest(Intake *intake, const MessageWords *words)
{
	size_t count;
	Oid	  *relids = parse_relids(words->words[2], &count);

	/*
	 * The position before the message, so that the plugin sees it again after a reconnect: only
	 * then does it know of this interest while the transaction is still running.
	 */
	intake_note_carried(intake, relids, count);
	settle_add_pin(intake->settle, strtoull(words->words[1], NULL, 10), relids, count,
				   intake->stream_lsn);
	free(relids);
}

static void
take_ddl(Intake *intake, char *list)
{
	Oid relid;

	intake->ddl_count++;
	while (next_relid(&list, &relid))
		buffer_append_ddl(intake->buffer, relid);
}

static bool
take_transactional_message(Intake *intake, const MessageWords *words)
{
	Transaction *open = intake->buffer->open;

	if (open == NULL)
		return false;
	if (strcmp(words->words[0], "catalog") == 0)
		open->changes_catalog = true;
	else if (strcmp(words->words[0], "filled") == 0 && words->count > 1)
		buffer_mark_filled(intake->buffer, strtoll(words->words[1], NULL, 10));
	else if (strcmp(words->words[0], "ddl") == 0 && words->count > 1)
		take_ddl(intake, words->words[1]);
	else
		return false;
	return true;
}

static bool
take_message_at_once(Intake *intake, const MessageWords *words)
{
	const char *first = words->words[0];

	/*
	 * A fence does its work by its position, which moves the stream position like that of any
	 * message.
	 */
	if (strcmp(first, "fence") == 0)
		return true;
	if (strcmp(first, "interest") == 0 && words->count == 3)
		take_interest(intake, words);
	else if (strcmp(first, "refresh") == 0 && words->count == 3)
		schedule_request(intake->schedule, strtoll(words->words[1], NULL, 10), NULL,
						 intake->stream_lsn);
	else if (strcmp(first, "verify") == 0 && words->count == 3)
		schedule_request(intake->schedule, strtoll(words->words[1], NULL, 10), words->words[2],
						 intake->stream_lsn);
	else
		return false;
	return true;
}

void
take_message(Intake *intake, const MessageView *message)
{
	MessageWords words;
	bool		 understood;

	split_message(message, &words);
	understood = message->transactional ? take_transactional_message(intake, &words)
										: take_message_at_once(intake, &words);
	free(words.text);

	/*
	 * A newer extension may say more than we know; what must not be missed changes proto_version.
	 */
	if (!understood)
		log_event(LEVEL_WARNING, "ignoring unknown message \"%.*s\" at %s",
				  (int) (message->payload.length < 100 ? message->payload.length : 100),
				  (const char *) message->payload.data, lsn_text(message->lsn).text);
	intake->stream_lsn = lsn_max(intake->stream_lsn, message->lsn);
}
