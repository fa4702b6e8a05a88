#!/usr/bin/env bash
# Numbered rows by pgbench. It gives a client up whose connection is lost, whether or not it connects for
# each transaction (--connect), so a loop around it is what reconnects: short runs, one after the other.
#
#   pgbench.sh write URI    until standard input ends: a line for each attempt (docs/clients.md)
#   pgbench.sh read URI     what it was connected to: primary or standby
set -u
export LC_ALL=C
mode=$1
uri=$2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
run() { pgbench --no-vacuum --client 1 "$@" "$uri" </dev/null 2>&1 >/dev/null; }

if [ "$mode" = read ]; then
  # It prints no results, but it ends with an error where a division does.
  echo 'select 1 / pg_is_in_recovery()::int' >"$work/read.sql"
  if errors=$(run --transactions 1 --file "$work/read.sql"); then
    echo standby
  elif [[ "$errors" == *'division by zero'* ]]; then
    echo primary
  else
    echo "$errors" >&2
    exit 1
  fi
  exit
fi
# Waits a moment; ends with standard input.
pause() {
  read -r -t 0.05
  [ $? -gt 128 ]
}
id=0
while pause; do
  began=${EPOCHREALTIME/./}
  errors=$(run --transactions 10 --define "id=$id" --file "$here/pgbench.sql" --log --log-prefix "$work/log")
  code=$?
  why=${errors//$'\n'/ }
  # client, number, microseconds that it took, script, seconds, microseconds: of those that were done
  while read -r _ _ took _ second micros; do
    id=$((id + 1))
    ended=$((second * 1000000 + micros))
    outcome=acknowledged
    # It does not say which of them.
    if [[ "$errors" == *'synchronous replication'* ]]; then
      outcome='unknown committed there, but not waited for'
    fi
    echo "$((ended - took)) $ended $id $outcome"
    began=$ended
  done < <(cat "$work"/log.* 2>/dev/null)
  rm -f "$work"/log.*
  [ "$code" = 0 ] && continue
  id=$((id + 1))
  case "$errors" in
    *'could not create connection'* | *'could not connect'*) outcome=unreachable ;;
    *ERROR:*) outcome=refused ;;
    *) outcome=unknown ;;
  esac
  echo "$began ${EPOCHREALTIME/./} $id $outcome $why"
done
