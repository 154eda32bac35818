# tools/flags.mk
#     Compiler flags that all folders share, so that "no warnings" means the same everywhere.
#
# Included by decoder/, delta/, applier/ and proto/ before anything else.  WERROR=1 (CI) turns
# warnings into errors.  Callbacks have signatures that others chose, hence no unused-parameter.

ifndef PG_CONFIG
PG_CONFIG := $(firstword $(wildcard /usr/lib/postgresql/15/bin/pg_config) \
	$(lastword $(sort $(wildcard /usr/lib/postgresql/*/bin/pg_config))) pg_config)
endif

PGT_WARNINGS = -Wall -Wextra -Wno-unused-parameter -Wno-declaration-after-statement
ifeq ($(WERROR),1)
PGT_WARNINGS += -Werror
endif

# For what the server loads: our calls mean our functions.  All modules of a backend and the server itself
# share one space of names, and two modules of ours contain the same files of proto/.
PGT_MODULE_LINK = -Wl,-Bsymbolic
