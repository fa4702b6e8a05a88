#!/bin/sh
# Installs what building, testing and the demo need on Debian or Ubuntu. Does nothing where all is there.
set -eu

say() { echo "setup: $*" >&2; }

missing=""
find_postgres() {
	for dir in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -Vr); do
		[ -x "$dir/postgres" ] && [ -x "$dir/pg_rewind" ] && return 0
	done
	command -v postgres >/dev/null && command -v pg_rewind >/dev/null
}
find_postgres || missing="$missing postgresql"
command -v cc >/dev/null || missing="$missing gcc libc6-dev"

if [ -n "$missing" ]; then
	if ! command -v apt-get >/dev/null; then
		say "please install:$missing"
		exit 1
	fi
	as_root=""
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null || { say "please run as root: apt-get install$missing"; exit 1; }
		as_root="sudo"
	fi
	# PostgreSQL's package would make and start a cluster of its own: ours are made by the keepers.
	$as_root mkdir -p /etc/postgresql-common
	if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
		echo "create_main_cluster = false" | $as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
	fi
	say "installing:$missing"
	$as_root apt-get update -q
	# shellcheck disable=SC2086
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
fi

if ! command -v cargo >/dev/null; then
	say "there is no cargo; install Rust 1.95 or later with rustup, from https://rustup.rs"
	exit 1
fi
