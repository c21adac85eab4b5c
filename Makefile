# carillon: build, tests and gates. `make help` lists the targets.
#
# Objects go to $(O), never into the tree; two builds with different O do not disturb each other. Sources are found by
# wildcard: a new .c in a known folder is built, a new tests/unit/<folder>/test_*.c is a test. Packages are installed by
# tests/tools/deps.sh, called by the targets that need them; it does nothing when all is there.

VERSION := 0.1.0

O      ?= build
CC     := $(if $(filter default,$(origin CC)),gcc,$(CC))
CLANG  ?= clang-14
WERROR ?= 1
JOBS   ?= $(shell nproc)
PREFIX ?= /usr/local
CACHE  ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/carillon
SANITIZE ?=
FUZZ_SECONDS ?= 60

export CARILLON_CACHE := $(CACHE)
MAKEFLAGS += --no-print-directory
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(JOBS)
endif
.DELETE_ON_ERROR:
.SECONDARY:
.DEFAULT_GOAL := build

# ---- flags ----------------------------------------------------------------------------------------------------------

PKGS := libuv libcurl libmicrohttpd gnutls jansson yaml-0.1 libxxhash libcrypto libssl glib-2.0 libmariadb libprotobuf-c raft liblz4
# Not by pkg-config: grpc.pc names some eighty libraries of Abseil, which libgrpc.so finds by itself.
GRPC_LIBS := -lgrpc -lgpr
# It has no .pc file.
PARSER_LIBS := -lhttp_parser

# Empty, so that a file's own `#define _GNU_SOURCE` is no redefinition.
CPPFLAGS_ALL := -D_GNU_SOURCE= -DCARILLON_VERSION='"$(VERSION)"' -I. $(CPPFLAGS)
WARN := -Wall -Wextra -Wshadow -Wformat=2 -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wswitch-enum \
        $(if $(filter 1,$(WERROR)),-Werror)
CFLAGS  ?= -O2 -g
CFLAGS_ALL = -std=gnu11 $(CFLAGS) $(WARN) -fno-common -fno-omit-frame-pointer -ffunction-sections -pthread $(SAN_CFLAGS)
# Two hundred tests are linked several times in a run; gold takes a third of the time. The program keeps the default.
TEST_LD := $(if $(shell command -v ld.gold),-fuse-ld=gold)
LDFLAGS_ALL = -pthread -Wl,--as-needed $(SAN_CFLAGS) $(LDFLAGS)
SAN_CFLAGS = $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all)
# The program itself is linked hardened; sanitizers bring their own checks and fight with fortify.
CFLAGS_REL = $(if $(SANITIZE),,-fstack-protector-strong -D_FORTIFY_SOURCE=2)

# pkg-config's answers, kept in a file: making that file is what installs the build packages. The libraries' headers are
# system headers to us (-isystem), so their own conversions do not fail our build.
NEEDS_NO_FLAGS := help clean format check-format check-size check-layers check-ban check-faults deps test
ifneq ($(filter-out $(NEEDS_NO_FLAGS),$(or $(MAKECMDGOALS),build)),)
-include $(O)/flags.mk
endif
$(O)/flags.mk: tests/tools/deps.sh Makefile
	@mkdir -p $(@D)
	@tests/tools/deps.sh build
	@{ echo "DEP_CFLAGS := $$(pkg-config --cflags $(PKGS) | sed 's/-I/-isystem /g')"; \
	   echo "DEP_LIBS := $$(pkg-config --libs $(PKGS)) $(GRPC_LIBS) $(PARSER_LIBS)"; \
	   echo "PROTO_DIR := $$(pkg-config --variable=includedir protobuf)"; } >$@.new && mv $@.new $@

# Objects depend on this file, so a change of compiler or flags rebuilds them.
$(O)/cflags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(CFLAGS_REL) $(DEP_CFLAGS) $(LDFLAGS_ALL)' | cmp -s - $@ || \
	 echo '$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(CFLAGS_REL) $(DEP_CFLAGS) $(LDFLAGS_ALL)' >$@

COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null)
$(O)/commit: FORCE
	@mkdir -p $(@D)
	@echo '$(COMMIT)' | cmp -s - $@ || echo '$(COMMIT)' >$@

# ---- sources: one static library a layer, lowest last ---------------------------------------------------------------

LAYERS := agent callback consul store io core base

SRC_base     := $(wildcard agent/base/*.c)
SRC_core     := $(wildcard agent/core/*.c agent/core/*/*.c)
SRC_io       := $(wildcard agent/io/*.c)
SRC_store    := $(wildcard agent/store/*.c agent/store/*/*.c)
SRC_consul   := $(wildcard consul/*.c)
SRC_callback := $(wildcard callback/*.c)
SRC_agent    := $(filter-out agent/main.c,$(wildcard agent/*.c agent/api/*.c agent/cli/*.c agent/ui/*.c))
SRC_ALL      := $(foreach l,$(LAYERS),$(SRC_$l)) $(wildcard agent/main.c)

# What a layer may link: itself and what lies under it; store, consul and callback never each other.
UNDER_base     := base
UNDER_core     := core base
UNDER_io       := io core base
UNDER_store    := store io core base
UNDER_consul   := consul io core base
UNDER_callback := callback io core base
UNDER_agent    := $(LAYERS)
LAYER_OF = $(if $(filter api cli ui,$1),agent,$1)

# Release objects are $(O)/agent/...; those of the tests, with the fault hooks compiled in, are $(O)/t/agent/...
libs = $(foreach l,$2,$1/lib$l.a)

define layer_template
$(O)/lib$1.a: $$(SRC_$1:%.c=$(O)/%.o) $(O)/members-$1
$(O)/t/lib$1.a: $$(SRC_$1:%.c=$(O)/t/%.o) $(O)/members-$1
endef
$(foreach l,$(LAYERS),$(eval $(call layer_template,$l)))
$(O)/t/libtest.a: $(patsubst %.c,$(O)/t/%.o,$(wildcard tests/lib/*.c))

# A library is made anew when its list of sources changes, so a removed or renamed file leaves it too.
$(O)/members-%: FORCE
	@mkdir -p $(@D)
	@echo '$(SRC_$*)' | cmp -s - $@ || echo '$(SRC_$*)' >$@

%.a:
	@mkdir -p $(@D) && rm -f $@
	@ar rcs $@ $(filter %.o,$^)

$(O)/%.o: %.c $(O)/cflags
	@mkdir -p $(@D)
	@echo "  CC    $<"
	@$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -Wconversion $(CFLAGS_REL) $(COMMIT_FLAG) $(PROTO_FLAGS) $(DEP_CFLAGS) -MMD -MP \
	    -c -o $@ $<

$(O)/t/%.o: %.c $(O)/cflags
	@mkdir -p $(@D)
	@echo "  CC t  $<"
	@$(CC) -DCARILLON_TEST $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(if $(filter tests/%,$<),,-Wconversion) $(COMMIT_FLAG) \
	    $(PROTO_FLAGS) $(DEP_CFLAGS) -MMD -MP -c -o $@ $<

# Only a version.c knows the commit: the others need not be rebuilt after each one.
VERSION_OBJS := $(patsubst %.c,$(O)/%.o,$(filter %/version.c,$(SRC_ALL))) \
                $(patsubst %.c,$(O)/t/%.o,$(filter %/version.c,$(SRC_ALL)))
$(VERSION_OBJS): COMMIT_FLAG = -DCARILLON_COMMIT='"$(COMMIT)"'
$(VERSION_OBJS): $(O)/commit
# Put into the program as it is (.incbin), which no dependency file tells.
$(O)/agent/api/ops.o $(O)/t/agent/api/ops.o: agent/api/openapi.yaml
$(O)/agent/api/ui.o $(O)/t/agent/api/ui.o: $(wildcard agent/api/ui/*)

# ---- protobuf: messages are compiled from callback/proto into $(O)/proto; their code is not ours to warn about ----------

PROTO := carillon/v1/callback google/protobuf/timestamp
PROTO_OBJS := $(PROTO:%=proto/%.pb-c.o)
# The files that include what is generated; they alone look into $(O)/proto.
PROTO_USERS := callback/fire_message.o tests/unit/callback/test_fire_message.o

$(O)/proto/%.pb-c.c $(O)/proto/%.pb-c.h: callback/proto/carillon/v1/callback.proto $(O)/cflags
	@mkdir -p $(O)/proto
	@echo "  PROTO $*.proto"
	@protoc-c --c_out=$(O)/proto -I callback/proto -I $(PROTO_DIR) $*.proto

$(PROTO_OBJS:%=$(O)/%) $(PROTO_OBJS:%=$(O)/t/%): $(O)/%.o:
	@mkdir -p $(@D)
	@$(CC) -std=gnu11 $(CFLAGS) -w -fno-omit-frame-pointer $(SAN_CFLAGS) $(DEP_CFLAGS) -I$(O)/proto -c -o $@ $<
$(foreach p,$(PROTO),$(eval $(O)/proto/$p.pb-c.o $(O)/t/proto/$p.pb-c.o: $(O)/proto/$p.pb-c.c $(PROTO:%=$(O)/proto/%.pb-c.h)))

PROTO_OUT := $(foreach f,$(PROTO_USERS),$(O)/$f $(O)/t/$f $(O)/lint/$(f:.o=.tidy))
$(PROTO_OUT): PROTO_FLAGS = -I$(O)/proto
$(PROTO_OUT): $(PROTO:%=$(O)/proto/%.pb-c.h)
$(O)/libcallback.a: $(PROTO_OBJS:%=$(O)/%)
$(O)/t/libcallback.a: $(PROTO_OBJS:%=$(O)/t/%)

PROGRAM := $(if $(wildcard agent/main.c),$(O)/carillon)

$(O)/carillon: $(O)/agent/main.o $(call libs,$(O),$(LAYERS))
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) -Wl,--gc-sections -Wl,-z,relro,-z,now -o $@ $^ $(DEP_LIBS) -lm

.PHONY: build
build: $(PROGRAM) $(call libs,$(O),$(LAYERS)) ## build the program $(O)/carillon

# ---- unit tests, simulations, fuzz targets over their corpus --------------------------------------------------------

UNIT_SRC := $(wildcard tests/unit/*/test_*.c tests/unit/*/*/test_*.c)
UNIT     := $(UNIT_SRC:%.c=$(O)/%)
SIM_SRC  := $(wildcard tests/sim/test_*.c)
SIM      := $(SIM_SRC:%.c=$(O)/%)
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ     := $(FUZZ_SRC:%.c=$(O)/%)
TSAN_SRC := $(wildcard tests/tsan/race_*.c)
TSAN     := $(TSAN_SRC:%.c=$(O)/%)
TOOL_SRC := $(wildcard tests/tools/*.c)
TOOLS    := $(TOOL_SRC:%.c=$(O)/%)
# Without the fault hooks: they are to be fast.
BENCH_SRC := $(filter-out tests/bench/bench.c,$(wildcard tests/bench/*.c))
BENCH     := $(BENCH_SRC:%.c=$(O)/%)

TEST_LIBS = $(call libs,$(O)/t,$(UNDER_$(call LAYER_OF,$(word 3,$(subst /, ,$1)))))
ALL_TEST_LIBS := $(call libs,$(O)/t,$(LAYERS))

define unit_template
$(1:%.c=$(O)/%): $(1:%.c=$(O)/t/%.o) $(O)/t/libtest.a $(call TEST_LIBS,$1)
endef
$(foreach t,$(UNIT_SRC),$(eval $(call unit_template,$t)))
$(UNIT): | $(O)/deps-test
# Without --gc-sections: it would throw Criterion's table of tests away.
$(UNIT):
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) $(TEST_LD) -o $@ $^ -lcriterion $(DEP_LIBS) -lm

SIM_IN := $(patsubst %.c,$(O)/t/%.o,$(wildcard tests/sim/*.c)) $(O)/t/libtest.a $(ALL_TEST_LIBS)
$(SIM): $(SIM_IN) | $(O)/deps-test
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) $(TEST_LD) -o $@ $^ -lcriterion $(DEP_LIBS) -lm

# With LIBFUZZER=1 (make fuzz) libFuzzer brings main(); otherwise a driver of ours replays the files it is given.
LIBFUZZER ?=
$(FUZZ): $(O)/tests/fuzz/%: $(O)/t/tests/fuzz/%.o $(if $(LIBFUZZER),,$(O)/t/tests/fuzz/replay.o) \
         $(O)/t/libtest.a $(ALL_TEST_LIBS)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) $(if $(LIBFUZZER),-fsanitize=fuzzer) -o $@ $^ $(DEP_LIBS) -lm

$(TSAN): $(O)/tests/tsan/%: $(O)/t/tests/tsan/%.o $(O)/t/libtest.a $(ALL_TEST_LIBS)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) -o $@ $^ $(DEP_LIBS) -lm

# Programs that tests outside C ask questions (tests/it finds them in $CARILLON_TOOLS).
$(TOOLS): $(O)/tests/tools/%: $(O)/t/tests/tools/%.o $(call libs,$(O)/t,consul $(UNDER_store))
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) -o $@ $^ $(DEP_LIBS) -lm

# The program with the store of the version before, for upgrades from the one to the other.
BEFORE := $(O)/tests/tools/carillon-1
$(O)/v1/libstore.a: $(SRC_store:%.c=$(O)/v1/%.o) $(O)/members-store
$(O)/v1/%.o: %.c $(O)/cflags
	@mkdir -p $(@D)
	@echo "  CC 1  $<"
	@$(CC) -DSTORE_VERSION=1 $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(CFLAGS_REL) $(DEP_CFLAGS) -MMD -MP -c -o $@ $<
$(BEFORE): $(O)/agent/main.o $(O)/libagent.a $(O)/libcallback.a $(O)/libconsul.a $(O)/v1/libstore.a $(call libs,$(O),io core base)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) -Wl,--gc-sections -o $@ $^ $(DEP_LIBS) -lm

# The generators, callee and raw limits of tests/bench.
$(BENCH): $(O)/tests/bench/%: $(O)/tests/bench/%.o $(O)/tests/bench/bench.o $(call libs,$(O),io core base) | $(O)/deps-test
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) -o $@ $^ $(DEP_LIBS) -lm
$(BENCH_SRC:%.c=$(O)/%.o): | $(O)/deps-test

$(UNIT_SRC:%.c=$(O)/t/%.o) $(SIM_SRC:%.c=$(O)/t/%.o) $(patsubst %.c,$(O)/t/%.o,$(wildcard tests/lib/*.c)): | $(O)/deps-test

.PHONY: check
# More than there are cores: many wait for disks, servers and clocks. Under sanitizers they compute.
UNIT_JOBS ?= $(shell expr $(if $(SANITIZE),1,2) \* $(JOBS))
check: $(UNIT) $(SIM) $(FUZZ) ## unit tests, simulations, every fuzz target over its corpus
	@tests/tools/run_unit.py --name $@ --results $(O)/results --jobs $(UNIT_JOBS) $(UNIT) $(SIM)
	@tests/tools/run_fuzz.py replay --jobs $(JOBS) $(FUZZ)

# ---- the same tests under sanitizers, with races, with the real binary ----------------------------------------------

.PHONY: check-asan build-asan check-tsan build-tsan check-it check-it-asan check-it-tsan check-clang fuzz coverage
# One make at a time in $(O)/asan: `make test` builds there beside what else it does. +: a make that a variable names shares our jobs too.
MAKE_ASAN = flock $(O)/asan.lock $(MAKE) O=$(O)/asan SANITIZE=address,undefined CFLAGS='-O1 -g1'
SAN_ENV = ASAN_OPTIONS=abort_on_error=1:detect_leaks=1:detect_stack_use_after_return=1:log_path=$(abspath $1)/x \
          UBSAN_OPTIONS=print_stacktrace=1:log_path=$(abspath $1)/x \
          LSAN_OPTIONS=suppressions=$(abspath tests/tools/lsan.supp):print_suppressions=0
# The last lines say what it was, for who sees only these.
SAN_REPORTS = if ls $1/x.* >/dev/null 2>&1; then head -n 60 $$(ls $1/x.* | head -n 3); \
              grep -h -m 1 -A 8 -e 'ERROR:' -e 'WARNING:' -e 'runtime error:' $$(ls $1/x.* | head -n 1); exit 1; fi
check-asan: ## check under AddressSanitizer and UBSan; any report fails
	@rm -rf $(O)/san && mkdir -p $(O)/san
	+@$(call SAN_ENV,$(O)/san) $(MAKE_ASAN) check; code=$$?; $(call SAN_REPORTS,$(O)/san); exit $$code

build-asan: ## the program with AddressSanitizer and UBSan, $(O)/asan/carillon
	+@mkdir -p $(O) && $(MAKE_ASAN) build

MAKE_TSAN = $(MAKE) O=$(O)/tsan SANITIZE=thread CFLAGS='-O1 -g1'
check-tsan: ## the programs of tests/tsan under ThreadSanitizer
	+@$(MAKE_TSAN) races

build-tsan: ## the program with ThreadSanitizer, $(O)/tsan/carillon
	+@$(MAKE_TSAN) build

.PHONY: races
races: $(TSAN)
	@tests/tools/run_races.sh $(TSAN)

check-clang: $(O)/deps-test ## everything compiles with clang under the same warnings
	@$(MAKE) O=$(O)/clang CC=$(CLANG) CFLAGS='-O0 -g0' build \
	    $(patsubst %,$(O)/clang/%,$(UNIT_SRC:%.c=%) $(SIM_SRC:%.c=%) $(BENCH_SRC:%.c=%))

# One for each set of Python packages, so that checkouts of different age share the cache.
VENV = $(CACHE)/venv-$(shell sha256sum <tests/tools/requirements.txt | cut -c1-12)
PYTEST = $(VENV)/bin/python -m pytest -o cache_dir=$(abspath $(O))/pytest
IT_ARGS ?=
# All of them: files side by side, each worker with servers of its own, as most of the time is waiting. Some: one by one.
IT_JOBS ?= $(if $(IT_ARGS),0,2)
check-it: build $(TOOLS) $(BEFORE) $(BENCH) $(O)/deps-it $(O)/deps-browser $(O)/deps-galera ## the real program with a real Consul, a real MariaDB and callees
	@mkdir -p $(O)/results
	@CARILLON_BINARY=$(abspath $(O))/carillon CARILLON_TOOLS=$(abspath $(O))/tests/tools \
	 CARILLON_BENCH=$(abspath $(O))/tests/bench CARILLON_RESULTS=$(abspath $(O))/results/check-it.json \
	 tests/tools/run_it.sh $(PYTEST) tests/it -n $(IT_JOBS) --dist loadfile --no-loadscope-reorder --durations=20 --timeout=900 $(IT_ARGS)

# Without an argument files that most of the program runs in, and that take seconds; IT_ASAN=tests/it: all of them.
IT_ASAN ?= $(patsubst %,tests/it/test_%.py,jobs retries grpc callee_tls)
check-it-asan: build-asan build $(TOOLS) $(BENCH) $(O)/deps-it ## end-to-end tests with the program under ASan and UBSan
	@rm -rf $(O)/san-it && mkdir -p $(O)/san-it $(O)/results
	@$(call SAN_ENV,$(O)/san-it) CARILLON_BINARY=$(abspath $(O))/asan/carillon CARILLON_TOOLS=$(abspath $(O))/tests/tools \
	 CARILLON_BENCH=$(abspath $(O))/tests/bench CARILLON_RESULTS=$(abspath $(O))/results/check-it-asan.json \
	 tests/tools/run_it.sh $(PYTEST) $(IT_ASAN) -n $(IT_JOBS) --dist loadfile --durations=10 --timeout=900 $(IT_ARGS); code=$$?; \
	 $(call SAN_REPORTS,$(O)/san-it); exit $$code

# Accesses that libraries make through calls that the sanitizer looks at are left out: gRPC's threads synchronise by what it does not see
# (tools/run_races.sh), and libuv closes files by bare system calls, so who gets the number next seems to race. What ours touch is looked
# at whoever calls us. setarch: as in run_races.sh.
TSAN_IT = second_deadlock_stack=1:history_size=4:exitcode=66:ignore_noninstrumented_modules=1
UNRANDOM = $$(setarch -R true 2>/dev/null && echo setarch -R)
# Files in which all of the program's threads run, on both stores; some four minutes, so it is no stage of `make test`.
IT_TSAN ?= $(patsubst %,tests/it/test_%.py,jobs rules fanout events grpc raft_cluster store_raft)
check-it-tsan: build-tsan build $(TOOLS) $(BENCH) $(O)/deps-it ## end-to-end tests with the program under ThreadSanitizer
	@rm -rf $(O)/tsan-it && mkdir -p $(O)/tsan-it
	@TSAN_OPTIONS=$(TSAN_IT):log_path=$(abspath $(O))/tsan-it/x \
	 CARILLON_BINARY=$(abspath $(O))/tsan/carillon CARILLON_TOOLS=$(abspath $(O))/tests/tools CARILLON_BENCH=$(abspath $(O))/tests/bench \
	 $(UNRANDOM) $(PYTEST) $(IT_TSAN) -n $(IT_JOBS) --dist loadfile --durations=10 --timeout=900 $(IT_ARGS); code=$$?; \
	 $(call SAN_REPORTS,$(O)/tsan-it); exit $$code

.PHONY: check-api
VENV_API = $(CACHE)/venv-api-$(shell sha256sum <tests/api/requirements.txt | cut -c1-12)
API_EXAMPLES ?= 6
API_STORE ?= raft
check-api: build $(O)/deps-it $(O)/deps-api ## schemathesis asks a running agent what openapi.yaml allows, and what not: API_EXAMPLES=100, API_STORE=mysql, SEED=n
	@CARILLON_BINARY=$(abspath $(O))/carillon $(VENV)/bin/python tests/api/check_api.py --schemathesis $(VENV_API)/bin/schemathesis \
	    --examples $(API_EXAMPLES) --store $(API_STORE) $(addprefix --seed ,$(or $(SEED),$(API_SEED))) \
	    --logs $(abspath $(O))/check-api --results $(abspath $(O))/results/check-api.json

.PHONY: bench bench-quick
BENCH_ARGS ?=
RUN_BENCH = CARILLON_BINARY=$(abspath $(O))/carillon CARILLON_BENCH=$(abspath $(O))/tests/bench \
            $(VENV)/bin/python tests/bench/bench.py --json $(O)/results/$@.json
bench: build $(BENCH) $(O)/deps-it ## measure everything, several times; takes the machine for the better part of an hour
	@mkdir -p $(O)/results
	@$(RUN_BENCH) --size full $(BENCH_ARGS)

bench-quick: build $(BENCH) $(O)/deps-it ## the main figures in about five minutes; BENCH_ARGS='--only steady --stores raft'
	@mkdir -p $(O)/results
	@$(RUN_BENCH) --size quick $(BENCH_ARGS)

ifneq ($(SIM),)
SIM_STORIES ?= 48
.PHONY: sim
sim: $(SIM) ## whole clusters on virtual time: SIM_STORIES of each kind, or the one of SEED=n (and SIM_KIND=name) with all its lines
	@$(if $(SEED),SEED=$(SEED) SIM_KIND=$(or $(SIM_KIND),all) $(SIM) --color=never --jobs 1, \
	 SIM_STORIES=$(SIM_STORIES) tests/tools/run_unit.py --name $@ --results $(O)/results --jobs $(JOBS) --verbose $(SIM))
endif

ifneq ($(SIM),)
# What a rare fault in them may cost is told in tests/sim/README.md.
FRESH_STORIES ?= 1
FRESH_LIVES   ?= 12
FRESH := $(SIM) $(O)/tests/unit/core/test_planner_model
.PHONY: fresh
fresh: $(FRESH) ## new seeds each time: FRESH_STORIES of each kind of the simulation, FRESH_LIVES of each weather of the planner's model
	@SIM_FRESH=1 SIM_STORIES=$(FRESH_STORIES) TEST_FRESH=1 TEST_COUNT=$(FRESH_LIVES) \
	 tests/tools/run_unit.py --name $@ --results $(O)/results --jobs $(JOBS) --verbose $(FRESH)
endif

ifneq ($(SIM),)
.PHONY: sim-mutants
sim-mutants: $(SIM) ## break one rule of the protocol at a time and count the stories until the simulation notices
	@tests/tools/sim_mutants.py --jobs $(JOBS) --compile '$(CC) -DCARILLON_TEST $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(DEP_CFLAGS)' \
	    --link '$(CC) $(LDFLAGS_ALL)' --inputs '$(SIM_IN) -lcriterion $(DEP_LIBS) -lm' $(MUTANT_ARGS)
endif

CHAOS_SECONDS ?= 40
STORE ?= mysql
REFUSER = $(O)/tests/chaos/refuse_connects.so
$(REFUSER): tests/chaos/refuse_connects.c $(O)/cflags | $(O)/deps-test
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) -std=gnu11 -O2 -Wall -Wextra -Wshadow -Wconversion -shared -fPIC -o $@ $<

.PHONY: chaos chaos-galera chaos-raft
chaos: build $(REFUSER) $(O)/deps-it $(if $(filter galera,$(STORE)),$(O)/deps-galera) ## real agents, Consul servers and a store (STORE=mysql, galera, raft); things go wrong for CHAOS_SECONDS; SEED=n, CHAOS_ARGS
	@CARILLON_BINARY=$(abspath $(O))/carillon CARILLON_REFUSER=$(abspath $(REFUSER)) \
	    $(VENV)/bin/python tests/chaos/chaos.py --store $(STORE) --seconds $(CHAOS_SECONDS) \
	    $(addprefix --seed ,$(or $(SEED),$(CHAOS_SEED))) --logs $(abspath $(O))/chaos \
	    --results $(abspath $(O))/results/chaos$(addprefix -,$(filter-out mysql,$(STORE))).json $(CHAOS_ARGS)

chaos-galera chaos-raft: chaos-%: ## the same for a short time on that store
	@$(MAKE) chaos STORE=$* CHAOS_SECONDS=10

.PHONY: model
model: $(O)/deps-test ## every state of the models of the ownership protocol; each of them broken on purpose must be caught
	@tests/model/model.py --work $(O)/model --jobs $(JOBS)

fuzz: $(O)/deps-test ## libFuzzer on every fuzz target, FUZZ_SECONDS each; finds go to tests/fuzz/corpus
	@ASAN_OPTIONS=detect_leaks=1 LSAN_OPTIONS=suppressions=$(abspath tests/tools/lsan.supp):print_suppressions=0 \
	 $(MAKE) O=$(O)/fuzz CC=$(CLANG) CFLAGS='-O1 -g1' LIBFUZZER=1 \
	    SANITIZE=fuzzer-no-link,address,undefined fuzz-run

.PHONY: fuzz-run
fuzz-run: $(FUZZ)
	@tests/tools/run_fuzz.py fuzz --jobs $(JOBS) --seconds $(FUZZ_SECONDS) $(FUZZ)

# ---- gates ----------------------------------------------------------------------------------------------------------

C_FILES := $(shell find agent consul callback tests -name '*.[ch]' 2>/dev/null | sort)

.PHONY: format check-format check-size check-layers check-faults check-ban lint
format: $(O)/deps-test ## rewrite the C files in the house format
	@clang-format-14 -i $(C_FILES)

check-format: $(O)/deps-test ## refuse C files that `make format` would change
	@$(if $(C_FILES),clang-format-14 --dry-run -Werror $(C_FILES))

check-size: ## refuse functions over 80 lines and files over 800
	@tests/tools/check_size.py

check-layers: ## refuse includes against the layers, header cycles, system access in agent/core
	@tests/tools/check_layers.py

check-faults: ## refuse a module that can fail and that no fault loop of a unit test reaches
	@tests/tools/check_faults.py

check-ban: ## refuse banned calls
	@tests/tools/check_ban.py

ifneq ($(wildcard tests/tools/check_options.py),)
.PHONY: check-options
check-options: build ## the option table against the manual and the configuration file that are made from it
	@tests/tools/check_options.py $(O)/carillon

.PHONY: options
options: build ## write configs/carillon.yaml and the README's table anew from the program's options
	@tests/tools/check_options.py --write $(O)/carillon
endif

# One stamp a file, so only what changed is looked at again.
LINT_SRC := $(SRC_ALL) $(wildcard tests/bench/*.c)
TIDY := $(LINT_SRC:%.c=$(O)/lint/%.tidy)
$(TIDY): $(O)/lint/%.tidy: %.c .clang-tidy $(O)/cflags | $(O)/deps-test
	@mkdir -p $(@D)
	@echo "  TIDY  $<"
	@tests/tools/tidy.sh $< -std=gnu11 $(CPPFLAGS_ALL) -DCARILLON_COMMIT='""' $(PROTO_FLAGS) $(DEP_CFLAGS)
	@$(CC) $(CPPFLAGS_ALL) $(PROTO_FLAGS) $(DEP_CFLAGS) -MM -MP -MT $@ -MF $@.d $<
	@touch $@

.PHONY: tidy cppcheck
tidy: $(TIDY)

cppcheck: $(O)/deps-test
	@mkdir -p $(O)/cppcheck
	@cppcheck -q -j$(JOBS) --cppcheck-build-dir=$(O)/cppcheck --std=c11 --language=c --error-exitcode=1 \
	    --enable=warning,performance,portability --inline-suppr --suppressions-list=tests/tools/cppcheck.supp \
	    -D_GNU_SOURCE= -DCARILLON_VERSION='"$(VERSION)"' -DCARILLON_COMMIT='""' -I. $(LINT_SRC)

lint: ## clang-tidy, cppcheck, banned calls
	@$(MAKE) -k check-ban tidy cppcheck

# Unit tests alone have to reach this much of the lines of agent/base and agent/core.
COVERAGE_FLOOR := 85
# Counters that are not atomic are some ten times cheaper, and nothing is lost that a percentage would show.
coverage: $(O)/deps-test ## line coverage of the unit tests; fails under the floor on agent/base and agent/core
	@find $(O)/cov -name '*.gcda' -delete 2>/dev/null || true
	@$(MAKE) O=$(O)/cov CFLAGS='-O1 -g1 --coverage -fprofile-update=single' LDFLAGS=--coverage check
	@tests/tools/coverage.sh $(O)/cov $(COVERAGE_FLOOR) agent/base agent/core

# ---- everything -----------------------------------------------------------------------------------------------------

STAGES := build check-format check-size check-layers check-faults $(if $(wildcard tests/tools/check_options.py),check-options) \
          check $(if $(SIM),sim fresh) model
# Side by side: what waits most of its time, and what computes all of it.
STAGES_WAITING := check-it chaos chaos-raft check-it-asan
STAGES_BUSY := check-clang lint $(if $(SIM),sim-mutants) check-asan build-asan $(if $(TSAN),check-tsan) $(if $(FUZZ),fuzz) coverage check-api

.PHONY: test
test: export FUZZ_SECONDS = 8
test: export IT_AGAIN = 5
test: export UNIT_AGAIN = 2
test: export MUTANT_ARGS = --common
test: export CHAOS_SEED = 394
test: export API_SEED = 8
test: export API_INFERRED = tell
test: deps ## what continuous integration runs: all check-… above, build, check, sim, model, chaos, lint, fuzz, coverage; and the counts
	@tests/tools/run_stages.py --results $(O)/results $(STAGES) --waiting $(STAGES_WAITING) --busy $(STAGES_BUSY)

# ---- to try it out --------------------------------------------------------------------------------------------------

ifneq ($(PROGRAM),)
.PHONY: run run-cluster
run: build $(O)/deps-it ## one agent with nothing else, a demo service, a few jobs
	@exec env CARILLON_BINARY=$(abspath $(O))/carillon $(VENV)/bin/python tests/tools/run_alone.py $(RUN_ARGS)

run-cluster: build $(O)/deps-it ## real Consul and MariaDB, three agents, two instances of a service, a few jobs
	@exec env CARILLON_BINARY=$(abspath $(O))/carillon $(VENV)/bin/python tests/tools/run_cluster.py $(RUN_ARGS)
endif

# ---- install --------------------------------------------------------------------------------------------------------

.PHONY: install
install: build ## install below $(DESTDIR)$(PREFIX)
	install -D -m 755 $(O)/carillon $(DESTDIR)$(PREFIX)/bin/carillon
	for file in $(filter-out %/README.md,$(wildcard configs/*)); do \
	    install -D -m 644 $$file $(DESTDIR)$(PREFIX)/share/carillon/$$file; done

.PHONY: image chart
image: build ## an OCI image of the program in $(O)/image, without a container engine
	@helm/image.py $(O)/carillon $(O)/image

chart: $(O)/deps-it ## package helm/carillon into $(O)
	@$(VENV)/bin/python -c 'import helm_python, sys; print(helm_python.package("helm/carillon", destination=sys.argv[1]))' $(O)

# ---- dependency stamps ----------------------------------------------------------------------------------------------

$(O)/deps-%: tests/tools/deps.sh tests/tools/requirements.txt
	@mkdir -p $(@D)
	@tests/tools/deps.sh $*
	@touch $@
$(O)/deps-api: tests/api/requirements.txt

.PHONY: deps
deps: ## install everything the targets need (packages, Consul, MariaDB, Python environment)
	@tests/tools/deps.sh build test it browser api galera

.PHONY: clean help FORCE
clean: ## remove $(O)
	rm -rf $(O)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

FORCE:

-include $(shell test -d $(O) && find $(O) \( -path $(O)/asan -o -path $(O)/tsan -o -path $(O)/cov -o -path $(O)/clang -o -path $(O)/fuzz \) -prune \
    -o -name '*.d' -print 2>/dev/null)
