/*
 * applier/main.c
 *     The command line of the program pgtrickle.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "applier.h"
#include "command.h"
#include "copy_rate.h"
#include "stop_point.h"

#define MEGABYTE (UINT64_C(1024) * 1024)

typedef enum OptionKey
{
	OPTION_BUFFER_MB = 256,
	OPTION_SPILL_MB,
	OPTION_SPILL_DIR,
	OPTION_HEARTBEAT,
	OPTION_SPOOL_AFTER,
	OPTION_LOCK_TIMEOUT,
	OPTION_REMOTE_TIMEOUT,
	OPTION_ROLE,
	OPTION_FIX,
	OPTION_EXTENSION,
	OPTION_KEEP_ROLE,
	OPTION_TARGET,
	OPTION_SOURCE,
	OPTION_NAME,
	OPTION_PUBLICATION,
	OPTION_SCHEMA,
	OPTION_TABLE,
	OPTION_REMOTE,
	OPTION_JOBS,
	OPTION_RATE_LIMIT,
	OPTION_CHUNK_ROWS
} OptionKey;

static const struct option long_options[] = {
	{"dbname", required_argument, NULL, 'd'},
	{"slot", required_argument, NULL, 'S'},
	{"verbose", no_argument, NULL, 'v'},
	{"version", no_argument, NULL, 'V'},
	{"buffer-mb", required_argument, NULL, OPTION_BUFFER_MB},
	{"spill-mb", required_argument, NULL, OPTION_SPILL_MB},
	{"spill-dir", required_argument, NULL, OPTION_SPILL_DIR},
	{"heartbeat", required_argument, NULL, OPTION_HEARTBEAT},
	{"spool-after", required_argument, NULL, OPTION_SPOOL_AFTER},
	{"lock-timeout", required_argument, NULL, OPTION_LOCK_TIMEOUT},
	{"remote-timeout", required_argument, NULL, OPTION_REMOTE_TIMEOUT},
	{"role", required_argument, NULL, OPTION_ROLE},
	{"fix", no_argument, NULL, OPTION_FIX},
	{"extension", no_argument, NULL, OPTION_EXTENSION},
	{"keep-role", no_argument, NULL, OPTION_KEEP_ROLE},
	{"target", required_argument, NULL, OPTION_TARGET},
	{"source", required_argument, NULL, OPTION_SOURCE},
	{"name", required_argument, NULL, OPTION_NAME},
	{"publication", required_argument, NULL, OPTION_PUBLICATION},
	{"schema", required_argument, NULL, OPTION_SCHEMA},
	{"table", required_argument, NULL, OPTION_TABLE},
	{"remote", required_argument, NULL, OPTION_REMOTE},
	{"jobs", required_argument, NULL, OPTION_JOBS},
	{"rate-limit", required_argument, NULL, OPTION_RATE_LIMIT},
	{"chunk-rows", required_argument, NULL, OPTION_CHUNK_ROWS},
	{NULL, 0, NULL, 0}};

static int
run_command(const Options *options)
{
	return applier_run(options) == 0 ? EXIT_FINE : EXIT_PROBLEM;
}

/* `options`: the letters and keys that the subcommand takes, besides those that all take. */
typedef struct Command
{
	const char *name;
	int (*function)(const Options *options);
	const int  *options;
	const char *summary;
} Command;

static const int setup_options[] = {OPTION_ROLE,		OPTION_FIX,	   OPTION_SOURCE, OPTION_NAME,
									OPTION_PUBLICATION, OPTION_SCHEMA, OPTION_TABLE,  0};
static const int copy_options[] = {OPTION_REMOTE, OPTION_JOBS, OPTION_RATE_LIMIT, OPTION_CHUNK_ROWS,
								   0};
static const int run_options[] = {
	OPTION_BUFFER_MB,	OPTION_SPILL_MB,	 OPTION_SPILL_DIR,		OPTION_HEARTBEAT,
	OPTION_SPOOL_AFTER, OPTION_LOCK_TIMEOUT, OPTION_REMOTE_TIMEOUT, 0};
static const int no_options[] = {0};
static const int doctor_options[] = {OPTION_ROLE, 0};
static const int drop_options[] = {OPTION_ROLE, OPTION_KEEP_ROLE, OPTION_EXTENSION, OPTION_REMOTE,
								   0};

static const Command commands[] = {
	{"setup", command_setup, setup_options,
	 "make extension, role and replication slot; add a remote"},
	{"run", run_command, run_options, "keep stream tables up to date"},
	{"copy", command_copy, copy_options, "make and load the copies of remote tables"},
	{"status", command_status, no_options, "show slot, lag and stream tables"},
	{"doctor", command_doctor, doctor_options,
	 "check every precondition, and say how to repair it"},
	{"drop", command_drop, drop_options, "remove replication slot and role, or a remote"},
};

static void
print_help(void)
{
	puts("pgtrickle keeps stream tables up to date from the WAL.\n");
	puts("Usage:");
	puts("  pgtrickle COMMAND [OPTION]...\n");
	puts("Commands:");
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		printf("  %-8s %s\n", commands[i].name, commands[i].summary);
	puts("  version  show the version\n  help     show this help\n");
	puts("Options of all commands:");
	puts("  -d, --dbname=CONNSTR    database to connect to: name, connection string or URI");
	puts("      --target=CONNSTR    the same");
	puts(
		"  -S, --slot=NAME         replication slot (default: pgtrickle_ and the database's name)");
	puts("  -v, --verbose           say more\n");
	puts("Options of setup:");
	puts("      --role=NAME         role for the applier (default: " PGTRICKLE_ROLE_DEFAULT ")");
	puts("      --fix               change output_plugin_libraries if need be\n");
	puts("Options of setup for a remote, whose tables are copied to this database:");
	puts("      --source=CONNSTR    the remote, as seen from here");
	puts("      --name=NAME         its name (default: its database's)");
	puts("      --schema=NAME       copy all tables of this schema; may be repeated");
	puts("      --table=NAME        copy this table; may be repeated");
	puts("      --publication=NAME  use the server's own plugin pgoutput and this publication\n");
	puts("Options of copy:");
	puts("      --remote=NAME       only this one");
	puts("      --jobs=NUMBER       connections that copy at a time (default: 2)");
	puts("      --rate-limit=SIZE   bytes per second to read, such as 20MB (default: no limit)");
	puts("      --chunk-rows=NUMBER rows that are copied in one piece (default: 100000)\n");
	puts("Options of run:");
	puts(
		"      --buffer-mb=MB      memory for changes that wait; more goes to disk (default: 256)");
	puts("      --spill-mb=MB       disk for them; 0 is no limit (default: 0)");
	puts("      --spill-dir=DIR     where (default: TMPDIR, or /tmp)");
	puts("      --heartbeat=SECONDS persist progress so often when there is no tick (default: 10)");
	puts("      --spool-after=SECONDS keep changes that wait longer in the database (default: 60)");
	puts("      --lock-timeout=MS   how long a tick waits for a lock (default: 1000)");
	puts(
		"      --remote-timeout=SECONDS a remote that is silent for longer is gone (default: 60)\n");
	puts("Options of doctor:");
	puts("      --role=NAME         check this role (default: the one that connects)\n");
	puts("Options of drop:");
	puts("      --remote=NAME       drop this remote and its copies, nothing else");
	puts("      --role=NAME         role to drop (default: " PGTRICKLE_ROLE_DEFAULT ")");
	puts("      --keep-role         do not drop the role");
	puts(
		"      --extension         drop the extension too; stream tables become ordinary tables\n");
	puts("The environment variables of libpq (PGHOST, PGUSER, PGPASSFILE, ...) are used.");
}

static int
usage_error(const char *format, const char *what)
{
	fputs("pgtrickle: error: ", stderr);
	fprintf(stderr, format, what);
	fputs("\nHINT:  Try \"pgtrickle help\".\n", stderr);
	return EXIT_USAGE;
}

static bool
parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *number)
{
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return false;
	*number = strtoull(text, &end, 10);
	return *end == '\0' && *number >= min && *number <= max;
}

/* One more name; false when there are too many. */
static bool
add_name(const char **names, const char *name)
{
	size_t count = 0;

	while (names[count] != NULL)
		count++;
	if (count == NAMES_MAX || name[0] == '\0')
		return false;
	names[count] = name;
	return true;
}

static bool
is_common(int key)
{
	return key == OPTION_TARGET || key == 'd' || key == 'S' || key == 'v';
}

static bool
takes_option(const Command *command, int key)
{
	if (is_common(key))
		return true;
	for (const int *option = command->options; *option != 0; option++)
	{
		if (*option == key)
			return true;
	}
	return false;
}

static const char *
option_name(int key)
{
	for (const struct option *option = long_options; option->name != NULL; option++)
	{
		if (option->val == key)
			return option->name;
	}
	return "";
}

static bool
is_slot_name(const char *name)
{
	size_t length = strlen(name);

	return length > 0 && length < 64 &&
		   strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == length;
}

/* The options about remotes; false when the value is not one for this option. */
static bool
take_remote_option(Options *options, int key, const char *value)
{
	uint64_t number = 0;
	bool	 good = value[0] != '\0';

	switch (key)
	{
		case OPTION_SOURCE:
			options->source = value;
			break;
		case OPTION_NAME:
			options->name = value;
			break;
		case OPTION_PUBLICATION:
			options->publication = value;
			break;
		case OPTION_SCHEMA:
			good = add_name(options->schemas, value);
			break;
		case OPTION_TABLE:
			good = add_name(options->tables, value);
			break;
		case OPTION_REMOTE:
			options->remote = value;
			break;
		case OPTION_JOBS:
			good = parse_number(value, 1, 64, &number);
			options->jobs = (int) number;
			break;
		case OPTION_RATE_LIMIT:
			good = copy_rate_parse(value, &options->rate_bytes_max);
			break;
		default:
			good = parse_number(value, 1, 1000 * 1000 * 1000, &options->chunk_rows);
			break;
	}
	return good;
}

/* False when the value is not one for this option. */
static bool
take_option(Options *options, int key, const char *value)
{
	uint64_t number = 0;
	bool	 good = true;

	if (key > OPTION_TARGET)
		return take_remote_option(options, key, value);
	switch (key)
	{
		case 'd':
		case OPTION_TARGET:
			options->dbname = value;
			break;
		case 'S':
			options->slot = value;
			good = is_slot_name(value);
			break;
		case 'v':
			log_level_min = LEVEL_DEBUG;
			break;
		case OPTION_BUFFER_MB:
			good = parse_number(value, 1, 1024 * 1024, &number);
			options->buffer_bytes_max = number * MEGABYTE;
			break;
		case OPTION_SPILL_MB:
			good = parse_number(value, 0, 1024 * 1024 * 1024, &number);
			options->spill_bytes_max = number * MEGABYTE;
			break;
		case OPTION_SPILL_DIR:
			options->spill_directory = value;
			break;
		case OPTION_HEARTBEAT:
			good = parse_number(value, 1, 3600, &number);
			options->heartbeat_interval = (Micros) number * MICROS_PER_SECOND;
			break;
		case OPTION_SPOOL_AFTER:
			good = parse_number(value, 1, 7 * 24 * 3600, &number);
			options->spool_after = (Micros) number * MICROS_PER_SECOND;
			break;
		case OPTION_LOCK_TIMEOUT:
			good = parse_number(value, 1, 3600 * 1000, &number);
			options->lock_timeout_ms = (int) number;
			break;
		case OPTION_REMOTE_TIMEOUT:
			good = parse_number(value, 1, 3600, &number);
			options->remote_timeout = (Micros) number * MICROS_PER_SECOND;
			break;
		case OPTION_ROLE:
			options->role = value;
			good = value[0] != '\0';
			break;
		case OPTION_FIX:
			options->fix = true;
			break;
		case OPTION_EXTENSION:
			options->drop_extension = true;
			break;
		default:
			options->keep_role = true;
			break;
	}
	return good;
}

static int
run_with_options(const Command *command, int argc, char **argv)
{
	Options		options = {.buffer_bytes_max = 256 * MEGABYTE,
						   .heartbeat_interval = 10 * MICROS_PER_SECOND,
						   .spool_after = 60 * MICROS_PER_SECOND,
						   .lock_timeout_ms = 1000,
						   .remote_timeout = 60 * MICROS_PER_SECOND};
	const char *problem;
	int			key;

	opterr = 0;
	while ((key = getopt_long(argc, argv, "d:S:vV", long_options, NULL)) != -1)
	{
		if (key == '?')
			return usage_error("unknown or incomplete option \"%s\"", argv[optind - 1]);
		if (key == 'V')
		{
			puts("pgtrickle " PGTRICKLE_VERSION);
			return EXIT_FINE;
		}
		if (!takes_option(command, key))
			return usage_error("this command does not take --%s", option_name(key));
		if (!take_option(&options, key, optarg))
			return usage_error("bad value for --%s", option_name(key));
	}
	if (optind < argc)
		return usage_error("too many arguments, the first is \"%s\"", argv[optind]);
	if (!stop_point_init(&problem))
		return usage_error("PGTRICKLE_STOP_AT=%s names no stop point", problem);
	return command->function(&options);
}

int
main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-?") == 0)
	{
		print_help();
		return EXIT_FINE;
	}
	if (strcmp(name, "version") == 0 || strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
	{
		puts("pgtrickle " PGTRICKLE_VERSION);
		return EXIT_FINE;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
	{
		if (strcmp(name, commands[i].name) != 0)
			continue;
		for (int j = 2; j < argc; j++)
		{
			if (strcmp(argv[j], "--help") == 0)
			{
				print_help();
				return EXIT_FINE;
			}
		}
		return run_with_options(&commands[i], argc - 1, argv + 1);
	}
	if (name[0] == '\0')
		return usage_error("%s", "no command");
	return usage_error("unknown command \"%s\"", name);
}
