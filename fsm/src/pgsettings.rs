//! Which settings of PostgreSQL an operator may give to a formation, and which values.
//!
//! What must hold: what passes here is taken by the server, except for what only the server can judge
//! (the text of a string setting, a library that is not there); the keeper looks again before it
//! reloads. Not here: which node gets which value when (`group::pgsettings`, `node::pgsettings`).

pub mod managed;
pub mod value;

use managed::{is_ours, least, why_refused};
use shared::pgsettings::{Catalogue, Known, is_required};
use value::{check_value, kept, number};

/// Why a setting or its value is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// What kind of refusal, for programs.
    pub kind: RefusalKind,
    /// One line: the name, the value where it is about one, and what is allowed.
    pub text: String,
}

/// What kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// pgtandem sets it itself, or cannot work with it.
    Managed,
    /// There is no such setting.
    Unknown,
    /// The value cannot be.
    BadValue,
}

impl RefusalKind {
    /// The word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Managed => "managed_setting",
            Self::Unknown => "unknown_setting",
            Self::BadValue => "bad_value",
        }
    }

    /// The exit code of the operator's command.
    pub fn code(self) -> u8 {
        match self {
            Self::Managed => 3,
            Self::Unknown | Self::BadValue => 1,
        }
    }
}

fn refusal(kind: RefusalKind, text: String) -> Refusal {
    Refusal { kind, text }
}

/// A name as PostgreSQL spells it, of a setting that an operator may give.
pub fn check_name(catalogue: &Catalogue, name: &str) -> Result<String, Refusal> {
    let spelled = find(catalogue, name).map_or(name, |(name, _)| name).to_owned();
    if let Some(why) = why_refused(&spelled.to_ascii_lowercase()) {
        let text = format!("{spelled}: cannot be set here: {why}");
        return Err(refusal(RefusalKind::Managed, text));
    }
    match find(catalogue, name) {
        Some((_, known)) if known.context == "internal" => {
            let text = format!("{spelled}: cannot be set: it shows how the server was built");
            Err(refusal(RefusalKind::Managed, text))
        }
        Some(_) => Ok(spelled),
        None if is_ours(name) => {
            let text = format!("{name}: cannot be set here: the prefix is pgtandem's own");
            Err(refusal(RefusalKind::Managed, text))
        }
        None if name.contains('.') => extension_name(name),
        None => {
            let near = nearest(catalogue, name);
            let near = near.map(|near| format!(", the nearest is {near}")).unwrap_or_default();
            let version = &catalogue.version;
            let text = format!("{name}: PostgreSQL {version} has no such setting{near}");
            Err(refusal(RefusalKind::Unknown, text))
        }
    }
}

/// A value as it is to be kept, of a setting whose name has passed [`check_name`].
pub fn check(catalogue: &Catalogue, name: &str, value: &str) -> Result<String, Refusal> {
    let bad = |text: String| refusal(RefusalKind::BadValue, format!("{name}: {text}"));
    if value.chars().any(char::is_control) {
        return Err(bad("the value has a line break or another control character".to_owned()));
    }
    let Some((_, known)) = find(catalogue, name) else { return Ok(value.to_owned()) };
    check_value(known, value).map_err(bad)?;
    if let Some((smallest, why)) = least(name)
        && number(known, value).is_some_and(|given| given < f64::from(smallest))
    {
        return Err(bad(format!("'{value}' is too little: at least {smallest}, {why}")));
    }
    if name == "wal_level" && value.trim().eq_ignore_ascii_case("minimal") {
        return Err(bad("'minimal' is not enough for standbys: replica or logical".to_owned()));
    }
    if is_required(name)
        && let Some(count) = number(known, value)
    {
        // Compared as numbers from here on.
        return Ok(format!("{count:.0}"));
    }
    Ok(kept(known, value).to_owned())
}

/// PostgreSQL does not tell upper from lower case here.
fn find<'a>(catalogue: &'a Catalogue, name: &str) -> Option<(&'a str, &'a Known)> {
    if let Some((name, known)) = catalogue.settings.get_key_value(name) {
        return Some((name, known));
    }
    let found = catalogue.settings.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(name, known)| (name.as_str(), known))
}

/// `valid_custom_variable_name` in PostgreSQL's guc.c.
fn extension_name(name: &str) -> Result<String, Refusal> {
    let is_start = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_identifier = |part: &str| {
        part.starts_with(is_start)
            && part.chars().all(|c| is_start(c) || c.is_ascii_digit() || c == '$')
    };
    if name.split('.').all(is_identifier) {
        // Spelled in two ways, it would stand in a file twice.
        return Ok(name.to_ascii_lowercase());
    }
    let text = format!(
        "{name}: is no name of a setting: the parts between the dots have letters, digits, _ and $"
    );
    Err(refusal(RefusalKind::Unknown, text))
}

/// The known name that takes the fewest changes.
fn nearest<'a>(catalogue: &'a Catalogue, name: &str) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    let settable = catalogue.settings.iter().filter(|(_, known)| known.context != "internal");
    settable
        .map(|(known, _)| known.as_str())
        .filter(|known| why_refused(known).is_none())
        .min_by_key(|known| distance(&name, &known.to_ascii_lowercase()))
}

/// Levenshtein's.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, c) in one.chars().enumerate() {
        let mut diagonal = index;
        let mut left = index + 1;
        let mut next = vec![left];
        for (d, above) in other.iter().zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(c != *d);
            left = replaced.min(left + 1).min(above + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
