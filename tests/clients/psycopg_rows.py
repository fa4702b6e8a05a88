"""Numbered rows by psycopg 3.

    psycopg_rows.py write URI    until standard input ends: a line for each attempt (docs/clients.md)
    psycopg_rows.py read URI     what it was connected to: primary or standby
"""

import select
import sys
import time

import psycopg

INSERT = "insert into client_rows (client, id) values ('psycopg', %s)"
WHERE = "select case when pg_is_in_recovery() then 'standby' else 'primary' end"


def now():
    return time.time_ns() // 1000


def say(began, number, outcome, why=""):
    why = " ".join(str(why).split())
    print(began, now(), number, outcome, why, flush=True)


def goes_on():
    """Waits a moment; false when standard input has ended."""
    return not select.select([sys.stdin], [], [], 0.05)[0]


class Writer:
    def __init__(self, uri):
        self.uri = uri
        self.connection = None
        self.warnings = []

    def connect(self):
        self.connection = psycopg.connect(self.uri, autocommit=True)
        # What a notice says can only be read in here.
        self.connection.add_notice_handler(lambda n: self.warnings.append(n.message_primary))

    def give_up(self):
        """Whatever went wrong, the next attempt looks for the primary anew."""
        self.connection.close()
        self.connection = None

    def write(self, number):
        began = now()
        try:
            if self.connection is None:
                self.connect()
        except psycopg.OperationalError as error:
            say(began, number, "unreachable", error)
            return
        self.warnings.clear()
        try:
            self.connection.execute(INSERT, (number,))
        except psycopg.Error as error:
            # After a lost connection nobody knows whether the commit was made.
            lost = self.connection.broken or self.connection.closed
            say(began, number, "unknown" if lost else "refused", error)
            self.give_up()
            return
        if any("synchronous replication" in warning for warning in self.warnings):
            say(began, number, "unknown", "committed there, but not waited for")
        else:
            say(began, number, "acknowledged")


def main():
    mode, uri = sys.argv[1:]
    if mode == "read":
        with psycopg.connect(uri) as connection:
            print(connection.execute(WHERE).fetchone()[0])
        return
    writer = Writer(uri)
    number = 0
    while goes_on():
        number += 1
        writer.write(number)


main()
