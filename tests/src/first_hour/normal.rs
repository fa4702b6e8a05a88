//! Making two runs look the same: addresses become those of the story, and what no two runs have in common
//! becomes one value. Tables are aligned again.

use crate::harness::Cluster;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// All but addresses.
    All,
    /// All but what is measured as well.
    Volatile,
}

const TIME: &str = "2026-01-02T03:04:05.678Z";
const LSN: &str = "0/4000060";
/// What a number stands before where it is measured.
const UNITS: [&str; 9] = ["ms", "s", "seconds", "second", "B", "kB", "MB", "GB", "bytes"];

const LARGE_UNITS: [&str; 3] = ["kB", "MB", "GB"];
/// What a number stands behind where it is counted.
const COUNTED: [&str; 2] = ["operation", "generation"];

/// What is replaced.
#[derive(Debug)]
pub(super) struct Normal {
    addresses: Vec<(String, String)>,
    detail: Detail,
}

impl Normal {
    pub(super) fn of(cluster: &Cluster, detail: Detail) -> Self {
        let monitor = cluster.monitor().url().replace("http://", "");
        let mut addresses = vec![(monitor, "10.0.0.10:7432".to_owned())];
        for (number, node) in (11..).zip(cluster.nodes()) {
            addresses.push((node.address().to_string(), format!("10.0.0.{number}:5432")));
        }
        Self { addresses, detail }
    }

    pub(super) fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (real, told) in &self.addresses {
            text = text.replace(real, told);
        }
        let lines: Vec<_> = text.lines().map(|line| self.line(line)).collect();
        aligned(&lines).join("\n")
    }

    fn line(&self, line: &str) -> String {
        if self.detail == Detail::All {
            return line.to_owned();
        }
        let words: Vec<String> = line.split(' ').map(word).collect();
        let near = |index: Option<usize>| index.and_then(|index| words.get(index));
        let told = words.iter().enumerate().map(|(index, word)| {
            let before = near(index.checked_sub(1)).map_or("", |word| bare(word));
            let after = near(index.checked_add(1)).map_or("", |word| bare(word));
            figure(word, before, after)
        });
        number_of_event(told.collect::<Vec<_>>().join(" "))
    }
}

/// What is measured is nothing, and what is counted is the seventh.
fn figure(word: &str, before: &str, after: &str) -> String {
    let core = bare(word);
    match (is_number(core), is_number(before)) {
        (true, _) if UNITS.contains(&after) => word.replace(core, "0"),
        (true, _) if COUNTED.contains(&before) => word.replace(core, "7"),
        (false, true) if LARGE_UNITS.contains(&core) => word.replace(core, "B"),
        _ => word.to_owned(),
    }
}

/// An event begins with its number, at the right end of its column.
fn number_of_event(line: String) -> String {
    match line.trim_start().split_once("  ") {
        Some((number, rest)) if is_number(number) && rest.starts_with(TIME) => {
            format!("{:>6}  {rest}", 7)
        }
        _ => line,
    }
}

fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_ascii_alphanumeric())
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_digit() || c == '.')
}

fn is_lsn(text: &str) -> bool {
    let is_hex = |part: &str| {
        (1..=8).contains(&part.len())
            && part.chars().all(|c| c.is_ascii_digit() || "ABCDEF".contains(c))
    };
    text.split_once('/').is_some_and(|(high, low)| is_hex(high) && is_hex(low))
}

fn is_time(text: &str) -> bool {
    let digits = |c: char| c.is_ascii_digit() || "-T:.Z".contains(c);
    text.len() >= 20 && text.ends_with('Z') && text.chars().all(digits)
}

/// A word alone: times and positions.
fn word(word: &str) -> String {
    let core = bare(word);
    let position = core.rsplit_once(':').map_or(core, |(_, lsn)| lsn);
    if is_time(core) {
        word.replace(core, TIME)
    } else if is_lsn(position) {
        word.replace(position, LSN)
    } else {
        word.to_owned()
    }
}

/// The cells of a line of a table, which two blanks or more divide.
fn cells(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

/// Columns as wide as they have to be, in each run of lines with as many cells.
fn aligned(lines: &[String]) -> Vec<String> {
    let is_row = |line: &String| !line.starts_with(' ') && cells(line).len() > 2;
    let same = |a: &String, b: &String| is_row(a) && is_row(b) && cells(a).len() == cells(b).len();
    let mut all = Vec::new();
    for run in lines.chunk_by(same) {
        let rows: Vec<_> = run.iter().map(|line| cells(line)).collect();
        if !run.iter().all(is_row) {
            all.extend(run.iter().cloned());
            continue;
        }
        let width = |column: usize| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        for row in &rows {
            let padded = row.iter().enumerate().map(|(column, cell)| {
                format!("{cell:width$}", width = width(column).unwrap_or_default())
            });
            all.push(padded.collect::<Vec<_>>().join("  ").trim_end().to_owned());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> String {
        let addresses = vec![("127.0.0.1:24051".to_owned(), "10.0.0.11:5432".to_owned())];
        Normal { addresses, detail: Detail::Volatile }.text(text)
    }

    #[test]
    fn what_is_measured_is_the_same_each_time() {
        assert_eq!(normal("silent for 3200 ms, 17 B behind"), "silent for 0 ms, 0 B behind");
        assert_eq!(normal("operation 12 done: at 0/3045748."), "operation 7 done: at 0/4000060.");
        assert_eq!(normal("2026-11-26T08:56:29.404Z x"), format!("{TIME} x"));
        assert_eq!(normal("candidate-priority 10, 3 nodes"), "candidate-priority 10, 3 nodes");
    }

    #[test]
    fn tables_are_aligned_again() {
        let table =
            "Name   Host:Port        Timeline:LSN  Lag\nnode1  127.0.0.1:24051  1:0/3045748   12 B";
        let told =
            "Name   Host:Port       Timeline:LSN  Lag\nnode1  10.0.0.11:5432  1:0/4000060   0 B";
        assert_eq!(normal(table), told);
    }
}
