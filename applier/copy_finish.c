/*
 * applier/copy_finish.c
 *     Ends the copying of one table while the rows of the next one flow.
 *
 * When all rows of a table are loaded, the target builds its indexes: one process there is busy, and nobody on the remote.  So that goes on beside
 * the loading of the next table.  One at a time, since each may use as much memory as maintenance_work_mem says.
 *
 * What has failed is told to the target by the worker's main thread, as all failures are.
 */
#include "copy_finish.h"

#include <pthread.h>
#include <stdlib.h>

#include "memory.h"
#include "sql_text.h"

struct CopyFinishing
{
	CopyFinishing *next;
	CopyFinish	   finish;
	CopyRemote	   work; /* with connections of its own */
	char		  *snapshot; /* or NULL */
	Micros		   started_at;
	pthread_t	   thread;
	bool		   is_running;
};

/*
 * On an idle remote nothing may ever be written at the position, and so the stream would not get there: hence one more transaction,
 * which writes nothing but its end.
 */
static bool
tell_end(CopyRemote *work, const Copy *copy, const char *snapshot, Error *error)
{
	Text		position = {0};
	const char *values[3] = {copy->copy_id, NULL, snapshot};
	bool		found;
	bool		done;

	done = copy_load_check(work, copy, error) &&
		   server_ask(work->remote, sql_remote_wal_end, 0, NULL, &position, &found, error) &&
		   server_execute(work->remote, sql_remote_move_wal, 0, NULL, error);
	if (done)
	{
		values[1] = position.data;
		done = server_execute(work->target, "SELECT pgtrickle.copy_done($1, $2, $3)", 3, values,
							  error);
	}
	text_free(&position);
	return done;
}

static void *
run(void *argument)
{
	CopyFinishing *item = argument;
	CopyFinish	  *finish = &item->finish;
	CopyRemote	  *work = &item->work;
	Error		  *error = &finish->failure;

	work->target = copy_connect(work->target_dbname, "pgtrickle copy", work->encoding, error);
	if (work->target != NULL)
		work->remote = copy_connect(work->remote_dbname, "pgtrickle copy", work->encoding, error);
	finish->is_done = work->target != NULL && work->remote != NULL &&
					  tell_end(work, &finish->copy, item->snapshot, error);
	finish->took = clock_now() - item->started_at;
	PQfinish(work->remote);
	PQfinish(work->target);
	return NULL;
}

static void
join(CopyFinishing *item)
{
	if (item->is_running)
		pthread_join(item->thread, NULL);
	item->is_running = false;
}

void
copy_finish_start(CopyRemote *work, const Copy *copy, const char *snapshot, Micros started_at)
{
	CopyFinishing  *item = memory_take_zeroed(sizeof(CopyFinishing));
	CopyFinishing **last = &work->finishing;

	item->finish.copy = *copy;
	item->started_at = started_at;
	item->snapshot = snapshot != NULL ? memory_copy_text(snapshot) : NULL;
	item->work.options = work->options;
	item->work.target_dbname = work->target_dbname;
	item->work.remote_dbname = work->remote_dbname;
	item->work.encoding = work->encoding;
	item->work.remote_id = work->remote_id;
	item->work.name = work->name;
	item->work.schema_map = work->schema_map;
	item->work.publication = work->publication;
	for (; *last != NULL; last = &(*last)->next)
		join(*last);
	*last = item;
	item->is_running = pthread_create(&item->thread, NULL, run, item) == 0;
	if (!item->is_running)
		run(item);
}

bool
copy_finish_take(CopyRemote *work, CopyFinish *finish)
{
	CopyFinishing *item = work->finishing;

	if (item == NULL)
		return false;
	join(item);
	*finish = item->finish;
	work->finishing = item->next;
	free(item->snapshot);
	free(item);
	return true;
}
