/*
 * applier/remotes.c
 *     All remotes: which there are, and what concerns them together.
 *
 * A remote that fails is dealt with here and goes no further: the main loop hears only of errors of the target.
 */
#include "remote.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "remote_plan.h"

#define FDS_PER_REMOTE 2

/* No remote's memory for changes is less, however many there are. */
#define BUFFER_BYTES_MIN (UINT64_C(8) * 1024 * 1024)

void
remotes_init(Remotes *remotes, const Options *options)
{
	memset(remotes, 0, sizeof(*remotes));
	remotes->options = options;
	remotes->prefix_bytes_max = PREFIX_BYTES_FIRST;
}

Remote *
remotes_find(const Remotes *remotes, int remote_id)
{
	for (size_t i = 0; i < remotes->count; i++)
	{
		if (remotes->items[i]->remote_id == remote_id)
			return remotes->items[i];
	}
	return NULL;
}

static void
free_description(Remote *remote)
{
	free(remote->name);
	free(remote->conninfo);
	free(remote->plugin);
	free(remote->publication);
	free(remote->compression);
	free(remote->slot);
	free(remote->system_identifier);
}

static void
remote_free(Remote *remote)
{
	assert(!remote->in_tick);
	remote_close(remote);
	copy_worker_stop(&remote->worker);
	copy_worker_release(&remote->worker);
	free_description(remote);
	free(remote->copies);
	free(remote);
}

void
remotes_free(Remotes *remotes)
{
	for (size_t i = 0; i < remotes->count; i++)
		remote_free(remotes->items[i]);
	free(remotes->items);
	remotes->items = NULL;
	remotes->count = 0;
}

void
remotes_close(Remotes *remotes)
{
	for (size_t i = 0; i < remotes->count; i++)
	{
		Remote *remote = remotes->items[i];

		remote->in_tick = false;
		remote->heartbeat_is_running = false;
		remote->telling_is_running = false;
		remote->is_doubtful = true; /* until the position has been read again */
		remote->connect_at = 0;
		remote_close(remote);
		remote->copy_count = 0;
		remote->wake_at = MICROS_NEVER;
	}
	remotes->wants_catalog = false;
}

/* ------------------------------------------------------------------------------------------------
 * What the target lists
 */

/* Columns of sql/remotes.sql. */
enum
{
	COLUMN_REMOTE_ID,
	COLUMN_NAME,
	COLUMN_CONNINFO,
	COLUMN_PLUGIN,
	COLUMN_PUBLICATION,
	COLUMN_COMPRESSION,
	COLUMN_SLOT,
	COLUMN_SYSTEM_IDENTIFIER,
	COLUMN_TIMELINE,
	COLUMN_POSITION,
	COLUMN_STATUS,
	COLUMN_WORK_MS,
	COLUMN_SCHEMAS,
	COLUMN_LAST_XID,
	COLUMN_LAST_COMMIT,
	COLUMN_COUNT
};

static const char *
text_or_null(const PGresult *result, int row, int column)
{
	return PQgetisnull(result, row, column) ? NULL : PQgetvalue(result, row, column);
}

/* Takes over a text; says whether it is another one. */
static bool
take_text(char **target, const char *text)
{
	bool is_same = *target == NULL ? text == NULL : text != NULL && strcmp(*target, text) == 0;

	if (is_same)
		return false;
	free(*target);
	*target = text != NULL ? memory_copy_text(text) : NULL;
	return true;
}

/* Does it describe something else than before, to which we have to connect anew? */
static bool
take_description(Remote *remote, const PGresult *result, int row, Micros now)
{
	const char *work_ms = text_or_null(result, row, COLUMN_WORK_MS);
	bool is_other = take_text(&remote->conninfo, PQgetvalue(result, row, COLUMN_CONNINFO));

	is_other |= take_text(&remote->plugin, PQgetvalue(result, row, COLUMN_PLUGIN));
	is_other |= take_text(&remote->publication, text_or_null(result, row, COLUMN_PUBLICATION));
	is_other |= take_text(&remote->compression, PQgetvalue(result, row, COLUMN_COMPRESSION));
	is_other |= take_text(&remote->slot, PQgetvalue(result, row, COLUMN_SLOT));
	(void) take_text(&remote->name, PQgetvalue(result, row, COLUMN_NAME));
	remote->is_paused = strcmp(PQgetvalue(result, row, COLUMN_STATUS), "PAUSED") == 0;
	(void) take_text(&remote->worker.schemas, text_or_null(result, row, COLUMN_SCHEMAS));
	remote->worker.work_at =
		work_ms != NULL ? now + strtoll(work_ms, NULL, 10) * INT64_C(1000) : MICROS_NEVER;
	return is_other;
}

/* Where its stream is to start; what a running one has reached may be news to this answer. */
static void
take_position(Remote *remote, const PGresult *result, int row, Lsn position)
{
	if (remote->state != REMOTE_CLOSED || remote->heartbeat_is_running)
		return;
	remote->position = position;
	remote->last_xid = strtoull(PQgetvalue(result, row, COLUMN_LAST_XID), NULL, 10);
	remote->last_commit_lsn = LSN_NONE;
	if (remote->last_xid != 0)
		(void) lsn_parse(PQgetvalue(result, row, COLUMN_LAST_COMMIT), &remote->last_commit_lsn);
	(void) take_text(&remote->system_identifier,
					 text_or_null(result, row, COLUMN_SYSTEM_IDENTIFIER));
	remote->timeline = atoi(PQgetvalue(result, row, COLUMN_TIMELINE));
	remote->is_doubtful = false;
}

static bool
take_row(Remotes *remotes, const PGresult *result, int row, Micros now, Error *error)
{
	int			remote_id = atoi(PQgetvalue(result, row, COLUMN_REMOTE_ID));
	const char *position_text = text_or_null(result, row, COLUMN_POSITION);
	Remote	   *remote = remotes_find(remotes, remote_id);
	Lsn			position = LSN_NONE;

	if (position_text != NULL && !lsn_parse(position_text, &position))
		return error_set(error, FAIL_FATAL, "position of remote %d: \"%s\" is no LSN", remote_id,
						 position_text);
	if (remote == NULL)
	{
		remote = memory_take_zeroed(sizeof(Remote));
		remote->remote_id = remote_id;
		remote->wake_at = MICROS_NEVER;
		remote->worker.work_at = MICROS_NEVER;
		remotes->items =
			memory_resize(remotes->items, (remotes->count + 1) * sizeof(Remote *));
		remotes->items[remotes->count++] = remote;
	}
	remote->is_listed = true;
	assert(!remote->in_tick);
	if (take_description(remote, result, row, now) || remote->is_paused ||
		(remote->is_doubtful && position != remote->position && !remote->heartbeat_is_running))
	{
		remote_close(remote);
		remote->connect_at = now;
	}
	if (!remote->heartbeat_is_running)
		remote->is_doubtful = false;
	take_position(remote, result, row, position);
	return true;
}

bool
remotes_use_rows(Remotes *remotes, const PGresult *result, Micros now, Error *error)
{
	size_t kept = 0;

	if (PQnfields(result) != COLUMN_COUNT)
		return error_set(error, FAIL_FATAL, "unexpected shape of the list of remotes");
	for (size_t i = 0; i < remotes->count; i++)
		remotes->items[i]->is_listed = false;
	for (int row = 0; row < PQntuples(result); row++)
	{
		if (!take_row(remotes, result, row, now, error))
			return false;
	}
	for (size_t i = 0; i < remotes->count; i++)
	{
		Remote *remote = remotes->items[i];

		if (remote->is_listed)
			remotes->items[kept++] = remote;
		else
		{
			log_event(LEVEL_LOG, "remote \"%s\" is not followed any more", remote->name);
			remote_free(remote);
		}
	}
	remotes->count = kept;
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * Copies
 */

static bool
wants_declaration(const Remote *remote)
{
	for (size_t i = 0; i < remote->copy_count; i++)
	{
		if (copy_is_followed(remote->copies[i]) && remote->copies[i]->copy.status == COPY_WANTED)
			return true;
	}
	return false;
}

static void
use_catalog(Remote *remote, Remotes *remotes, const Catalog *catalog, Micros now)
{
	remote_find_copies(remote, catalog);
	if (remote->state == REMOTE_RELOADING && remote->reload_is_sent)
	{
		remote->state = REMOTE_RUNNING;
		remote->connect_failures = 0;
		remote->told_failure[0] = '\0';
		remote->said_waiting = false;
	}
	if (remote->state == REMOTE_RUNNING && !remote_stream_is_right(remote))
	{
		log_event(LEVEL_DEBUG, "remote \"%s\": other tables are wanted, starting the stream again",
				  remote->name);
		remote_close(remote);
		remote->connect_at = now;
	}
	remote->prefix.is_worth_it = false;
	remote->must_turn = true;
	remotes->may_have_news = true;
}

void
remotes_use_catalog(Remotes *remotes, const Catalog *catalog, Micros now)
{
	for (size_t i = 0; i < remotes->count; i++)
	{
		Remote *remote = remotes->items[i];

		use_catalog(remote, remotes, catalog, now);
		if (remote->intake != NULL)
		{
			uint64_t share = remotes->options->buffer_bytes_max / remotes->count;

			remote->intake->buffer->memory_bytes_max =
				share > BUFFER_BYTES_MIN ? share : BUFFER_BYTES_MIN;
		}
	}
}

void
remotes_reload_is_sent(Remotes *remotes)
{
	remotes->wants_catalog = false;
	for (size_t i = 0; i < remotes->count; i++)
		remotes->items[i]->reload_is_sent = remotes->items[i]->state == REMOTE_RELOADING;
}

/* ------------------------------------------------------------------------------------------------
 * Sockets
 */

size_t
remotes_pollfd_count(const Remotes *remotes)
{
	return remotes->count * FDS_PER_REMOTE;
}

void
remotes_fill_pollfds(const Remotes *remotes, struct pollfd *fds)
{
	for (size_t i = 0; i < remotes->count; i++)
	{
		const Remote  *remote = remotes->items[i];
		const Session *sessions[FDS_PER_REMOTE] = {&remote->control, &remote->stream.session};

		for (int j = 0; j < FDS_PER_REMOTE; j++)
		{
			struct pollfd *fd = &fds[i * FDS_PER_REMOTE + (size_t) j];

			fd->fd = session_socket(sessions[j]);
			fd->events = session_events(sessions[j]);
			fd->revents = 0;
		}
		/* What is not read stays where it is, and in the end at the remote. */
		if (remote->is_full)
			fds[i * FDS_PER_REMOTE + 1].events &= ~POLLIN;
	}
}

void
remotes_serve(Remotes *remotes, const struct pollfd *fds, size_t fd_count, Control *control,
			  Micros now, bool *more)
{
	for (size_t i = 0; i < remotes->count && (i + 1) * FDS_PER_REMOTE <= fd_count; i++)
	{
		Remote *remote = remotes->items[i];
		bool	has_more = false;
		Error	error = {0};

		remotes->may_have_news |= fds[i * FDS_PER_REMOTE + 1].revents != 0;
		if (!remote_serve(remote, fds + i * FDS_PER_REMOTE, now, &has_more, &error))
			remote_failed(remote, control, &error, now);
		*more |= has_more;
	}
}

/* ------------------------------------------------------------------------------------------------
 * One turn
 */

static bool
take_answers(Remotes *remotes, Control *control, Micros now, Error *error)
{
	bool is_well = true;

	for (int i = 0; is_well && i < control->answer_count; i++)
	{
		const RemoteAnswer *answer = &control->answers[i];
		Remote			   *remote = remotes_find(remotes, answer->remote_id);

		if (remote != NULL)
			is_well = remote_take_answer(remote, remotes, control, answer, now, error);
	}
	control->answer_count = 0;
	return is_well;
}

bool
remotes_turn(Remotes *remotes, Control *control, Lsn stream_lsn, Micros now, Error *error)
{
	if (!take_answers(remotes, control, now, error))
		return false;
	for (size_t i = 0; i < remotes->count; i++)
	{
		Remote *remote = remotes->items[i];
		Error	own = {0};

		if (remote->state == REMOTE_CLOSED && remote->is_doubtful && !remote->in_tick &&
			!remote->heartbeat_is_running)
			remotes->wants_catalog = true;
		/* Where the stream does not get, the process that copies would not get either. */
		if ((remote->worker.pid != 0 || remote->state == REMOTE_RUNNING) &&
			copy_worker_turn(&remote->worker, remotes->options->dbname, remote->name, now))
			remotes->wants_catalog = true;
		if (remote->state == REMOTE_RUNNING && !remote->in_tick && !remote->heartbeat_is_running &&
			wants_declaration(remote) && control_has_room(control) &&
			!remote_declare(remote, control, error))
			return false;
		if (!remote_give_up(remote, control, error))
			return false;
		if (!remote_turn(remote, remotes, control, now, &own))
			remote_failed(remote, control, &own, now);
		if (!remote_report(remote, control, stream_lsn, now, error))
			return false;
	}
	return true;
}

void
remotes_finish(Remotes *remotes, Micros now)
{
	for (size_t i = 0; i < remotes->count; i++)
	{
		Remote *remote = remotes->items[i];
		Error	ignored = {0};

		if (remote->stream.state == STREAM_STREAMING && remote_feed_back(remote, now, true, &ignored))
			stream_finish(&remote->stream);
	}
}

void
remotes_stop_workers(Remotes *remotes)
{
	for (size_t i = 0; i < remotes->count; i++)
		copy_worker_stop(&remotes->items[i]->worker);
}

bool
remotes_have_workers(const Remotes *remotes)
{
	for (size_t i = 0; i < remotes->count; i++)
	{
		if (remotes->items[i]->worker.pid != 0)
			return true;
	}
	return false;
}

Micros
remotes_deadline(const Remotes *remotes)
{
	Micros deadline = MICROS_NEVER;

	for (size_t i = 0; i < remotes->count; i++)
	{
		Micros at = remote_deadline(remotes->items[i]);

		if (at < deadline)
			deadline = at;
	}
	return deadline;
}
