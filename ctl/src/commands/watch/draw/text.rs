//! Texts that fit into so many cells. What the monitor sent is text from elsewhere: control characters in
//! it become question marks.

use ratatui::text::{Line, Span};

/// Between two facts in a line.
const GAP: &str = "  ";

/// How many cells a text takes.
pub fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// A text without control characters.
pub fn clean(text: &str) -> String {
    text.replace(char::is_control, "?")
}

/// Words in lines of at most so many cells. A word that is longer than a line is broken.
pub fn wrap(text: &str, cells: usize) -> Vec<String> {
    let cells = cells.max(1);
    let mut lines = vec![String::new()];
    for word in clean(text).split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        let gap = usize::from(!line.is_empty());
        if width(line) + gap + width(word) <= cells {
            if gap > 0 {
                line.push(' ');
            }
            line.push_str(word);
        } else {
            lines.extend(pieces(word, cells));
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

fn pieces(word: &str, cells: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for c in word.chars() {
        let full = pieces.last().is_some_and(|piece| {
            width(piece) + width(c.encode_utf8(&mut [0; 4])) > cells && !piece.is_empty()
        });
        if full {
            pieces.push(String::new());
        }
        if let Some(piece) = pieces.last_mut() {
            piece.push(c);
        }
    }
    pieces
}

/// Facts in as many lines as it takes; one that is longer than a line is wrapped.
pub fn flow(facts: Vec<Span<'static>>, cells: usize) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = Vec::new();
    for fact in facts {
        let room = fact.width() + width(GAP);
        match lines.last_mut() {
            Some(line) if line.width() + room <= cells => {
                line.push_span(Span::raw(GAP));
                line.push_span(fact);
            }
            _ => {
                let pieces = wrap(&fact.content, cells).into_iter();
                lines.extend(pieces.map(|piece| Line::styled(piece, fact.style)));
            }
        }
    }
    lines
}

/// A time span, as exact as people want it.
pub fn span(ms: u64) -> String {
    let (tenths, minutes) = (ms / 100, ms / 60_000);
    match minutes {
        0 | 1 => format!("{}.{} s", tenths / 10, tenths % 10),
        2..100 => format!("{minutes} min"),
        100..6000 => format!("{} h", minutes / 60),
        _ => format!("{} d", minutes / 1440),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_whole_where_they_fit() {
        assert_eq!(wrap("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrap("x abcdefgh y", 3), ["x", "abc", "def", "gh", "y"]);
        assert_eq!(wrap("a\x1b[2Jb\n", 9), ["a?[2Jb?"]);
        assert!(wrap("", 5).is_empty() && wrap("日本", 0).len() == 2);
        assert_eq!(wrap("日本語 日本", 5), ["日本", "語", "日本"]);
    }

    #[test]
    fn facts_stay_in_one_piece() {
        let facts = |cells| {
            let facts = ["aaaa", "bbb", "cc dd ee"].map(Span::raw).to_vec();
            flow(facts, cells).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(facts(80), ["aaaa  bbb  cc dd ee"]);
        assert_eq!(facts(9), ["aaaa  bbb", "cc dd ee"]);
        assert_eq!(facts(5), ["aaaa", "bbb", "cc dd", "ee"]);
    }

    #[test]
    fn spans() {
        assert_eq!(
            [0, 1234, 119_999, 120_000, 6_000_000, 720_000_000].map(span),
            ["0.0 s", "1.2 s", "119.9 s", "2 min", "1 h", "8 d"]
        );
    }
}
