# What a fresh Debian needs, and everything that is done with the source. `make` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PREFIX ?= /usr/local
ROUNDS ?= 20
WALKS ?= 1000000
MINUTES ?= 60
SEED ?=
CARGO ?= cargo
NEXTEST_PROFILE ?= default

SHARE = $(DESTDIR)$(PREFIX)/share
SHARED_DIRS := man/man1 bash-completion/completions zsh/site-functions fish/vendor_completions.d \
  pgtandem/hooks pgtandem/archive
# Our three programs; the workspace has others, for tests only.
PROGRAMS := pgtandem pgtandem-monitor pgtandem-keeper
# A backtrace for each error that a test waits out costs time and hides the message.
export RUST_LIB_BACKTRACE ?= 0

.PHONY: help setup build release demo test check-deep chaos calm first-hour coverage lint fmt bench-failover bench-clients install

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Installs what is missing of PostgreSQL and the build tools
	@.ci/setup

build: ## Builds everything, for tests
	$(CARGO) build --locked --workspace --bins

release: ## Builds the three programs as they are shipped
	$(CARGO) build --locked --release $(addprefix --bin ,$(PROGRAMS))

demo: setup release ## A whole cluster on this machine, a killed primary, the measured outage
	target/release/pgtandem demo

test: setup build ## All tests: units, stores, and real clusters
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  set -x; $(CARGO) nextest run --locked --workspace --profile $(NEXTEST_PROFILE); \
	else \
	  echo 'cargo-nextest is not installed: cargo test instead, clusters one after the other'; \
	  set -x; $(CARGO) test --locked --workspace --lib --bins --tests -- --test-threads 1; \
	fi
	$(CARGO) test --locked --workspace --doc

check-deep: ## The decision code in every state it can reach, and a million walks: docs/proof.md
	$(CARGO) build --locked --profile deep -p sim
	target/deep/sim deep
	target/deep/sim walk --seeds 0..$(WALKS)

chaos: setup build ## Faults of every kind at random, and the verdict: MINUTES=60 SEED=1
	target/debug/chaos --minutes $(MINUTES) $(addprefix --seed ,$(SEED))

calm: setup build ## Disturbances below the node timeout: nobody may be replaced. MINUTES=60 SEED=1
	target/debug/chaos calm --minutes $(MINUTES) $(addprefix --seed ,$(SEED))

first-hour: setup build ## Plays a first hour on a real cluster and writes docs/first-hour.md
	target/debug/first_hour

# Branches are counted by an unstable flag; searches visit the same code again, and slowly.
coverage: ## How much of the decision code the tests run (needs cargo-llvm-cov and llvm-tools)
	RUSTC_BOOTSTRAP=1 $(CARGO) llvm-cov nextest --branch --locked -p fsm -p sim --no-fail-fast \
	  -E 'not test(searches::)' --no-report
	RUSTC_BOOTSTRAP=1 $(CARGO) llvm-cov report --branch --summary-only \
	  --ignore-filename-regex '/(sim|shared|tests|\.cargo|rustc)/'

lint: ## What the gate says of form: format, clippy, documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --document-private-items

fmt: ## Formats the source
	$(CARGO) fmt --all

bench-failover: setup ## How long writes wait at a failover: ROUNDS=20 ONLY='cut off'
	$(CARGO) build --locked --release --workspace --bins
	target/release/bench_failover --rounds $(ROUNDS) $(if $(ONLY),--only '$(ONLY)')

bench-clients: ROUNDS = 10
bench-clients: setup ## What real clients see of a failover, for docs/clients.md: ROUNDS=10
	$(CARGO) build --locked --release --workspace --bins
	target/release/bench_clients --rounds $(ROUNDS)

install: release ## Installs programs, manual pages, completions and examples under PREFIX=/usr/local
	install -d '$(DESTDIR)$(PREFIX)/bin' $(patsubst %,'$(SHARE)/%',$(SHARED_DIRS))
	install -m 0755 $(addprefix target/release/,$(PROGRAMS)) '$(DESTDIR)$(PREFIX)/bin'
	install -m 0755 deploy/hooks/* '$(SHARE)/pgtandem/hooks'
	install -m 0755 deploy/archive/* '$(SHARE)/pgtandem/archive'
	for program in $(PROGRAMS); do \
	  run=target/release/$$program; \
	  $$run man --dir '$(SHARE)/man/man1' >/dev/null; \
	  $$run completions bash >'$(SHARE)/bash-completion/completions/'$$program; \
	  $$run completions zsh >'$(SHARE)/zsh/site-functions/_'$$program; \
	  $$run completions fish >'$(SHARE)/fish/vendor_completions.d/'$$program.fish; \
	done
