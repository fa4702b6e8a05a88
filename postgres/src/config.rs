//! The managed settings, `PGDATA/pgtandem.conf`, and its place as the last include of
//! `postgresql.conf`. Lines of the user are never touched.
//!
//! What must hold: what was written can be read back, so that a restarted keeper knows what the file
//! says (rule 9: it is not written again before the signs of its last content were seen). Not here:
//! which settings there are, reloads, and `postgresql.auto.conf`, which still wins over this file (see
//! [`crate::session::Session::setting`]).

use crate::datadir::{DataDir, FILE_MODE};
use crate::durable::{self, DurableError, Written};
use crate::owner::Owner;
use std::path::PathBuf;
use std::{fs, io};

/// The managed file.
pub const FILE: &str = "pgtandem.conf";

const HEADER: &str = "# Managed by pgtandem: changes made here are lost. Your own settings belong into postgresql.conf.\n";
const NOTE: &str = "# pgtandem: ";
const INCLUDE_COMMENT: &str = "# pgtandem: managed settings, kept as the last line";
const INCLUDE: &str = "include_if_exists = 'pgtandem.conf'";

/// Why the managed settings cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Cannot be written.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// Not as we write it.
    #[error("line {line} of {FILE} was not written by pgtandem: '{text}'")]
    Unreadable {
        /// From 1.
        line: usize,
        /// What it says.
        text: String,
    },
}

/// The settings, in order, and notes of our own that PostgreSQL does not see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagedConfig {
    settings: Vec<(String, String)>,
    notes: Vec<(String, String)>,
}

impl ManagedConfig {
    /// Sets a setting; one that is there already keeps its place.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        put(&mut self.settings, name.into(), value.into());
        self
    }

    /// Writes a note, such as the generation that the settings belong to.
    pub fn set_note(&mut self, key: impl Into<String>, value: impl Into<String>) -> &mut Self {
        put(&mut self.notes, key.into(), value.into());
        self
    }

    /// The value of a setting.
    pub fn setting(&self, name: &str) -> Option<&str> {
        find(&self.settings, name)
    }

    /// The value of a note.
    pub fn note(&self, key: &str) -> Option<&str> {
        find(&self.notes, key)
    }

    /// All settings, in order.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The file's content.
    pub fn render(&self) -> String {
        let mut text = String::from(HEADER);
        for (key, value) in &self.notes {
            text.extend([NOTE, key, " = ", &quote(value), "\n"]);
        }
        for (name, value) in &self.settings {
            text.extend([name, " = ", &quote(value), "\n"]);
        }
        text
    }

    /// Reads what [`Self::render`] wrote.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for (index, line) in text.lines().enumerate() {
            let (list, rest) = match line.strip_prefix(NOTE) {
                Some(rest) => (&mut config.notes, rest),
                None if line.starts_with('#') || line.is_empty() => continue,
                None => (&mut config.settings, line),
            };
            let pair =
                rest.split_once(" = ").and_then(|(name, value)| Some((name, unquote(value)?)));
            let Some((name, value)) = pair else {
                return Err(ConfigError::Unreadable { line: index + 1, text: line.to_owned() });
            };
            put(list, name.to_owned(), value);
        }
        Ok(config)
    }

    /// What the managed file of a data directory says; `None` where there is none. Blocks.
    pub fn read(dir: &DataDir) -> Result<Option<Self>, ConfigError> {
        let path = dir.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ConfigError::Read { path, source }),
        }
    }

    /// Writes the managed file durably. Blocks.
    pub fn write(&self, dir: &DataDir, owner: &Owner) -> Result<Written, ConfigError> {
        Ok(durable::write(&dir.join(FILE), self.render().as_bytes(), FILE_MODE, owner)?)
    }
}

/// Makes the managed file the last include of `postgresql.conf`, so that its settings win over all
/// others in there. Lines appended behind it stay; it is moved behind them. Blocks.
pub fn ensure_included(dir: &DataDir, owner: &Owner) -> Result<Written, ConfigError> {
    let path = dir.join("postgresql.conf");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(source) => return Err(ConfigError::Read { path, source }),
    };
    Ok(durable::write(&path, &with_include(&text), FILE_MODE, owner)?)
}

/// Bytes, since a user's comment may be in any encoding.
fn with_include(text: &[u8]) -> Vec<u8> {
    let is_ours = |line: &[u8]| {
        let line = line.trim_ascii();
        line == INCLUDE.as_bytes() || line == INCLUDE_COMMENT.as_bytes()
    };
    let is_setting = |line: &&[u8]| {
        let line = line.trim_ascii();
        !line.is_empty() && !line.starts_with(b"#")
    };
    let lines = || text.split_inclusive(|byte| *byte == b'\n');
    let includes = lines().filter(|line| line.trim_ascii() == INCLUDE.as_bytes()).count();
    let last_is_ours = lines().rfind(is_setting).is_some_and(is_ours);
    if last_is_ours && includes == 1 {
        return text.to_vec();
    }
    let mut result: Vec<u8> = lines().filter(|line| !is_ours(line)).flatten().copied().collect();
    if !result.is_empty() && !result.ends_with(b"\n") {
        result.push(b'\n');
    }
    result.extend_from_slice(format!("{INCLUDE_COMMENT}\n{INCLUDE}\n").as_bytes());
    result
}

fn put(list: &mut Vec<(String, String)>, name: String, value: String) {
    match list.iter_mut().find(|(present, _)| *present == name) {
        Some((_, present)) => *present = value,
        None => list.push((name, value)),
    }
}

fn find<'a>(list: &'a [(String, String)], name: &str) -> Option<&'a str> {
    list.iter().find(|(present, _)| present == name).map(|(_, value)| value.as_str())
}

/// A quoted value as PostgreSQL's guc-file.l reads it: `''` is a quote, `\` begins an escape.
fn quote(value: &str) -> String {
    let mut text = String::from("'");
    for c in value.chars() {
        match c {
            '\'' => text.push_str("''"),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            other => text.push(other),
        }
    }
    text.push('\'');
    text
}

fn unquote(text: &str) -> Option<String> {
    let inner = text.strip_prefix('\'')?.strip_suffix('\'')?;
    let mut value = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        value.push(match c {
            '\'' => chars.next().filter(|next| *next == '\'')?,
            '\\' => match chars.next()? {
                'n' => '\n',
                'r' => '\r',
                '\\' => '\\',
                _ => return None,
            },
            other => other,
        });
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_read_back(values: Vec<String>) {
            let mut config = ManagedConfig::default();
            for (index, value) in values.iter().enumerate() {
                config.set(format!("name_{index}"), value).set_note(format!("note{index}"), value);
            }
            prop_assert_eq!(ManagedConfig::parse(&config.render()).unwrap(), config);
        }

        #[test]
        fn including_is_idempotent_and_touches_no_other_line(
            lines in prop::collection::vec(
                prop_oneof![
                    Just("port = 5432".to_owned()),
                    Just("# comment".to_owned()),
                    Just(String::new()),
                    Just(INCLUDE.to_owned()),
                    Just(INCLUDE_COMMENT.to_owned()),
                    "[a-z#' =]{0,12}",
                ],
                0..12,
            ),
        ) {
            let text = lines.join("\n");
            let once = with_include(text.as_bytes());
            prop_assert_eq!(&with_include(&once), &once);
            let once = String::from_utf8(once).unwrap();
            let users = |text: &str| -> Vec<String> {
                text.lines()
                    .filter(|line| !matches!(line.trim(), INCLUDE | INCLUDE_COMMENT))
                    .map(str::to_owned)
                    .collect()
            };
            prop_assert_eq!(users(&once), users(&text));
            let last = once.lines().rfind(|l| !l.trim().is_empty() && !l.trim().starts_with('#'));
            prop_assert_eq!(last, Some(INCLUDE));
        }
    }

    #[test]
    fn a_value_keeps_its_place_when_set_again() {
        let mut config = ManagedConfig::default();
        config.set("a", "1").set("b", "it's").set("a", "2").set_note("gen", "7");
        assert!(config.render().ends_with("# pgtandem: gen = '7'\na = '2'\nb = 'it''s'\n"));
        assert_eq!(config.setting("a"), Some("2"));
        assert_eq!(config.note("gen"), Some("7"));
        assert_eq!(config.setting("gen"), None);
    }

    #[test]
    fn foreign_lines_are_refused() {
        assert!(ManagedConfig::parse("a = 1\n").is_err());
    }

    #[test]
    fn an_include_before_the_users_lines_is_moved() {
        let text = format!("a = 1\n{INCLUDE_COMMENT}\n{INCLUDE}\nb = 2 # caf\u{e9}");
        let moved = String::from_utf8(with_include(text.as_bytes())).unwrap();
        assert_eq!(moved, format!("a = 1\nb = 2 # caf\u{e9}\n{INCLUDE_COMMENT}\n{INCLUDE}\n"));
    }
}
