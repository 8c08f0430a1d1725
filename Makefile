# Makefile: builds msgsys with PGXS; `make help` lists the targets.

EXTENSION = msgsys
EXTENSION_VERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" msgsys.control)
MODULE_big = msgsys
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))
DATA_built = sql/msgsys--$(EXTENSION_VERSION).sql
DATA = $(wildcard sql/msgsys--*--*.sql)
EXTRA_CLEAN = $(DATA_built) results

REGRESS = create checks acknowledge rights channels webhooks
REGRESS_OPTS = --load-extension=msgsys
ISOLATION = cancel drop dedup
ISOLATION_OPTS = --load-extension=msgsys --inputdir=test --outputdir=output_iso

PG_CPPFLAGS = -Isrc -Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-field-initializers -Wno-sign-compare \
	-Wno-suggest-attribute=format
SHLIB_LINK = -lrdkafka -lcurl -lhiredis -lmicrohttpd -lcrypto
# TLS to Redis, where hiredis has it
ifeq ($(shell pkg-config --exists hiredis_ssl 2>/dev/null && echo yes),yes)
PG_CPPFLAGS += -DMSGSYS_HIREDIS_SSL
SHLIB_LINK += -lhiredis_ssl -lssl
endif

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)

ifneq ($(PGXS),)
# PGXS knows the flags; no LLVM bitcode, which would need another compiler.
override with_llvm = no
include $(PGXS)
else
# Nothing is installed yet: these targets install it, and start again.
all install installcheck: setup
	$(MAKE) $@
clean:
endif

$(OBJS): $(wildcard src/*.h)

# the pages at /ui and /docs; Swagger UI and uPlot are fetched from npm at the first build, where that is possible
pages := $(DESTDIR)$(datadir)/msgsys
ifneq ($(PGXS),)
all: pages/docs/swagger-ui-bundle.js.gz pages/ui/uplot.js.gz
pages/docs/swagger-ui-bundle.js.gz pages/ui/uplot.js.gz:
	test/tools/pages get
install: install-pages
.PHONY: install-pages
install-pages:
	$(MKDIR_P) '$(pages)/ui' '$(pages)/docs'
	$(INSTALL_DATA) pages/ui/* '$(pages)/ui/'
	$(INSTALL_DATA) pages/docs/* '$(pages)/docs/'
uninstall: uninstall-pages
.PHONY: uninstall-pages
uninstall-pages:
	rm -rf '$(pages)'
endif

sql/msgsys--$(EXTENSION_VERSION).sql: $(sort $(wildcard sql/install/*.sql))
	cat $^ >$@

.PHONY: help setup demo test test-cassert installcheck-postgres model mutants mutants-model flaky soak fuzz valgrind bench format lint dist distclean

help: ## list the targets
	@echo "all install installcheck clean: as in any extension of PostgreSQL (PG_CONFIG=... chooses the server)"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1: \2/p' Makefile

setup: ## install what building and testing need, from the system's packages
	@test/tools/setup

demo: setup ## show the main job at work, with a private PostgreSQL and a private Kafka
	@test/tools/demo

test: setup ## run every test, with private servers (T=file runs one)
	@test/tools/run-tests $(T)

test-cassert: setup ## run the tests on a PostgreSQL with assertions, built from source under .work (T=file runs one)
	@test/tools/test-cassert $(T)

installcheck-postgres: setup ## run PostgreSQL's own regression and isolation suites with msgsys and without
	@test/tools/postgres-suites

model: setup ## play random histories against a server and judge them (SECONDS=60 SEED=n; SEEDS=a,b or HISTORIES=file,file plays these; LONG=1 long ones)
	@MODEL_LONG=$(LONG) MODEL_SECONDS=$(or $(SECONDS),60) MODEL_SEED=$(SEED) MODEL_SEEDS=$(SEEDS) MODEL_HISTORIES=$(HISTORIES) test/tools/model

mutants: setup ## take one safety out at a time, and see that a test fails (NAMES=... takes those)
	@test/tools/mutants $(NAMES)

flaky: setup ## run the tests three times beside a load of 16 (T=... runs those; TIMES=3, LOAD=16)
	@test/tools/flaky $(T)

mutants-model: setup ## have the model look for mutants, ten minutes each at most (NAMES=... takes those)
	@test/tools/mutants model $(NAMES)

soak: setup ## run the long fault and load tests
	@SOAK=1 test/tools/run-tests $(T)

fuzz: setup ## send 10,000 malformed requests to the HTTP facade (FUZZ_SEED=n repeats a run)
	@FUZZ=10000 test/tools/run-tests test/t/107_fuzz.t

valgrind: setup ## run a server with its workers under valgrind's memcheck
	@test/tools/valgrind

bench: setup ## run every benchmark (bench/run NAME runs one)
	@bench/run all

format: setup ## indent the C sources as PostgreSQL's own
	@test/tools/indent

lint: ## look for mistakes: cppcheck, and the rules of the house
	@test/tools/lint

dist: ## make an archive of the sources, as PGXN takes it
	git archive --format zip --prefix=msgsys-$(EXTENSION_VERSION)/ -o msgsys-$(EXTENSION_VERSION).zip HEAD

distclean: clean ## remove all that was made, caches of the tests too
	rm -rf .work pages/docs/swagger-ui* pages/ui/uplot*
