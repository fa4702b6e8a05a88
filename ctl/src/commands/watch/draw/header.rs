//! What is true of the whole group: above the nodes the facts, below them the operation under way and the
//! warnings.

use super::text::{flow, span, wrap};
use crate::commands::status::{in_force_by_name, pending_by_name};
use crate::commands::watch::model::{Moment, Picture, Screen, Theme};
use crate::text::blocker;
use ratatui::style::{Style, Stylize as _};
use ratatui::text::{Line, Span};
use shared::api::{OperationStatus, Status};
use shared::report::Lease;

/// What is wrong with the picture, if anything, and what holds of the group.
pub fn facts(screen: &Screen, at: Moment, cells: usize) -> Vec<Line<'static>> {
    let theme = screen.theme;
    let mut lines = Vec::new();
    let mut banner = |text: String| {
        let pieces = wrap(&text, cells).into_iter();
        lines.extend(pieces.map(|piece| Line::styled(piece, theme.bad())));
    };
    if let Some((ago, why)) = screen.lost_for(at) {
        let ago = span(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX));
        banner(format!("THIS WAS SO {ago} AGO: {why}; trying again"));
    }
    if let Some(held) = screen.paused_for(at) {
        let held = span(u64::try_from(held.as_millis()).unwrap_or(u64::MAX));
        banner(format!("THIS PICTURE IS HELD, for {held}: p goes on"));
    }
    let picture = screen.picture();
    let Some(status) = &picture.status else {
        lines.extend(flow(vec![format!("formation {}", screen.formation).bold()], cells));
        return lines;
    };
    lines.extend(flow(group(status, theme), cells));
    lines.extend(flow(sync(status, picture, theme), cells));
    lines
}

fn group(status: &Status, theme: Theme) -> Vec<Span<'static>> {
    let mut facts = vec![
        format!("formation {}", status.formation).bold(),
        format!("phase {}", status.phase).into(),
        format!("epoch {}", status.epoch).into(),
        match &status.primary {
            Some(primary) => format!("primary {primary}").into(),
            None => Span::styled("no primary", theme.bad()),
        },
        if status.writable {
            Span::styled("writable", theme.good())
        } else {
            Span::styled("NOT WRITABLE", theme.bad())
        },
    ];
    if status.paused {
        facts.push(Span::styled("AUTOMATION PAUSED", theme.bad()));
    }
    facts
}

fn sync(status: &Status, picture: &Picture, theme: Theme) -> Vec<Span<'static>> {
    let mut facts = vec![format!("sync {}", in_force_by_name(status)).into()];
    if let Some(pending) = pending_by_name(status) {
        facts.push(Span::styled(format!("pending {pending}"), theme.notable()));
    }
    let primary = status.primary.as_ref();
    let primary = primary.and_then(|name| status.nodes.iter().find(|node| node.name == *name));
    if let Some(age) = primary.and_then(|node| picture.age_ms(node.last_report_at)) {
        facts.push(format!("primary heard {} ago", span(age)).into());
    }
    match status.lease_left {
        None => {}
        Some(Lease::Unlimited) => facts.push("lease without end".into()),
        Some(Lease::For { ms }) => match ms.saturating_sub(picture.held_ms()) {
            0 => facts.push(Span::styled("lease ended", theme.bad())),
            left => facts.push(format!("lease ends in {}", span(left)).into()),
        },
    }
    facts
}

/// The operation under way, and the warnings.
pub fn notes(picture: &Picture, theme: Theme, cells: usize) -> Vec<Line<'static>> {
    let Some(status) = &picture.status else { return Vec::new() };
    let mut lines = Vec::new();
    let mut note = |text: &str, indent: usize, style: Style| {
        let pieces = wrap(text, cells.saturating_sub(indent)).into_iter();
        let indent = " ".repeat(indent);
        lines.extend(pieces.map(|piece| Line::styled(format!("{indent}{piece}"), style)));
    };
    if let Some(operation) = &status.operation {
        note(&describe(operation, picture), 0, theme.notable());
        for it in &operation.blocked_by {
            note(&format!("waits for: {}", blocker(it)), 2, theme.notable());
        }
    }
    for warning in &status.warnings {
        note(&format!("warning: {warning}"), 0, theme.notable());
    }
    for node in &status.nodes {
        for warning in &node.warnings {
            note(&format!("warning: {}: {warning}", node.name), 0, theme.notable());
        }
    }
    lines
}

fn describe(operation: &OperationStatus, picture: &Picture) -> String {
    let target = operation.target.as_ref().map(|node| format!(" {node}")).unwrap_or_default();
    let age = picture.age_ms(Some(operation.requested_at)).map(span);
    let age = age.map(|age| format!(", for {age}")).unwrap_or_default();
    format!(
        "operation {}: {}{target}{age}, phase {}",
        operation.id, operation.kind, operation.phase
    )
}
