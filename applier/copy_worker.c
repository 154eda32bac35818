/*
 * applier/copy_worker.c
 *     The process that defines and fills the copies of one remote.
 */
#include "copy_worker.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "memory.h"
#include "schedule.h"

#define RESTART_DELAY_FIRST (500 * INT64_C(1000))
#define RESTART_DELAY_MAX (30 * MICROS_PER_SECOND)

/* It did what there was; news about that are on their way. */
#define RESTART_DELAY_AFTER_SUCCESS (200 * INT64_C(1000))

/*
 * So often copies are compared with their tables, and schemas that are copied as a whole searched for new ones.  A table that was
 * dropped and created again has no records in the stream that could tell.
 */
#define LOOK_INTERVAL (60 * MICROS_PER_SECOND)

/* This very program, even when another one was installed in its place. */
static void
become_worker(const char *dbname, const char *remote_name)
{
	static const int caught[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGPIPE};
	const char		*arguments[] = {"pgtrickle", "copy", "--remote", remote_name, "--target", dbname, NULL};
	sigset_t		 none;

	for (size_t i = 0; i < sizeof(caught) / sizeof(caught[0]); i++)
		signal(caught[i], SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
#ifdef __linux__
	prctl(PR_SET_PDEATHSIG, SIGTERM);
#endif
	unsetenv("PGTRICKLE_STOP_AT"); /* that is for the daemon */
	if (dbname == NULL)
		arguments[4] = NULL;
	execv("/proc/self/exe", (char **) arguments);
	execvp("pgtrickle", (char **) arguments);
	_exit(127);
}

static void
start(CopyWorker *worker, const char *dbname, const char *remote_name, Micros now)
{
	pid_t pid = fork();

	if (pid == 0)
		become_worker(dbname, remote_name);
	if (pid < 0)
	{
		log_event(LEVEL_WARNING, "could not start a process to copy from remote \"%s\": %s",
				  remote_name, strerror(errno));
		worker->failures++;
		worker->start_at = now + retry_delay(worker->failures, RESTART_DELAY_FIRST, RESTART_DELAY_MAX);
		return;
	}
	log_event(LEVEL_DEBUG, "copying from remote \"%s\": process %d", remote_name, (int) pid);
	worker->pid = pid;
	worker->is_stopped = false;
	free(worker->schemas_seen);
	worker->schemas_seen = worker->schemas != NULL ? memory_copy_text(worker->schemas) : NULL;
}

static void
note_end(CopyWorker *worker, const char *remote_name, int status, Micros now)
{
	worker->pid = 0;
	worker->look_at = now + LOOK_INTERVAL;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
	{
		worker->failures = 0;
		worker->start_at = now + RESTART_DELAY_AFTER_SUCCESS;
		return;
	}
	free(worker->schemas_seen);
	worker->schemas_seen = NULL;
	worker->failures++;
	worker->start_at = now + retry_delay(worker->failures, RESTART_DELAY_FIRST, RESTART_DELAY_MAX);
	if (worker->is_stopped)
		return;
	if (WIFSIGNALED(status))
		log_event(LEVEL_WARNING, "the process that copies from remote \"%s\" was ended by signal %d",
				  remote_name, WTERMSIG(status));
	else
		log_event(LEVEL_WARNING, "the process that copies from remote \"%s\" ended with status %d",
				  remote_name, WEXITSTATUS(status));
}

/* When there is something to do; MICROS_NEVER: never. */
static Micros
due_at(const CopyWorker *worker)
{
	Micros at = worker->work_at < worker->look_at ? worker->work_at : worker->look_at;

	if (worker->is_stopped)
		return MICROS_NEVER;
	if (worker->schemas != NULL &&
		(worker->schemas_seen == NULL || strcmp(worker->schemas, worker->schemas_seen) != 0))
		at = 0;
	return at > worker->start_at ? at : worker->start_at;
}

bool
copy_worker_turn(CopyWorker *worker, const char *dbname, const char *remote_name, Micros now)
{
	int status;

	if (worker->pid != 0)
	{
		if (waitpid(worker->pid, &status, WNOHANG) != worker->pid)
			return false;
		note_end(worker, remote_name, status, now);
		return true;
	}
	if (now >= due_at(worker))
		start(worker, dbname, remote_name, now);
	return false;
}

Micros
copy_worker_deadline(const CopyWorker *worker)
{
	return worker->pid == 0 ? due_at(worker) : MICROS_NEVER;
}

void
copy_worker_stop(CopyWorker *worker)
{
	if (worker->pid != 0 && !worker->is_stopped)
		kill(worker->pid, SIGTERM);
	worker->is_stopped = true;
	free(worker->schemas);
	worker->schemas = NULL;
}

void
copy_worker_release(CopyWorker *worker)
{
	free(worker->schemas_seen);
	worker->schemas_seen = NULL;
}
