# make run and make test are all that a user needs; each installs what is missing, builds and runs.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# Debian packages: program or pkg-config module to look for, and the package that has it.
BUILD_NEEDS := clang:clang make:make cc:gcc pkg-config:pkg-config
BUILD_LIBRARIES := libelf:libelf-dev zlib:zlib1g-dev
# Tests on this machine's own devices, with independent witnesses. tests/vm.mk has those of other kernels.
TEST_NEEDS := fio:fio mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs faketime:faketime losetup:mount jq:jq script:bsdutils setpriv:util-linux python3:python3-venv \
	chromium:chromium systemd-analyze:systemd tmux:tmux java:openjdk-17-jre-headless
LINT_NEEDS := clang-format:clang-format shellcheck:shellcheck

# What the README's examples and the tests' second opinions need: engines of docs/fleet.md among them.
PYTHON := $(CURDIR)/.cache/python/bin
PYTHON_NEEDS := pandas duckdb numpy chdb pyspark
# Says which of them are installed, so that a longer list is noticed.
PYTHON_READY := .cache/python/has$(subst $() $(),-,$(PYTHON_NEEDS:%=-%))

SUDO := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=CI,PATH)
CARGO ?= cargo
# cargo stays the user's; the programs that it starts run as root. cargo takes no empty runner.
ifneq ($(SUDO),)
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER = $(SUDO)
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER = $(SUDO)
endif

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

.PHONY: run
run: build ## measure this machine's disks in the terminal, and write tracepoints.jsonl here
	$(SUDO) target/release/blkiolatd run --print --output tracepoints.jsonl $(ARGS)

.PHONY: build
build: build-tools ## the release binaries, in target/release
	$(CARGO) build --release --locked

.PHONY: test
test: test-host test-kernels test-power test-many test-systemd ## everything: this kernel, other kernels, power failures, real systemds

.PHONY: test-host
test-host: build-tools test-host-tools $(PYTHON_READY) ## the tests on this machine's kernel
	PATH="$(PYTHON):$$PATH" $(CARGO) test --locked

.PHONY: fmt
fmt: lint-tools ## format Rust and C
	$(CARGO) fmt
	clang-format -i bpf/*.c bpf/*.h benches/bpf/*.c

.PHONY: lint
lint: build-tools lint-tools ## formatting, clippy and shellcheck; warnings are errors
	$(CARGO) fmt --check
	clang-format --dry-run -Werror bpf/*.c bpf/*.h benches/bpf/*.c
	$(CARGO) clippy --locked --all-targets -- -D warnings
	shellcheck -x $$(git ls-files 'tests/*' 'benches/*' .ci | xargs grep -lE '^#!/bin/(ba)?sh')

# $(call install_missing,NEEDS): apt-get only for what is missing.
define install_missing
	@missing=(); for need in $(1); do command -v "$${need%%:*}" >/dev/null || missing+=("$${need#*:}"); done; \
	if [ $${#missing[@]} -gt 0 ]; then \
	    echo "installing $${missing[*]}"; \
	    $(SUDO) apt-get -q update && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "$${missing[@]}"; \
	fi
endef

.PHONY: build-tools test-host-tools lint-tools
build-tools:
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust from https://rustup.rs (1.88 or newer), then run make again" >&2; exit 1; }
	$(call install_missing,$(BUILD_NEEDS))
	@missing=(); for need in $(BUILD_LIBRARIES); do pkg-config --exists "$${need%%:*}" || missing+=("$${need#*:}"); done; \
	if [ $${#missing[@]} -gt 0 ]; then \
	    echo "installing $${missing[*]}"; \
	    $(SUDO) apt-get -q update && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "$${missing[@]}"; \
	fi

test-host-tools:
	$(call install_missing,$(TEST_NEEDS))

$(PYTHON_READY):
	@python3 -c 'import ensurepip' 2>/dev/null || $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends python3-venv
	python3 -m venv .cache/python && $(PYTHON)/pip install --quiet $(PYTHON_NEEDS) && touch $@ || { rm -rf .cache/python; exit 1; }

lint-tools:
	$(call install_missing,$(LINT_NEEDS))

include packaging/packaging.mk
include tests/vm.mk
include tests/fuzz.mk
include tests/harden.mk
include benches/bench.mk
include benches/report.mk
