# aiod: set up, test, demonstrate, measure, install. `make help` lists the targets. All output is in .venv/, build/, dist/.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:

PYTHON ?= python3
CC := $(if $(filter default,$(origin CC)),cc,$(CC))
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
# Nothing is installed outside PREFIX, unless this says so.
SYSCONFDIR ?= $(if $(filter /usr,$(PREFIX)),/etc,$(PREFIX)/etc)
DESTDIR ?=
EXTRAS ?= daemon,metrics,systemd

# Here an error of the native build ends it; pip alone continues without native modules (pyproject.toml).
AIOD_NATIVE := 1

export PYTHON CC AIOD_NATIVE
# With it in the environment, every daemon that a test starts would compile aiod again.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
NATIVE_SOURCES := $(wildcard aiod/core/*.[ch] aiod/core/*/*.[ch] aiod/core/*.cpp clients/c/*.[ch] clients/c/include/*.h \
                  clients/python/aiod_client/*.[ch]pp protocol/*.def protocol/*.h protocol/*.hpp)
PACKAGES := $(filter-out %/__pycache__/,$(wildcard aiod/ aiod/*/ clients/python/aiod_client/ clients/python/aiod_client/*/ \
              protocol/aiod_protocol/))
C_FILES := $(wildcard aiod/core/*.[ch] aiod/core/*/*.[ch] aiod/core/*.cpp tests/*.h tests/core/*.[ch] tests/service/*.c \
           clients/c/*.[ch] clients/c/include/*.h clients/nbdkit/*.c clients/fio/*.c \
           clients/python/aiod_client/*.[ch]pp protocol/*.hpp \
           benchmarks/spawner/*.[ch] benchmarks/spawner/policies/*.c benchmarks/durable/*.c benchmarks/rings/*.c \
           benchmarks/vhost/*.[ch] benchmarks/guest/*.[ch] benchmarks/guest/inside/*.[ch] benchmarks/tcp/*.c)

.PHONY: help
help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/    make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

# ---- set-up ---------------------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(VENV)/.installed $(VENV)/.dev  ## .venv with aiod, aiodctl, the client and the development tools (editable)

# Recreated when its Python no longer exists.
$(VENV)/.created:
	@scripts/prerequisites.sh build
	@$(BIN)/python -c '' 2>/dev/null || { echo "creating $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@touch $@

# $(call pip_install_extras,EXTRA...): install what the extras of pyproject.toml name. With isolation: a requirement may
# have build requirements of its own.
define pip_install_extras
@echo "installing the packages of $(1) into $(VENV)"
@$(BIN)/python -c 'import sys, tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
    print(*p["dependencies"], *(q for extra in sys.argv[1:] for q in p["optional-dependencies"][extra]), sep="\n")' $(1) | \
    $(PIP) install --quiet --requirement /dev/stdin
@touch $@
endef

$(VENV)/.requirements: $(VENV)/.created pyproject.toml
	@scripts/prerequisites.sh build
	$(call pip_install_extras,build)

$(VENV)/.daemon: $(VENV)/.requirements pyproject.toml
	$(call pip_install_extras,daemon)

$(VENV)/.optional: $(VENV)/.installed pyproject.toml
	$(call pip_install_extras,metrics systemd)

# Without isolation, with the build requirements in .venv, so that a rebuild takes seconds. The editable install maps every
# module by name, so a new file in a directory needs a new install.
$(VENV)/.native: $(VENV)/.requirements pyproject.toml CMakeLists.txt aiod/__init__.py $(NATIVE_SOURCES) $(PACKAGES)
	@echo "building and installing aiod into $(VENV)"
	@$(PIP) install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

# The compiler runs while pip installs what the daemon imports.
$(VENV)/.installed: $(VENV)/.requirements $(NATIVE_SOURCES) $(PACKAGES) pyproject.toml CMakeLists.txt aiod/__init__.py
	@$(MAKE) --no-print-directory $(if $(findstring --jobserver,$(MAKEFLAGS)),,--jobs=2) $(VENV)/.native $(VENV)/.daemon
	@touch $@

$(VENV)/.dev: $(VENV)/.installed $(VENV)/.optional pyproject.toml
	$(call pip_install_extras,dev)

# atheris has wheels for some Pythons only, and builds with clang alone. tests/fuzz is skipped without it.
$(VENV)/.fuzz: $(VENV)/.dev pyproject.toml
	@echo "installing the packages of fuzz into $(VENV)"
	@$(PIP) install --quiet --only-binary=atheris --requirement <($(BIN)/python -c 'import tomllib; \
	    print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["fuzz"], sep="\n")') || \
	    echo "atheris is not available for $$($(BIN)/python -V): tests/fuzz will be skipped"
	@touch $@

# Without wheels for this Python the tests with these libraries are skipped.
$(VENV)/.peers: $(VENV)/.dev pyproject.toml
	@echo "installing the packages of peers into $(VENV)"
	@$(PIP) install --quiet --only-binary=:all: --requirement <($(BIN)/python -c 'import tomllib; \
	    print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["peers"], sep="\n")') || \
	    echo "a package of peers is not available for $$($(BIN)/python -V): tests with it will be skipped"
	@touch $@

# ---- tests ----------------------------------------------------------------------------------------------------------

JOBS ?= $(shell nproc)
# Tests wait more than they compute, so there are more of them at once than CPUs.
WORKERS ?= $(shell echo $$(($$(nproc) + 2)))
PYTEST ?=

# The core's C tests are tests of pytest, too (tests/core/test_programs.py); all three variants run beside the rest.
# The compiler works on the core while pip unpacks packages.
.PHONY: test test-packages collected-tests guest-kernel
test:  ## every test; some of them: make test PYTEST='-k flush' (any arguments of pytest)
	@scripts/prerequisites.sh build
	@scripts/prerequisites.sh test
	@$(MAKE) --no-print-directory --jobs=$(JOBS) test-packages guest-kernel \
	    $(if $(PYTEST),,collected-tests fio-engine-for-tests core-build)
	@$(BIN)/python -m pytest $(if $(findstring -n,$(PYTEST)),,--numprocesses $(WORKERS) --dist loadfile) $(PYTEST)

test-packages: setup $(VENV)/.fuzz $(VENV)/.peers

# Else each process of pytest-xdist compiles all test modules.
collected-tests: test-packages
	@mkdir -p build
	@$(BIN)/python -m pytest --quiet --collect-only >build/collected-tests || { cat build/collected-tests; false; }

guest-kernel:
	@scripts/guest-kernel.sh build/guest || echo "the test with a guest will be skipped"

# The core without Python: build/core/VARIANT/ for plain, ThreadSanitizer, AddressSanitizer with UBSan.
VARIANTS := plain tsan asan
FLAGS_plain := -O2
FLAGS_tsan := -O1 -fsanitize=thread
FLAGS_asan := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wsign-conversion -Wcast-qual -Wundef -Wformat=2 \
            -Wstrict-prototypes -Wmissing-prototypes
CORE_CFLAGS := -std=c11 -D_GNU_SOURCE -g -pthread -fPIC -Iaiod/core -Iclients/c/include -Iprotocol $(WARNINGS)
CORE_SOURCES := $(sort $(wildcard aiod/core/*.c aiod/core/*/*.c))
CORE_TESTS := $(sort $(wildcard tests/core/test_*.c))
CORE_TEST_HELPERS := $(sort $(filter-out $(CORE_TESTS),$(wildcard tests/core/*.c)))
LIBAIOD_SOURCES := $(sort $(filter-out clients/c/aiod-bench.c,$(wildcard clients/c/*.c)))
SERVICE_C_SOURCES := $(sort $(wildcard tests/service/*.c))
BENCH_SOURCES := $(sort $(wildcard benchmarks/spawner/*.c benchmarks/spawner/policies/*.c benchmarks/durable/*.c \
                  benchmarks/rings/*.c benchmarks/vhost/*.c benchmarks/guest/*.c \
                  benchmarks/guest/inside/*.c benchmarks/tcp/*.c))
CORE_HEADERS := $(wildcard aiod/core/*.h aiod/core/*/*.h clients/c/*.h clients/c/include/*.h tests/core/*.h protocol/*.def \
                protocol/*.h tests/patience.h)

.PHONY: core-test $(VARIANTS:%=core-test-%) core-build $(VARIANTS:%=core-build-%)
core-test: $(VARIANTS:%=core-test-%)  ## the core's C tests alone (no Python needed)
core-build: $(VARIANTS:%=core-build-%)

define VARIANT_RULES
build/core/$(1)/%.o: %.c $(CORE_HEADERS) Makefile | core-compiler
	@mkdir -p $$(@D)
	@$(CC) $(CORE_CFLAGS) $(FLAGS_$(1)) -c $$< -o $$@

# What tests is not what is tested: the compiler takes half the time without optimisation.
build/core/$(1)/tests/%.o: tests/%.c $(CORE_HEADERS) Makefile | core-compiler
	@mkdir -p $$(@D)
	@$(CC) $(CORE_CFLAGS) $(FLAGS_$(1)) -O0 -c $$< -o $$@

# One library for each variant: to link everything into each program takes a quarter of the build.
build/core/$(1)/libtested.so: $(patsubst %.c,build/core/$(1)/%.o,$(CORE_SOURCES) $(LIBAIOD_SOURCES) $(CORE_TEST_HELPERS))
	@$(CC) $(CORE_CFLAGS) $(FLAGS_$(1)) -shared $$^ -luring -o $$@

build/core/$(1)/test_%: build/core/$(1)/tests/core/test_%.o build/core/$(1)/libtested.so
	@$(CC) $(CORE_CFLAGS) $(FLAGS_$(1)) $$^ -Wl,-rpath,'$$$$ORIGIN' -o $$@

core-build-$(1): $(patsubst tests/core/%.c,build/core/$(1)/%,$(CORE_TESTS))

core-test-$(1): core-build-$(1)
	@tests/core/run.sh $(1) $(patsubst tests/core/%.c,build/core/$(1)/%,$(CORE_TESTS))
endef
$(foreach variant,$(VARIANTS),$(eval $(call VARIANT_RULES,$(variant))))
.SECONDARY:

# ---- libaiod and its load generator ------------------------------------------------------------------------------------

LIBAIOD_CFLAGS := -std=c11 -D_GNU_SOURCE -O2 -g -pthread -fPIC -Iclients/c/include $(WARNINGS)

.PHONY: libaiod
libaiod: build/libaiod.a build/libaiod.so build/aiod-bench  ## libaiod for C programs, and aiod-bench, its load generator

build/libaiod/%.o: clients/c/%.c $(wildcard clients/c/*.h clients/c/include/*.h protocol/*.def protocol/*.h) Makefile | core-compiler
	@mkdir -p $(@D)
	@$(CC) $(LIBAIOD_CFLAGS) $(CPPFLAGS) $(CFLAGS) -c $< -o $@

build/libaiod.a: $(patsubst clients/c/%.c,build/libaiod/%.o,$(LIBAIOD_SOURCES))
	@rm -f $@
	@ar rcs $@ $^

# The version of the binary interface: a new number for each change that breaks programs.
LIBAIOD_SONAME := libaiod.so.0

build/$(LIBAIOD_SONAME): $(patsubst clients/c/%.c,build/libaiod/%.o,$(LIBAIOD_SOURCES)) clients/c/libaiod.map
	@$(CC) -shared -pthread -Wl,-soname,$(LIBAIOD_SONAME) -Wl,--version-script=clients/c/libaiod.map -Wl,-z,defs \
	    $(LDFLAGS) $(filter %.o,$^) -o $@

build/libaiod.so: build/$(LIBAIOD_SONAME)
	@ln -sf $(LIBAIOD_SONAME) $@

# For programs in C alone: no Python is needed.
.PHONY: install-libaiod
install-libaiod: libaiod  ## headers, libaiod static and shared, aiod.pc, libaiod(3), aiod-bench (PREFIX, DESTDIR)
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig
	install -m 755 -D -t $(DESTDIR)$(PREFIX)/bin build/aiod-bench
	install -m 644 -D -t $(DESTDIR)$(PREFIX)/include clients/c/include/aiod.h clients/c/include/aiod_ring.h
	install -m 644 build/libaiod.a build/$(LIBAIOD_SONAME) $(DESTDIR)$(LIBDIR)
	ln -sf $(LIBAIOD_SONAME) $(DESTDIR)$(LIBDIR)/libaiod.so
	sed "s|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR:$(PREFIX)/%=\$${prefix}/%)|; s|@VERSION@|$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' aiod/__init__.py)|" \
	    clients/c/aiod.pc.in >$(DESTDIR)$(LIBDIR)/pkgconfig/aiod.pc
	install -m 644 -D -t $(DESTDIR)$(PREFIX)/share/man/man3 docs/man/libaiod.3

build/aiod-bench: build/libaiod/aiod-bench.o build/libaiod.a
	@$(CC) -pthread $^ -o $@

# A virtio-blk driver in user space, for vhost-user-blk.
build/vhost-bench: $(wildcard benchmarks/vhost/*.[ch]) Makefile | core-compiler
	@mkdir -p $(@D)
	@$(CC) -std=c11 -D_GNU_SOURCE -O2 -g -pthread $(WARNINGS) $(filter %.c,$^) -o $@

# The vcpu of python -m benchmarks.guest.bursts.
build/vcpu: $(wildcard benchmarks/guest/*.[ch] benchmarks/vhost/*.[ch]) build/libaiod.a Makefile | core-compiler
	@mkdir -p $(@D)
	@$(CC) -std=c11 -D_GNU_SOURCE -O2 -g -pthread -Iclients/c/include $(WARNINGS) $(wildcard benchmarks/guest/*.c) \
	    benchmarks/vhost/front.c benchmarks/vhost/queue.c build/libaiod.a -o $@

# ---- the plugin of nbdkit ----------------------------------------------------------------------------------------------

AIOD_VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' aiod/__init__.py)

.PHONY: nbdkit-plugin
nbdkit-plugin: build/nbdkit-aiod-plugin.so  ## NBD exports of an aiod daemon: nbdkit-aiod-plugin(1)

build/nbdkit-aiod-plugin.so: clients/nbdkit/plugin.c clients/nbdkit/plugin.map build/libaiod.a Makefile
	@scripts/prerequisites.sh nbdkit
	@$(CC) $(LIBAIOD_CFLAGS) -DAIOD_VERSION='"$(AIOD_VERSION)"' -shared -Wl,--version-script=clients/nbdkit/plugin.map \
	    $(LDFLAGS) $(filter %.c %.a,$^) -o $@ # nbdkit defines the functions of its own

# nbdkit looks for plugins in the folder that it was built with.
NBDKIT_PLUGIN_DIR = $(shell pkg-config --variable=plugindir nbdkit)

.PHONY: install-nbdkit-plugin
install-nbdkit-plugin: nbdkit-plugin  ## the plugin and its man page (NBDKIT_PLUGIN_DIR, PREFIX, DESTDIR)
	install -m 755 -D -t $(DESTDIR)$(NBDKIT_PLUGIN_DIR) build/nbdkit-aiod-plugin.so
	install -m 644 -D -t $(DESTDIR)$(PREFIX)/share/man/man1 docs/man/nbdkit-aiod-plugin.1

# Without $(WARNINGS): the macros of fio cause them.
.PHONY: fio-engine
fio-engine: build/fio-aiod.so  ## build/fio-aiod.so, fio's engine for aiod, from the sources of the installed fio (FIO_SOURCE)

# fio's sources arrive while the compiler works on the core.
.PHONY: fio-engine-for-tests
fio-engine-for-tests:
	@$(MAKE) --no-print-directory fio-engine || echo "the tests with fio's engine will be skipped"

build/fio-aiod.so: clients/fio/engine.c build/libaiod.a | core-compiler
	@scripts/fio-source.sh build/fio
	@$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -g -fPIC -shared -pthread -Wall -Wextra -include build/fio/config-host.h \
	    -isystem build/fio -Iclients/c/include $^ -Wl,--exclude-libs,ALL -o $@

.PHONY: core-compiler
core-compiler:
	@scripts/prerequisites.sh core

# ---- style ----------------------------------------------------------------------------------------------------------

.PHONY: lint
lint: lint-python lint-c  ## ruff, mypy, import contracts; compiler warnings as errors, clang-format

.PHONY: lint-python
lint-python: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: lint-c
lint-c: $(VENV)/.dev core-lint
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)

.PHONY: core-lint
core-lint: core-compiler
	@for source in $(CORE_SOURCES) $(LIBAIOD_SOURCES) clients/c/aiod-bench.c $(CORE_TESTS) $(CORE_TEST_HELPERS) \
	        $(SERVICE_C_SOURCES) $(BENCH_SOURCES); do \
	    $(CC) $(CORE_CFLAGS) -Werror -Ibenchmarks/spawner -O2 -c $$source -o /dev/null; done
	@scripts/prerequisites.sh nbdkit
	@$(CC) $(LIBAIOD_CFLAGS) -DAIOD_VERSION='""' -Werror -c clients/nbdkit/plugin.c -o /dev/null

.PHONY: format
format: setup  ## format Python and C code
	$(BIN)/ruff check --select I --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(C_FILES)

# ---- demonstrate and measure ----------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/.installed  ## copy Python's standard library through a new daemon, and compare every file
	@$(BIN)/python clients/python/examples/demo.py

# The peers that are Python packages.
$(VENV)/.bench: $(VENV)/.installed pyproject.toml
	$(call pip_install_extras,bench)

.PHONY: soak
SECONDS_OF_SOAK ?= 300
# The tests that use rounds() of tests/patience.
STORMS := test_directory_ops or test_ring_waiters or test_storm or test_stress or random_messages or interruption
soak: setup  ## long storms; verifying clients, while engines, daemons and clients are killed (SECONDS_OF_SOAK=300)
	@AIOD_TEST_ROUNDS=10 AIOD_TEST_TIMEOUT_FACTOR=10 $(BIN)/python -m pytest --numprocesses 2 tests/core/test_programs.py \
	    tests/service/test_malformed_messages.py tests/client/test_interrupted_anywhere.py \
	    tests/client/test_interrupted_awaited.py -k '$(STORMS)'
	@AIOD_TEST_NAMES=1000000 AIOD_TEST_TIMEOUT_FACTOR=10 $(BIN)/python -m pytest tests/service/test_large_directory.py
	@$(BIN)/python -m tests.soak --seconds $(SECONDS_OF_SOAK)

# few: within 3 minutes; some: about 15; all: an hour.
CELLS ?= $(if $(QUICK),few,some)

.PHONY: soak-cluster
soak-cluster: setup  ## two aiod hosts over a replicated GlusterFS: hosts are killed, cut off and frozen (SECONDS_OF_SOAK=300)
	@scripts/prerequisites.sh test
	@$(BIN)/python -m tests.cluster --seconds $(SECONDS_OF_SOAK)

.PHONY: bench
bench: setup $(VENV)/.bench build/aiod-bench  ## aiod beside its peers (QUICK=1: in 3 minutes; CELLS=few|some|all)
	@scripts/prerequisites.sh bench || echo "what is missing is left out"
	@$(MAKE) --no-print-directory fio-engine || echo "fio's engine for aiod is left out"
	@$(BIN)/python -m benchmarks.matrix --cells $(CELLS)

.PHONY: bench-report
bench-report: setup $(VENV)/.bench  ## docs/benchmarks/: the results and plots of the last make bench
	@$(BIN)/python -m benchmarks.matrix.report

.PHONY: bench-parts
bench-parts: setup $(VENV)/.bench $(VENV)/.peers build/aiod-bench build/vhost-bench build/vcpu  ## each part by itself: wire, spawner, flushes, rings, files, arrays, ...
	@scripts/prerequisites.sh bench
	@$(BIN)/python -m benchmarks
	@$(BIN)/python -m benchmarks.spawner
	@$(BIN)/python -m benchmarks.durable
	@$(BIN)/python -m benchmarks.ring
	@$(BIN)/python -m benchmarks.rings
	@$(BIN)/python -m benchmarks.files
	@$(BIN)/python -m benchmarks.arrays
	@$(BIN)/python -m benchmarks.fairness
	@$(BIN)/python -m benchmarks.rates
	@[ "$$(id -u)" != 0 ] || $(BIN)/python -m benchmarks.tcp
	@$(BIN)/python -m benchmarks.vhost
	@$(BIN)/python -m benchmarks.guest.bursts

# ---- install, release, clean ----------------------------------------------------------------------------------------

LIB := $(PREFIX)/lib/aiod
UNITS := aiod.service aiod@.service
UNIT_DIR := $(DESTDIR)$(PREFIX)/lib/systemd/system
MAN_PAGES := $(filter-out docs/man/libaiod.3,$(wildcard docs/man/*.[1358]))
COMPLETIONS := $(DESTDIR)$(PREFIX)/share/bash-completion/completions
ZSH_COMPLETIONS := $(DESTDIR)$(PREFIX)/share/zsh/$(if $(filter /usr,$(PREFIX)),vendor-completions,site-functions)
FISH_COMPLETIONS := $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d

# The units need EXTRAS=...,systemd: their type is notify.
.PHONY: install
install: install-libaiod install-files  ## commands, libaiod, units, man pages (PREFIX, DESTDIR, SYSCONFDIR, EXTRAS)
	@scripts/prerequisites.sh build
	scripts/install-venv.sh '$(DESTDIR)' '$(LIB)' '$(EXTRAS)'
	install -d $(DESTDIR)$(PREFIX)/bin
	ln -sf ../lib/aiod/bin/aiod ../lib/aiod/bin/aiodctl $(DESTDIR)$(PREFIX)/bin
	@$(MAKE) --silent install-completions AIODCTL='$(DESTDIR)$(LIB)/bin/python -m aiod.ctl'

# What is not built: units, configuration, man pages, monitoring.
.PHONY: install-files
install-files:
	install -m 644 -D -t $(UNIT_DIR) $(UNITS:%=systemd/%)
	sed -i 's|=/usr/bin/|=$(PREFIX)/bin/|' $(UNITS:%=$(UNIT_DIR)/%)
	[ '$(SYSCONFDIR)' = /etc ] || sed -i -e '/^ConfigurationDirectory=/d' \
	    -e 's|\$${CONFIGURATION_DIRECTORY}|$(SYSCONFDIR)/aiod|' $(UNITS:%=$(UNIT_DIR)/%)
	install -m 644 -D systemd/aiod.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/aiod.conf
	install -m 644 -D systemd/aiod.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/aiod.conf
	for page in $(MAN_PAGES); do install -m 644 -D -t $(DESTDIR)$(PREFIX)/share/man/man$${page##*.} $$page; done
	install -m 644 -D -t $(DESTDIR)$(PREFIX)/share/aiod/monitoring monitoring/*.json monitoring/*.yml
	install -m 755 -D -t $(DESTDIR)$(PREFIX)/share/aiod/monitoring/bpftrace monitoring/bpftrace/*.bt
	install -d $(DESTDIR)$(SYSCONFDIR)/aiod
	[ -e $(DESTDIR)$(SYSCONFDIR)/aiod/aiod.toml ] || \
	    install -m 644 conf/aiod.toml $(DESTDIR)$(SYSCONFDIR)/aiod/aiod.toml

# AIODCTL: a command that runs what is installed.
.PHONY: install-completions
install-completions:
	install -d $(COMPLETIONS) $(ZSH_COMPLETIONS) $(FISH_COMPLETIONS)
	_AIODCTL_COMPLETE=bash_source $(AIODCTL) >$(COMPLETIONS)/aiodctl
	_AIODCTL_COMPLETE=zsh_source $(AIODCTL) >$(ZSH_COMPLETIONS)/_aiodctl
	_AIODCTL_COMPLETE=fish_source $(AIODCTL) >$(FISH_COMPLETIONS)/aiodctl.fish

# The packages use Debian's own Python, whichever Python .venv has.
.PHONY: deb
deb:  ## build/packages/*.deb, for the Debian release that it is built on
	@scripts/prerequisites.sh deb
	@scripts/deb.sh

# Lintian, and installation, tests and purge in new systems of these releases.
RELEASES ?= bookworm trixie

.PHONY: deb-check
deb-check:  ## builds and checks the packages in new systems (RELEASES="bookworm trixie"); root only
	@scripts/deb-check.sh $(RELEASES)

$(VENV)/.release: $(VENV)/.created pyproject.toml
	$(call pip_install_extras,build release)

# The Pythons that the wheels are for; one from 3.12 on is enough for all from there on.
PYTHONS ?= $(PYTHON)

.PHONY: dist dist-check
dist: $(VENV)/.release  ## dist/: sdist and manylinux wheels (PYTHONS="python3.11 python3.12")
	@scripts/dist.sh $(BIN)/python $(PYTHONS)

dist-check: dist  ## each wheel in a clean environment, with the client's tests; the sdist without a compiler
	@scripts/dist-check.sh $(PYTHONS)

.PHONY: release
release: dist-check deb  ## dist/: sdist, wheels and packages of this version, built and checked (CONTRIBUTING.md)
	@scripts/release.sh

.PHONY: clean
clean:  ## remove everything that make has created
	rm -rf build dist $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
