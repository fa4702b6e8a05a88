//! One hook as it is written: `EVENT=COMMAND` or `EVENT=URL`.
//!
//! A command is split into words as a shell would, and started without one: nothing in it is expanded, and
//! whoever wants a shell writes `sh -c '...'`. What must hold: neither a URL nor an argument is ever shown
//! whole, since both may carry secrets.

use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};
use std::fmt;
use url::Url;

/// A hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The event that it is for.
    pub event: String,
    /// What is done.
    pub target: Target,
    /// The hash of what was written.
    key: String,
}

/// What a hook does.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// Runs a program.
    Command {
        /// The program.
        program: String,
        /// Its arguments.
        arguments: Vec<String>,
    },
    /// Posts to a web server.
    Webhook(Url),
}

/// A hook that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHook {
    /// There is no `=`.
    #[error("a hook is written EVENT=COMMAND or EVENT=URL")]
    NoTarget,
    /// No event of this name.
    #[error("there is no event '{event}' for a hook; there are {known}")]
    Event {
        /// What was written.
        event: String,
        /// Those that there are.
        known: String,
    },
    /// Nothing behind the `=`.
    #[error("the hook of {0} says nothing to run: write {0}=COMMAND or {0}=URL")]
    Empty(String),
    /// A quote that does not end.
    #[error("the command of the {0} hook has a quotation mark without its counterpart")]
    Quote(String),
    /// The same again.
    #[error("the hook {0} is given twice: each is told everything once")]
    Twice(String),
    /// Another protocol.
    #[error(
        "the {0} hook has a URL that is neither http:// nor https://, and no others can be posted to"
    )]
    Scheme(String),
    /// A URL that is none.
    #[error("the URL of the {event} hook cannot be used: {why}")]
    Url {
        /// Of which event.
        event: String,
        /// Why not.
        why: String,
    },
}

impl Hook {
    /// Reads a hook; `known` are the events that there are.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, InvalidHook> {
        let (event, target) = text.split_once('=').ok_or(InvalidHook::NoTarget)?;
        let (event, target) = (event.trim().to_owned(), target.trim());
        if !known.contains(&event.as_str()) {
            return Err(InvalidHook::Event { event, known: known.join(", ") });
        }
        let target = if let Some(scheme) = scheme(target) {
            if !["http", "https"].contains(&scheme.as_str()) {
                return Err(InvalidHook::Scheme(event));
            }
            let url = target.parse::<Url>().map_err(|error| InvalidHook::Url {
                event: event.clone(),
                why: error.to_string(),
            })?;
            Target::Webhook(url)
        } else {
            let mut words = words(target).ok_or_else(|| InvalidHook::Quote(event.clone()))?;
            if words.is_empty() {
                return Err(InvalidHook::Empty(event));
            }
            let program = words.remove(0);
            Target::Command { program, arguments: words }
        };
        Ok(Self { event, target, key: format!("{:x}", Sha256::digest(text)) })
    }

    /// Reads several; an empty line is none.
    pub fn parse_all(texts: &[String], known: &[&str]) -> Result<Vec<Self>, InvalidHook> {
        let mut hooks: Vec<Self> = Vec::new();
        for text in texts.iter().filter(|text| !text.trim().is_empty()) {
            let hook = Self::parse(text, known)?;
            // Two would share what is yet to be told to them.
            if hooks.contains(&hook) {
                return Err(InvalidHook::Twice(hook.to_string()));
            }
            hooks.push(hook);
        }
        Ok(hooks)
    }

    /// What tells it from other hooks, also after a restart: a hash of what was written, which may carry a secret,
    /// as 64 hexadecimal digits. Nobody who writes it down needs to hide it.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// What stands before `://`, in small letters, where that begins a URL.
fn scheme(target: &str) -> Option<String> {
    let (scheme, _) = target.split_once("://")?;
    let is_one = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    is_one.then(|| scheme.to_ascii_lowercase())
}

/// For a file of options, in which a list may stand, or one hook alone.
pub fn one_or_many<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a text is wanted, or a list of texts")]
    enum Hooks {
        One(String),
        Many(Vec<String>),
    }
    Ok(Some(match Hooks::deserialize(deserializer)? {
        Hooks::One(hook) => vec![hook],
        Hooks::Many(hooks) => hooks,
    }))
}

/// For people: the event, and as much of the target as is no secret.
impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.event, self.target)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { program, .. } => {
                f.write_str(program.rsplit('/').next().unwrap_or(program))
            }
            Self::Webhook(url) => {
                write!(f, "{}://{}", url.scheme(), url.host_str().unwrap_or_default())?;
                url.port().map_or(Ok(()), |port| write!(f, ":{port}"))
            }
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The words of a command line: blanks part them, quotation marks and backslashes keep blanks together, as in
/// a POSIX shell. `None` where a quotation mark has no counterpart.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(next) = characters.next() {
        match next {
            '\'' => {
                let word = word.get_or_insert_default();
                quoted(&mut characters, word, '\'')?;
            }
            '"' => {
                let word = word.get_or_insert_default();
                quoted(&mut characters, word, '"')?;
            }
            '\\' => word.get_or_insert_default().push(characters.next()?),
            blank if blank.is_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

/// Takes in what stands in quotation marks. Within double ones a backslash keeps `"` and `\` from meaning
/// anything.
fn quoted(characters: &mut std::str::Chars<'_>, word: &mut String, mark: char) -> Option<()> {
    loop {
        match characters.next()? {
            next if next == mark => return Some(()),
            '\\' if mark == '"' => match characters.next()? {
                next @ ('"' | '\\' | '$' | '`') => word.push(next),
                next => word.extend(['\\', next]),
            },
            next => word.push(next),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 2] = ["on_fence", "pre_promote"];

    #[test]
    fn commands_are_split_as_a_shell_does() {
        let split = |line: &str| words(line).unwrap();
        assert_eq!(split("/bin/x  a 'b c' d"), ["/bin/x", "a", "b c", "d"]);
        assert_eq!(
            split(r#"sh -c 'echo "$A" \n' "" a\ b"#),
            ["sh", "-c", r#"echo "$A" \n"#, "", "a b"]
        );
        assert_eq!(split(r#"x "a \" \\ \n""#), ["x", r#"a " \ \n"#]);
        assert_eq!(words("x 'a"), None);
        assert_eq!(words("x \\"), None);
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let error = |text: &str| Hook::parse(text, &KNOWN).unwrap_err().to_string();
        assert!(error("x").contains("EVENT=COMMAND"));
        assert!(error("on_fire=x").contains("on_fence, pre_promote"));
        assert!(error("on_fence= ").contains("nothing to run"));
        assert!(error("on_fence=a 'b").contains("quotation mark"));
        assert!(error("on_fence=http://").contains("cannot be used"));
        for line in ["on_fence=ftp://x/y", "on_fence=htps://x", "on_fence=FILE:///x"] {
            assert!(error(line).contains("neither http:// nor https://"), "{line}");
        }
        let shouted = Hook::parse("on_fence=HTTPS://x", &KNOWN).unwrap();
        assert!(matches!(shouted.target, Target::Webhook(_)), "{shouted:?}");
        let argument = Hook::parse("on_fence=/bin/x ftp://y", &KNOWN).unwrap();
        assert!(matches!(argument.target, Target::Command { .. }), "{argument:?}");
        let texts = ["on_fence=x secret", "", "pre_promote=x secret", "on_fence=x secret"];
        let texts = texts.map(str::to_owned);
        assert_eq!(Hook::parse_all(&texts[..3], &KNOWN).unwrap().len(), 2);
        let twice = Hook::parse_all(&texts, &KNOWN).unwrap_err().to_string();
        assert!(twice.contains("on_fence (x) is given twice"), "{twice}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let hook = |text: &str| Hook::parse(text, &KNOWN).unwrap();
        let shown = |hook: &Hook| format!("{hook} {:?}", hook.target);
        let webhook = hook("on_fence=http://user:secret@example:81/path/secret?token=secret");
        assert_eq!(shown(&webhook), "on_fence (http://example:81) http://example:81");
        let command = hook("on_fence=/usr/bin/alert --token secret");
        assert_eq!(shown(&command), "on_fence (alert) alert");
        let key = hook("on_fence=abc").key().to_owned();
        assert!(key.len() == 64 && !key.contains("abc"), "{key}");
        assert_ne!(key, hook("on_fence=abd").key());
    }
}
