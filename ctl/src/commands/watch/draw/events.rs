//! The events, the newest at the bottom, each in as many lines as its reason takes.

use super::text::wrap;
use crate::commands::watch::model::{Screen, Theme};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use shared::event::Event;
use std::collections::VecDeque;

/// From these widths on there is room for the rule, and for the node.
const ROOM_FOR: (usize, usize) = (110, 70);
/// How wide they are.
const RULE: usize = 22;
const NODE: usize = 12;

/// What was drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drawn {
    /// The oldest event that is kept can be seen whole.
    pub at_oldest: bool,
    /// The lowest event; `None` if that is the newest.
    pub bottom: Option<u64>,
}

/// Draws as many events as there is room for.
pub fn draw(frame: &mut Frame<'_>, area: Rect, screen: &Screen) -> Drawn {
    let (cells, height) = (usize::from(area.width), usize::from(area.height));
    let Some(room) = height.checked_sub(1) else { return Drawn::default() };
    let scrolled = screen.is_scrolled();
    let title = if scrolled { "Older events (End: newest) " } else { "Events " };
    let rule = "─".repeat(cells.saturating_sub(title.len()));
    let mut lines = VecDeque::new();
    let (events, shown) = (&screen.picture().events, screen.shown());
    let mut drawn = Drawn { at_oldest: true, bottom: events.get(shown).map(|event| event.id) };
    for event in events.iter().take(shown.saturating_add(1)).rev() {
        let own = describe(event, cells);
        drawn.at_oldest = lines.len() + own.len() <= room;
        for line in own.into_iter().rev().take(room - lines.len()) {
            lines.push_front(line);
        }
        if !drawn.at_oldest {
            break;
        }
    }
    // At the top of the history there may be room for newer ones.
    for event in events.iter().skip(shown.saturating_add(1)) {
        let own = describe(event, cells);
        if lines.len() + own.len() > room {
            break;
        }
        lines.extend(own);
        drawn.bottom = Some(event.id);
    }
    let newest = events.back().map(|event| event.id);
    drawn.bottom = drawn.bottom.filter(|bottom| scrolled && Some(*bottom) != newest);
    lines.push_front(Line::styled(format!("{title}{rule}"), Theme::FRAME));
    frame.render_widget(Paragraph::new(Vec::from(lines)), area);
    drawn
}

fn describe(event: &Event, cells: usize) -> Vec<Line<'static>> {
    let mut before = event.at.format("%H:%M:%S  ").to_string();
    let (rule, node) = ROOM_FOR;
    if cells >= node {
        let node = event.node.as_ref().map_or("", |node| node.as_str());
        before.push_str(&format!("{node:<NODE$}  "));
    }
    if cells >= rule {
        before.push_str(&format!("{:<RULE$}  ", super::text::clean(&event.rule)));
    }
    let indent = super::text::width(&before);
    let mut pieces = wrap(&event.reason, cells.saturating_sub(indent)).into_iter();
    let first = pieces.next().unwrap_or_default();
    let mut lines = vec![Line::from(vec![Span::styled(before, Theme::FRAME), first.into()])];
    lines.extend(pieces.map(|piece| Line::raw(format!("{}{piece}", " ".repeat(indent)))));
    lines
}
