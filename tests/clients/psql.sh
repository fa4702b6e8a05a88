#!/usr/bin/env bash
# Numbered rows by psql, each over a connection of its own, as scripts use it.
#
#   psql.sh write URI    until standard input ends: a line for each attempt (docs/clients.md)
#   psql.sh read URI     what it was connected to: primary or standby
set -u
export LC_ALL=C
mode=$1
uri=$2
id=0
# Says everything in one line, with when it began and ended in microseconds.
say() { # outcome number why
  local why=${3//$'\n'/ }
  printf '%s %s %s %s %s\n' "$began" "${EPOCHREALTIME/./}" "$2" "$1" "$why"
}
# Waits a moment; ends with standard input.
pause() {
  read -r -t 0.05
  [ $? -gt 128 ]
}
run() { psql -XqAt -v ON_ERROR_STOP=1 "$uri" -c "$1" </dev/null; }

if [ "$mode" = read ]; then
  run "select case when pg_is_in_recovery() then 'standby' else 'primary' end"
  exit
fi
while pause; do
  id=$((id + 1))
  began=${EPOCHREALTIME/./}
  errors=$(run "insert into client_rows (client, id) values ('psql', $id)" 2>&1)
  code=$?
  case "$code:$errors" in
    0:*'synchronous replication'*) say unknown "$id" 'committed there, but not waited for' ;;
    0:*) say acknowledged "$id" '' ;;
    *'connection to server at'*failed* | *'could not connect'*) say unreachable "$id" "$errors" ;;
    1:*ERROR:*) say refused "$id" "$errors" ;;
    *) say unknown "$id" "$errors" ;;
  esac
done
