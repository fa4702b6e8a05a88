//! How values and tables look to people.

use shared::api::Blocker;
use shared::ids::NodeName;

/// Rows under headings, in columns as wide as their widest value.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(ToString::to_string).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, values: Vec<String>) {
        self.rows.push(values);
    }

    /// The table as lines without trailing spaces.
    pub fn render(&self) -> String {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, value) in widths.iter_mut().zip(row) {
                *width = (*width).max(value.chars().count());
            }
        }
        let mut lines = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(value, width)| format!("{value:<width$}"));
            lines.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            lines.push('\n');
        }
        lines
    }
}

/// A value, or a dash.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// yes or no.
pub fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// Names, separated by commas.
pub fn names(names: &[NodeName]) -> String {
    names.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}

/// What stands in the way, and of whom.
pub fn blocker(blocker: &Blocker) -> String {
    match blocker.nodes.as_slice() {
        [] => blocker.text.clone(),
        nodes => format!("{} ({})", blocker.text, names(nodes)),
    }
}

/// A host and port; IPv6 addresses in brackets.
pub fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A number of bytes in the unit that says enough, as `pg_size_pretty` has it.
pub fn bytes(count: u64) -> String {
    let mut count = count;
    for unit in ["B", "kB", "MB", "GB"] {
        if count < 10 * 1024 {
            return format!("{count} {unit}");
        }
        count = (count + 512) / 1024;
    }
    format!("{count} TB")
}

/// A time span in the form in which settings are given.
pub fn duration(ms: u64) -> String {
    match ms {
        0 => "0ms".to_owned(),
        ms if ms % 60_000 == 0 => format!("{}min", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(
            [0, 10_239, 10_240, 16 << 20, 20 << 30].map(bytes),
            ["0 B", "10239 B", "10 kB", "16 MB", "20 GB"]
        );
        assert_eq!(
            [0, 500, 3000, 3500, 120_000].map(duration),
            ["0ms", "500ms", "3s", "3500ms", "2min"]
        );
        assert_eq!(host_port("fd00::1", 5432), "[fd00::1]:5432");
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["A", "Long"]);
        table.row(vec!["wide one".to_owned(), String::new()]);
        table.row(vec!["é".to_owned(), "x".to_owned()]);
        assert_eq!(table.render(), "A         Long\nwide one\né         x\n");
    }
}
