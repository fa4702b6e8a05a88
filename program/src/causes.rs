//! An error with all that is behind it, in one line: for a log, or for a person.
//!
//! Not here: which error that is, and what to do about it.

use std::error::Error;

/// What went wrong, with its causes as far as they are not said already.
pub fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let more = deeper.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = deeper.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    fn chain(texts: &[&'static str]) -> Option<Box<Link>> {
        let (text, rest) = texts.split_first()?;
        Some(Box::new(Link { text, source: chain(rest) }))
    }

    #[test]
    fn causes_follow_and_nothing_is_said_twice() {
        let said = |texts: &[&'static str]| in_full(&*chain(texts).unwrap());
        assert_eq!(said(&["it failed"]), "it failed");
        assert_eq!(said(&["it failed", "no disk", "unplugged"]), "it failed: no disk: unplugged");
        assert_eq!(said(&["it failed: no disk", "no disk", "why"]), "it failed: no disk: why");
    }
}
