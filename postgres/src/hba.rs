//! The managed block of `pg_hba.conf`. It stands at the top, since PostgreSQL takes the first line
//! that matches; lines outside of it are never touched.
//!
//! Not here: which rules there are.

use crate::datadir::FILE_MODE;
use crate::durable::{self, DurableError, Written};
use crate::owner::Owner;
use std::path::{Path, PathBuf};
use std::{fs, io};

const BEGIN: &str = "# pgtandem: begin of managed rules, changes between these lines are lost";
const END: &str = "# pgtandem: end of managed rules";

/// Why the rules cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum HbaError {
    /// Cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A rule would not be one line.
    #[error("the rule '{0}' has a line break")]
    LineBreak(String),
    /// Cannot be written.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

/// Makes the managed block say `rules`; without rules there is no block. The server must be told to
/// reload when something `Changed`. Blocks.
pub fn apply(path: &Path, rules: &[String], owner: &Owner) -> Result<Written, HbaError> {
    if let Some(rule) = rules.iter().find(|rule| rule.contains(['\n', '\r'])) {
        return Err(HbaError::LineBreak(rule.clone()));
    }
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(HbaError::Read { path: path.to_owned(), source }),
    };
    Ok(durable::write(path, &with_block(&text, rules), FILE_MODE, owner)?)
}

/// Bytes, since a user's comment may be in any encoding.
fn with_block(text: &[u8], rules: &[String]) -> Vec<u8> {
    let mut result = Vec::new();
    if !rules.is_empty() {
        let block = format!("{BEGIN}\n{}\n{END}\n", rules.join("\n"));
        result.extend_from_slice(block.as_bytes());
    }
    result.extend(users_lines(text).into_iter().flatten());
    result
}

/// All lines outside of managed blocks. A begin whose end was deleted hides nothing: only its own line
/// goes.
fn users_lines(text: &[u8]) -> Vec<&[u8]> {
    let is = |line: &[u8], marker: &str| line.trim_ascii() == marker.as_bytes();
    let mut kept = Vec::new();
    let mut block: Option<Vec<&[u8]>> = None;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if is(line, BEGIN) {
            kept.extend(block.take().into_iter().flatten());
            block = Some(Vec::new());
        } else if is(line, END) {
            block = None;
        } else if let Some(inside) = &mut block {
            inside.push(line);
        } else {
            kept.push(line);
        }
    }
    kept.extend(block.into_iter().flatten());
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    proptest! {
        #[test]
        fn applying_is_idempotent_and_touches_no_other_line(
            text in "([a-z# \t]{0,8}\r?\n){0,8}[a-z#]{0,4}",
            first in prop::collection::vec("[a-z ]{1,8}", 0..4),
            second in prop::collection::vec("[a-z ]{1,8}", 0..4),
        ) {
            let once = with_block(text.as_bytes(), &first);
            prop_assert_eq!(&with_block(&once, &first), &once);
            let changed = with_block(&once, &second);
            prop_assert_eq!(&with_block(text.as_bytes(), &second), &changed);
            prop_assert_eq!(with_block(&changed, &[]), text.as_bytes());
        }
    }

    #[test]
    fn the_block_stands_at_the_top() {
        let text = b"local all all reject\n";
        let with = String::from_utf8(with_block(text, &rules(&["local all all peer"]))).unwrap();
        assert_eq!(with, format!("{BEGIN}\nlocal all all peer\n{END}\nlocal all all reject\n"));
    }

    #[test]
    fn a_begin_without_its_end_hides_no_line() {
        let text = format!("{BEGIN}\nlocal all all peer\nhost a\n");
        assert_eq!(with_block(text.as_bytes(), &[]), b"local all all peer\nhost a\n");
    }

    #[test]
    fn a_rule_is_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pg_hba.conf");
        let two = rules(&["local all all trust\nhost all all all trust"]);
        assert!(matches!(apply(&path, &two, &Owner::current()), Err(HbaError::LineBreak(_))));
    }
}
