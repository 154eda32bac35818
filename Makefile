# Makefile
#     Everything a developer does here, one word each; see README.md.
#
# The folders have Makefiles of their own, which this one calls.  The server is the one PG_CONFIG
# names (default: version 15 in Debian's place).  WERROR=1 makes warnings errors.
#
#   make                build all parts              make check-long   long property and crash tests
#   make install        install them (sudo)          make bench        benchmarks (BENCH=name: one)
#   make check          the tests, with set-up       make format       clang-format and perltidy
#     PROVE_TESTS='t/120_*.pl'                       make lint         what formatting cannot see
#   make check-dbt      the tests of the dbt package, with set-up (DBT_TESTS=test_first_model.py: some)
#   make check-models  the model checker spin on the locks of IMMEDIATE (tools/check-models --long: larger models)
#   make fuzz           random queries for half an hour (PGTRICKLE_FUZZ_SECONDS=n: others)
#   make sqlsmith       odd queries by SQLsmith against a server with stream tables
#   make constructs     docs/reference/constructs.md, from what the server says
#   make check-upgrade  pg_upgrade to 17, with stream tables (UPGRADE_TO=18); needs root
#   make check-pairs    servers of two versions, slots on standbys, failover (PAIR_WITH=17: not 18); needs root
#   make demo           the demo, with set-up        make clean
#   make bench-tpch     TPC-H at the scales 0.1 and 1 (TPCH_SCALES=0.1: one); half an hour, 6 GB of disk

include tools/flags.mk
export PG_CONFIG WERROR

# A folder takes part as soon as it has both a Makefile and something to compile.
PARTS := $(foreach part,proto decoder delta applier, \
	$(if $(and $(wildcard $(part)/Makefile),$(wildcard $(part)/*.c)),$(part)))
INSTALLED_PARTS := $(filter-out proto,$(PARTS))

all: $(PARTS)

$(PARTS):
	$(MAKE) -C $@ all

# The others use what proto/ generates.
$(INSTALLED_PARTS): $(filter proto,$(PARTS))

install: all
	@set -e; for part in $(INSTALLED_PARTS); do $(MAKE) -C $$part install; done

uninstall:
	@set -e; for part in $(INSTALLED_PARTS); do $(MAKE) -C $$part uninstall; done

clean:
	@set -e; for part in $(PARTS); do $(MAKE) -C $$part clean; done
	rm -rf build tmp_check

check:
	tools/test $(PROVE_TESTS)

# Tests without a server, in the folders that have some.
UNIT_TESTED := $(foreach part,$(PARTS),$(if $(shell grep -l '^check:' $(part)/Makefile),$(part)))
check-units: all
	@set -e; for part in $(UNIT_TESTED); do $(MAKE) -C $$part check; done

check-dbt:
	tools/check-dbt $(DBT_TESTS)

check-models:
	tools/check-models

UPGRADE_TO ?= 17
check-upgrade:
	tools/check-upgrade $(UPGRADE_TO)

PAIR_WITH ?= 18
check-pairs:
	tools/check-upgrade $(PAIR_WITH) t/640_standbys.pl t/641_versions.pl t/642_source_failover.pl t/643_topologies.pl

check-long:
	PGTRICKLE_LONG=1 tools/test $(if $(PROVE_TESTS),$(PROVE_TESTS),t/3*.pl t/4*.pl)

fuzz:
	PGTRICKLE_LONG=1 tools/test t/401_fuzz.pl

sqlsmith:
	PGTRICKLE_SQLSMITH_QUERIES=200000 tools/test t/404_sqlsmith.pl

constructs:
	mkdir -p build && rm -f build/constructs.md && install -m 666 /dev/null build/constructs.md
	PGTRICKLE_CONSTRUCTS=$(CURDIR)/build/constructs.md tools/test t/091_constructs.pl
	cp build/constructs.md docs/reference/constructs.md

demo:
	tools/demo $(DEMO_OPTIONS)

bench:
	tools/bench $(BENCH)

TPCH_SCALES ?= 0.1 1
bench-tpch:
	TPCH_SCALES="$(TPCH_SCALES)" tools/bench tpch

format:
	tools/format

lint:
	tools/lint

.PHONY: all install uninstall clean check check-dbt check-models check-pairs check-units check-upgrade check-long fuzz sqlsmith constructs demo bench bench-tpch format lint $(PARTS)
