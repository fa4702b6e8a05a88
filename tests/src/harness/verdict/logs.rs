//! Log lines that nobody expected.
//!
//! Our own programs log an error only where a person has to look. PostgreSQL logs every refused
//! connection as FATAL; what it has to say about the faults of these tests stands below, each with
//! its reason, and everything else is a finding.

use anyhow::Result;
use std::fs;
use std::path::Path;

/// A text that makes an error line harmless.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Part of the line.
    pub text: &'static str,
    /// The reason.
    pub why: &'static str,
}

const fn expected(text: &'static str, why: &'static str) -> Expected {
    Expected { text, why }
}

/// What PostgreSQL says about the faults that the tests make, in any test.
const ALWAYS: &[Expected] = &[
    expected("FATAL:  the database system is", "clients that come while it starts or stops"),
    expected("FATAL:  terminating connection due to", "clients at a stop, standbys at a conflict"),
    expected("FATAL:  canceling authentication due to", "clients that log in while it stops"),
    expected("FATAL:  connection to client lost", "clients and keepers that were killed"),
    expected("FATAL:  terminating walreceiver", "an upstream that stopped, or a standby that does"),
    expected("FATAL:  terminating background worker", "at a stop"),
    expected("FATAL:  terminating autovacuum process", "at a stop"),
    expected("FATAL:  postmaster exited during", "children of a killed postmaster"),
    expected("FATAL:  could not connect to the primary server", "a standby of a dead primary"),
    expected("FATAL:  streaming replication receiver", "a standby of a dead primary"),
    expected("FATAL:  could not receive data from WAL stream", "a primary that died"),
    expected("FATAL:  could not send data to WAL stream", "a primary that died"),
    expected("FATAL:  could not send end-of-streaming message", "a primary that died"),
    expected("FATAL:  archive command was terminated", "one that would have held up a stop"),
    expected("FATAL:  archive command failed with exit code 126", "the gate, asked during a stop"),
    expected("FATAL:  unexpected postmaster exit", "children of a killed postmaster"),
    expected(
        "\"_sqlx_migrations\" does not exist",
        "the monitor's first look at an empty database",
    ),
    // The slot is the admission (docs/safety.md, rule 10): without it, PostgreSQL refuses to stream.
    expected("replication slot \"pgtandem_", "a standby that is not admitted yet, or no more"),
    expected("read-only transaction", "writers that ask a primary that is one no more"),
    expected("ERROR:  canceling statement due to user request", "a probe that was not needed"),
    expected("ERROR:  canceling statement due to conflict with recovery", "readers on a standby"),
];

/// The lines of a log that are errors and that nobody expected.
pub fn unexpected(path: &Path, also: &[Expected]) -> Result<Vec<String>> {
    let bytes = fs::read(path)?;
    Ok(unexpected_in(&String::from_utf8_lossy(&bytes), also))
}

fn unexpected_in(text: &str, also: &[Expected]) -> Vec<String> {
    let is_error = |line: &&str| {
        let ours = line.contains(" ERROR ");
        let postgres =
            ["ERROR:  ", "FATAL:  ", "PANIC:  "].iter().any(|level| line.contains(level));
        ours || postgres || line.contains("panicked at")
    };
    // An error of PostgreSQL that one of our programs shows in a record of its own is that
    // program's to judge.
    let is_quoted = |line: &&str| {
        let level = line.split_whitespace().nth(1).unwrap_or_default();
        ["TRACE", "DEBUG", "INFO", "WARN"].contains(&level)
    };
    let is_expected =
        |line: &&str| ALWAYS.iter().chain(also).any(|expected| line.contains(expected.text));
    text.lines()
        .filter(|line| is_error(line) && !is_quoted(line) && !is_expected(line))
        .map(str::to_owned)
        .collect()
}

/// The last lines of a log.
pub fn tail(path: &Path, count: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unexpected_errors_are_findings() {
        let fine = "\
2026-01-02T03:04:05.000006Z  INFO keeper: node1 is the primary
2026-01-02T03:04:05.000006Z  WARN keeper: psql said: ERROR:  no
2026-01-02 03:04:05.678 UTC [12] LOG:  database system was interrupted
2026-01-02 03:04:05.678 UTC [12] a@b FATAL:  the database system is starting up";
        assert_eq!(unexpected_in(fine, &[]), Vec::<String>::new());
        for line in [
            "2026-01-02T03:04:05.000006Z ERROR keeper: node1 cannot run Postgres",
            "2026-01-02 03:04:05.678 UTC [12] PANIC:  could not write to file",
            "2026-01-02 03:04:05.678 UTC [12] a@b ERROR:  relation does not exist",
            "thread 'main' panicked at src/main.rs:1:1:",
        ] {
            assert_eq!(unexpected_in(&format!("{fine}\n{line}\n"), &[]), [line]);
        }
    }

    #[test]
    fn a_test_can_expect_more() {
        let also = [expected("relation does not exist", "the test dropped it")];
        assert!(unexpected_in("1 2 ERROR:  relation does not exist", &also).is_empty());
    }

    #[test]
    fn tails_are_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        fs::write(&path, "1\n2\n3\n").unwrap();
        assert_eq!(tail(&path, 2), "2\n3");
        assert_eq!(tail(&path, 9), "1\n2\n3");
        assert_eq!(tail(&dir.path().join("none.log"), 2), "");
    }
}
