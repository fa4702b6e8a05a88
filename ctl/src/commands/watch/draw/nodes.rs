//! The nodes as a tree, with as many columns as fit: what does not fit is dropped in the order of its
//! importance. Below a node stands what it is doing.

use super::text::{clean, span, width};
use crate::commands::watch::model::{Branch, Picture, Sort, Theme, tree};
use crate::text::{bytes, host_port, or_dash};
use ratatui::style::Stylize as _;
use ratatui::text::{Line, Span};
use shared::report::StepView;

/// From this width on there is room for two cells between columns.
const ROOMY: usize = 60;
/// The longest bar, and the shortest that still shows anything.
const BAR: (usize, usize) = (30, 5);

/// A column.
struct Column {
    title: &'static str,
    /// Those with the highest numbers are dropped first.
    rank: u8,
    /// Numbers stand to the right.
    is_number: bool,
    cell: fn(&Branch<'_>, &Picture, Theme) -> Line<'static>,
}

const COLUMNS: [Column; 10] = [
    Column { title: "Node", rank: 0, is_number: false, cell: name },
    Column { title: "State", rank: 1, is_number: false, cell: state },
    Column { title: "Timeline:LSN", rank: 4, is_number: false, cell: position },
    Column { title: "Lag", rank: 2, is_number: true, cell: lag_bytes },
    Column { title: "Behind", rank: 3, is_number: true, cell: lag_time },
    Column { title: "Health", rank: 5, is_number: false, cell: health },
    Column { title: "Heard", rank: 6, is_number: true, cell: heard },
    Column { title: "Sync", rank: 7, is_number: false, cell: sync },
    Column { title: "Priority", rank: 8, is_number: true, cell: priority },
    Column { title: "Host:Port", rank: 9, is_number: false, cell: address },
];

/// The lines of all nodes, under their headings.
pub fn lines(picture: &Picture, sort: Sort, theme: Theme, cells: usize) -> Vec<Line<'static>> {
    let Some(status) = &picture.status else { return Vec::new() };
    let tree = tree(status, sort);
    if tree.is_empty() {
        return vec![Line::styled("no nodes yet", Theme::FRAME)];
    }
    let gap = if cells < ROOMY { 1 } else { 2 };
    let shown = fitting(&tree, picture, theme, (cells, gap));
    let mut lines = vec![row(
        shown.iter().map(|(column, _, width)| {
            (Line::styled(column.title, Theme::FRAME), column.is_number, *width)
        }),
        gap,
    )];
    for (index, branch) in tree.iter().enumerate() {
        let own = shown.iter().filter_map(|(column, values, width)| {
            Some((values.get(index)?.clone(), column.is_number, *width))
        });
        lines.push(row(own, gap));
        lines.extend(branch.node.step.as_ref().map(|step| {
            doing(step, branch, picture.age_ms(branch.node.last_report_at), (theme, cells))
        }));
    }
    lines
}

/// A column that is shown, its values, and how wide it is.
type Shown = (&'static Column, Vec<Line<'static>>, usize);

/// The columns that fit, in their places.
fn fitting(
    tree: &[Branch<'_>],
    picture: &Picture,
    theme: Theme,
    (cells, gap): (usize, usize),
) -> Vec<Shown> {
    let measure = |column: &'static Column| {
        let values: Vec<_> =
            tree.iter().map(|branch| (column.cell)(branch, picture, theme)).collect();
        let widest = values.iter().map(Line::width).max().unwrap_or_default();
        (column, values, widest.max(width(column.title)))
    };
    let mut all: Vec<Shown> = COLUMNS.iter().map(measure).collect();
    let mut by_rank: Vec<_> = all.iter().map(|(column, _, width)| (column.rank, *width)).collect();
    by_rank.sort_unstable();
    let mut used = 0;
    let fit = by_rank.iter().take_while(|(_, width)| {
        used += width + gap;
        used <= cells + gap
    });
    // A name and a state are shown however narrow it is, if only their beginning.
    let fit = u8::try_from(fit.count()).unwrap_or(u8::MAX).max(2);
    all.retain(|(column, ..)| column.rank < fit);
    all
}

fn row(values: impl Iterator<Item = (Line<'static>, bool, usize)>, gap: usize) -> Line<'static> {
    let mut line = Line::default();
    for (index, (value, is_number, width)) in values.enumerate() {
        let padding = " ".repeat(width.saturating_sub(value.width()));
        if index > 0 {
            line.push_span(" ".repeat(gap));
        }
        if is_number {
            line.push_span(padding.clone());
        }
        let style = value.style;
        for span in value.spans {
            line.push_span(span.patch_style(style));
        }
        if !is_number {
            line.push_span(padding);
        }
    }
    line
}

fn name(branch: &Branch<'_>, _: &Picture, _: Theme) -> Line<'static> {
    let name = branch.node.name.to_string();
    let name = if branch.node.role == "primary" { name.bold() } else { name.into() };
    Line::from(vec![Span::styled(branch.lines.clone(), Theme::FRAME), name])
}

fn state(branch: &Branch<'_>, _: &Picture, theme: Theme) -> Line<'static> {
    let (reported, goal) = (branch.node.reported_state, branch.node.goal_state);
    if reported == goal {
        Line::raw(reported.to_string())
    } else {
        Line::styled(format!("{reported} → {goal}"), theme.notable())
    }
}

fn position(branch: &Branch<'_>, _: &Picture, _: Theme) -> Line<'static> {
    Line::raw(format!("{}:{}", or_dash(branch.node.timeline), or_dash(branch.node.lsn)))
}

fn lag_bytes(branch: &Branch<'_>, _: &Picture, _: Theme) -> Line<'static> {
    Line::raw(or_dash(branch.node.lag_bytes.map(bytes)))
}

fn lag_time(branch: &Branch<'_>, _: &Picture, _: Theme) -> Line<'static> {
    Line::raw(or_dash(branch.node.lag_ms.map(span)))
}

fn health(branch: &Branch<'_>, _: &Picture, theme: Theme) -> Line<'static> {
    let style = match branch.node.health.as_str() {
        "ok" => theme.good(),
        "bad" => theme.bad(),
        _ => theme.notable(),
    };
    Line::styled(clean(&branch.node.health), style)
}

fn heard(branch: &Branch<'_>, picture: &Picture, _: Theme) -> Line<'static> {
    Line::raw(or_dash(picture.age_ms(branch.node.last_report_at).map(span)))
}

fn sync(branch: &Branch<'_>, _: &Picture, _: Theme) -> Line<'static> {
    Line::raw(clean(&or_dash(branch.node.sync_state.as_ref())))
}

fn priority(branch: &Branch<'_>, _: &Picture, _: Theme) -> Line<'static> {
    Line::raw(branch.node.candidate_priority.to_string())
}

fn address(branch: &Branch<'_>, _: &Picture, _: Theme) -> Line<'static> {
    Line::raw(clean(&host_port(&branch.node.host, branch.node.port)))
}

/// What a node is doing: with a bar, where it is known how far that is.
fn doing(
    step: &StepView,
    branch: &Branch<'_>,
    age_ms: Option<u64>,
    (theme, cells): (Theme, usize),
) -> Line<'static> {
    let elapsed = span(step.elapsed_ms.saturating_add(age_ms.unwrap_or_default()));
    let name = clean(&step.name);
    let beside = Span::styled(branch.beside.clone(), Theme::FRAME);
    let Some((done, total)) = step.progress else {
        let text = format!("{name}, for {elapsed}");
        return Line::from(vec![beside, Span::styled(text, theme.notable())]);
    };
    let done_percent = done.saturating_mul(100).checked_div(total).unwrap_or_default().min(100);
    let (before, percent) = (format!("{name} "), format!(" {done_percent} %"));
    let after = format!("{percent}  {} of {}, for {elapsed}", bytes(done), bytes(total));
    let left = cells.saturating_sub(width(&branch.beside) + width(&before));
    let (most, least) = BAR;
    // Where both do not fit, the bar says more than the figures.
    let after = if left >= width(&after) + least { after } else { percent };
    let room = left.saturating_sub(width(&after)).min(most);
    let [full, empty] = bar(done, total, room);
    Line::from(vec![
        beside,
        Span::styled(before, theme.notable()),
        Span::styled(full, theme.good()),
        Span::styled(empty, Theme::FRAME),
        Span::styled(after, theme.notable()),
    ])
}

/// The full and the empty part of a bar of so many cells.
fn bar(done: u64, total: u64, cells: usize) -> [String; 2] {
    let wide = u64::try_from(cells).unwrap_or_default();
    let full = done.saturating_mul(wide).checked_div(total).unwrap_or_default();
    let full = usize::try_from(full).unwrap_or(cells).min(cells);
    ["█".repeat(full), "░".repeat(cells - full)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        assert_eq!(bar(0, 10, 4), ["", "░░░░"]);
        assert_eq!(bar(5, 10, 4), ["██", "░░"]);
        assert_eq!(bar(11, 10, 4), ["████", ""]);
        assert_eq!(bar(1, 0, 4), ["", "░░░░"]);
        assert_eq!(bar(u64::MAX, u64::MAX, 4).concat().chars().count(), 4);
    }
}
