//! Files of options, such as `--config` names. What is wrong with one is said in one line, without its text: there
//! may be a secret in it.

use serde::de::DeserializeOwned;
use std::path::Path;

/// What a file says, or why it cannot be used.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    parse(&text)
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| {
        let why = without_value(&error.message().lines().collect::<Vec<_>>().join(" "));
        let before = error.span().and_then(|span| text.get(..span.start));
        before.map_or_else(|| why.clone(), |before| format!("{}: {why}", place(text, before)))
    })
}

/// `invalid type: string "...", expected u32` has the text of the file in it.
fn without_value(why: &str) -> String {
    let parts = why.split_once(": string \"");
    let parts = parts.and_then(|(what, rest)| Some((what, rest.rsplit_once("\", expected ")?.1)));
    parts
        .map_or_else(|| why.to_owned(), |(what, wanted)| format!("{what}: text, expected {wanted}"))
}

/// The line that a text breaks off in, and which option stands there.
fn place(text: &str, before: &str) -> String {
    let above = before.matches('\n').count();
    let line = text.lines().nth(above).unwrap_or_default();
    let key = line.split_once('=').map(|(key, _)| key.trim()).filter(|key| is_key(key));
    let key = key.map(|key| format!(", {key}")).unwrap_or_default();
    format!("line {}{key}", above + 1)
}

/// Whether it is a name, and no part of a value.
fn is_key(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || ['-', '_'].contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    #[expect(dead_code, reason = "read for its faults")]
    struct Options {
        hook: Vec<String>,
        hook_timeout: Option<u32>,
    }

    fn fault(text: &str) -> String {
        parse::<Options>(text).unwrap_err()
    }

    #[test]
    fn the_line_and_the_option_are_named() {
        let said = fault("hook = []\n\n  hook-timeout = '10s'\n");
        assert_eq!(said, "line 3, hook-timeout: invalid type: text, expected u32");
        let said = fault("hook = []\nhooks = ['x']\n");
        assert!(said.starts_with("line 2, hooks: unknown field `hooks`"), "{said}");
        assert!(fault("# nothing\n").contains("missing field `hook`"));
    }

    #[test]
    fn no_value_is_shown() {
        for text in [
            "hook = ['on_fence=http://user:secret@host/\n",
            "hook = 'http://user:secret@host/?a=b'\n",
            "hook = [\n  'http://user:secret@host/?a=b',\n  1]\n",
            "hook = [\n  http://user:secret@host/?a=b\n]\n",
            "hook http://user:secret@host/?a=b\n",
            "hocks = ['http://user:secret@host/?a=b']\n",
        ] {
            let said = fault(text);
            assert!(!said.contains("secret") && !said.contains('\n'), "{said}");
            assert!(said.starts_with("line "), "{said}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_no_file() {
        let said = read::<Options>(Path::new("/nonexistent/options.toml")).unwrap_err();
        assert_eq!(said, "No such file or directory (os error 2)");
    }
}
