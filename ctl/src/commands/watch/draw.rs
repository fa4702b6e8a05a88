//! From the screen's model to a picture of so many cells: a pure function of both and of the moment.
//!
//! From the top: what is wrong with the picture itself, facts about the group, the nodes, what is under
//! way, and warnings; the events have the rest; the keys stand at the bottom.

mod events;
mod header;
mod nodes;
mod text;

pub use events::Drawn;

use super::keys::HELP;
use super::model::{Moment, Screen, Theme};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};
use text::width;

/// Where there are more lines than that, the events keep some of them.
const TALL: usize = 14;
/// So many, their heading among them.
const EVENTS_KEEP: usize = 5;

/// Draws the screen.
pub fn draw(frame: &mut Frame<'_>, screen: &Screen, at: Moment) -> Drawn {
    let [body, foot] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    let (cells, height) = (usize::from(body.width), usize::from(body.height));
    let mut top = header::facts(screen, at, cells);
    top.push(Line::default());
    top.extend(nodes::lines(screen.picture(), screen.sort, screen.theme, cells));
    top.extend(header::notes(screen.picture(), screen.theme, cells));
    let top = cut(top, if height > TALL { height - EVENTS_KEEP } else { height });
    let tall = u16::try_from(top.len()).unwrap_or(body.height);
    let [upper, lower] =
        Layout::vertical([Constraint::Length(tall), Constraint::Min(0)]).areas(body);
    frame.render_widget(Paragraph::new(top), upper);
    let drawn = events::draw(frame, lower, screen);
    frame.render_widget(footer(screen, cells), foot);
    if screen.help {
        help(frame, screen.theme);
    }
    drawn
}

/// At most so many lines; the last one says how many there were.
fn cut(mut lines: Vec<Line<'static>>, most: usize) -> Vec<Line<'static>> {
    if lines.len() > most {
        let hidden = lines.len() - most.saturating_sub(1);
        lines.truncate(most.saturating_sub(1));
        lines.push(Line::styled(format!("… {hidden} more lines"), Theme::FRAME));
    }
    lines
}

fn footer(screen: &Screen, cells: usize) -> Line<'static> {
    let held = if screen.picture_is_held() { "p go on" } else { "p hold" };
    let sort = format!("s sort: {}", screen.sort.word());
    let keys = ["q quit", "? help", held, &sort, "f formation", "↑ ↓ PgUp PgDn End events"];
    let mut line = String::new();
    for key in keys {
        let gap = if line.is_empty() { "" } else { "  " };
        if width(&line) + gap.len() + width(key) > cells {
            break;
        }
        line.push_str(gap);
        line.push_str(key);
    }
    Line::styled(line, Theme::FRAME)
}

fn help(frame: &mut Frame<'_>, theme: Theme) {
    let keys = HELP.iter().map(|(key, _)| width(key)).max().unwrap_or_default();
    let lines: Vec<_> = HELP
        .iter()
        .map(|(key, what)| {
            let padding = " ".repeat(keys.saturating_sub(width(key)));
            Line::from(vec![
                Span::styled(format!(" {key}{padding}  "), theme.notable()),
                Span::raw(format!("{what} ")),
            ])
        })
        .collect();
    let wide = lines.iter().map(Line::width).max().unwrap_or_default() + 2;
    let [wide, tall] =
        [wide, lines.len() + 2].map(|cells| u16::try_from(cells).unwrap_or(u16::MAX));
    let area = middle(frame.area(), wide, tall);
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" Keys ")), area);
}

fn middle(area: Rect, wide: u16, tall: u16) -> Rect {
    let (wide, tall) = (wide.min(area.width), tall.min(area.height));
    let x = area.x + (area.width - wide) / 2;
    let y = area.y + (area.height - tall) / 2;
    Rect::new(x, y, wide, tall)
}

#[cfg(test)]
mod tests;
