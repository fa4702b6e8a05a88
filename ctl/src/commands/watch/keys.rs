//! What the keys do.

use super::model::Screen;
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// How many events a page is.
const PAGE: usize = 10;

/// The keys, for the help.
pub const HELP: [(&str, &str); 8] = [
    ("q  Esc  Ctrl-C", "quit"),
    ("p  Space", "hold the picture"),
    ("s", "sort the nodes"),
    ("f", "next formation"),
    ("↑ ↓  k j", "events, one by one"),
    ("PgUp PgDn", "events, ten by ten"),
    ("End", "the newest event"),
    ("?", "this help"),
];

/// What a key asks for beyond the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    Nothing,
    /// The end.
    Quit,
    /// Another formation.
    NextFormation,
}

/// A key was pressed.
#[expect(clippy::wildcard_enum_match_arm, reason = "keys of a keyboard, not states of ours")]
pub fn press(screen: &mut Screen, key: KeyEvent) -> Wish {
    if key.kind == KeyEventKind::Release {
        return Wish::Nothing;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        let quit = matches!(key.code, KeyCode::Char('c' | 'd'));
        return if quit { Wish::Quit } else { Wish::Nothing };
    }
    match key.code {
        KeyCode::Esc if screen.help => screen.help = false,
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Wish::Quit,
        KeyCode::Char('f' | 'F') => return Wish::NextFormation,
        KeyCode::Char('p' | 'P' | ' ') => screen.pause(),
        KeyCode::Char('s' | 'S') => screen.sort = screen.sort.next(),
        KeyCode::Char('?' | 'h') => screen.help = !screen.help,
        KeyCode::Up | KeyCode::Char('k') => screen.older(1),
        KeyCode::Down | KeyCode::Char('j') => screen.newer(1),
        KeyCode::PageUp => screen.older(PAGE),
        KeyCode::PageDown => screen.newer(PAGE),
        KeyCode::End => screen.newer(usize::MAX),
        // No other key means anything.
        _ => {}
    }
    Wish::Nothing
}
