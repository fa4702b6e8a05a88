# What a person or CI runs. `make demo` and `make test` do all the set-up themselves on a fresh Debian.

CARGO ?= cargo
PREFIX ?= /usr/local
ROUNDS ?= 20
BINARIES = pgtandem pgtandem-keeper pgtandem-monitor

.PHONY: help setup build demo test lint bench-failover install

help:
	@echo "make demo            a cluster on this machine, a killed primary, the measured outage"
	@echo "make test            everything that is tested: unit, property, simulation, real clusters"
	@echo "make lint            format, lints and documentation, with warnings denied"
	@echo "make build           the three programs, in target/release"
	@echo "make install         the same into PREFIX/bin (PREFIX=$(PREFIX))"
	@echo "make bench-failover  distributions of outages (ROUNDS=$(ROUNDS))"
	@echo "make setup           what all of these need; they call it themselves"

setup:
	@sh deploy/setup.sh

build: setup
	$(CARGO) build --release --bins -p monitor -p keeper -p ctl

demo: build
	target/release/pgtandem demo

test: setup
	$(CARGO) build --workspace --bins
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		$(CARGO) nextest run --workspace $(if $(CI),--profile ci); \
	else \
		$(CARGO) test --workspace --bins --lib --tests -- --test-threads 2; \
	fi
	$(CARGO) test --workspace --doc

lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items

bench-failover: build
	$(CARGO) build --release -p tests --bin bench_failover
	target/release/bench_failover --rounds $(ROUNDS)

install: build
	install -d $(DESTDIR)$(PREFIX)/bin
	cd target/release && install -m 755 $(BINARIES) $(DESTDIR)$(PREFIX)/bin
