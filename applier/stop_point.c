/*
 * applier/stop_point.c
 *     Named places where a test can kill the applier.
 */
#include "stop_point.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const char *const stop_point_names[] = {"before_fence",	"after_fence",	"before_execute",
											   "before_commit", "after_commit", "before_feedback",
											   "after_feedback"};

static const char *armed_name; /* NULL: none */
static long		   passes_left;

bool
stop_point_init(const char **problem)
{
	const char *setting = getenv("PGTRICKLE_STOP_AT");
	size_t		name_length;

	if (setting == NULL || setting[0] == '\0')
		return true;
	name_length = strcspn(setting, ":");
	passes_left = setting[name_length] == ':' ? strtol(setting + name_length + 1, NULL, 10) : 1;
	for (size_t i = 0; i < sizeof(stop_point_names) / sizeof(stop_point_names[0]); i++)
	{
		if (strlen(stop_point_names[i]) == name_length &&
			strncmp(stop_point_names[i], setting, name_length) == 0)
			armed_name = stop_point_names[i];
	}
	*problem = setting;
	return armed_name != NULL && passes_left > 0;
}

bool
stop_point_is_armed(const char *name)
{
	return armed_name != NULL && strcmp(armed_name, name) == 0;
}

void
stop_point_pass(const char *name)
{
	if (stop_point_is_armed(name) && --passes_left <= 0)
		raise(SIGKILL);
}
