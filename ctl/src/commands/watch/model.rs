//! What the screen shows: the picture of the group, and what the person at the keys wants to see of it.
//!
//! Nothing here knows of a terminal or of the time: moments come as arguments, on the screen's own clock.
//! The monitor's clock may be another one; only differences between two of its own times are used.

use super::draw::Drawn;
use super::feed::News;
use ratatui::style::{Color, Modifier, Style};
use shared::Timestamp;
use shared::api::{NodeStatus, Status};
use shared::event::Event;
use shared::ids::FormationId;
use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// A moment, since the screen was opened.
pub type Moment = Duration;

/// How many events can be scrolled through.
const KEPT: usize = 1000;
/// After so long without a sign of life the picture is called old.
const OLD: Duration = Duration::from_secs(3);

/// All that is known of the group.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// The newest status.
    pub status: Option<Status>,
    /// The newest events, the oldest of them first.
    pub events: VecDeque<Event>,
    /// When the status came.
    came_at: Moment,
    /// When the monitor was last heard: until then, the status was true.
    true_at: Moment,
}

impl Picture {
    /// How long ago something was, in milliseconds, when the picture was last known to be true.
    pub fn age_ms(&self, of: Option<Timestamp>) -> Option<u64> {
        let taken = self.status.as_ref()?.taken_at?;
        let before = taken.signed_duration_since(of?).num_milliseconds();
        Some(u64::try_from(before).unwrap_or_default().saturating_add(self.held_ms()))
    }

    /// For how long the status had been true, in milliseconds.
    pub fn held_ms(&self) -> u64 {
        let held = self.true_at.saturating_sub(self.came_at);
        u64::try_from(held.as_millis()).unwrap_or(u64::MAX)
    }

    fn add(&mut self, event: Event) {
        self.events.push_back(event);
        if self.events.len() > KEPT {
            self.events.pop_front();
        }
    }
}

/// In which order the nodes below one upstream stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// By name.
    #[default]
    Name,
    /// Those that are not as they should be first.
    State,
    /// Those that are furthest behind first.
    Lag,
}

impl Sort {
    /// Its word in the footer.
    pub fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::State => "state",
            Self::Lag => "lag",
        }
    }

    /// The one after it.
    pub fn next(self) -> Self {
        match self {
            Self::Name => Self::State,
            Self::State => Self::Lag,
            Self::Lag => Self::Name,
        }
    }
}

/// The screen.
#[derive(Clone, Debug)]
pub struct Screen {
    /// Which formation.
    pub formation: FormationId,
    /// How the nodes are sorted.
    pub sort: Sort,
    /// The keys are explained.
    pub help: bool,
    /// The colours.
    pub theme: Theme,
    /// The oldest event is on the screen: there is nothing to scroll back to.
    at_oldest: bool,
    latest: Picture,
    /// The picture that stands still.
    held: Option<Picture>,
    /// Why the monitor is not heard.
    trouble: Option<String>,
    /// The event at the bottom; `None`: always the newest.
    bottom: Option<u64>,
}

impl Screen {
    /// An empty screen.
    pub fn new(formation: FormationId, theme: Theme) -> Self {
        Self {
            formation,
            theme,
            sort: Sort::default(),
            help: false,
            at_oldest: false,
            latest: Picture::default(),
            held: None,
            trouble: None,
            bottom: None,
        }
    }

    /// Takes in what is new.
    pub fn take(&mut self, news: News, at: Moment) {
        if let News::Lost(why) = news {
            self.trouble = Some(why);
            return;
        }
        self.trouble = None;
        self.latest.true_at = at;
        match news {
            News::Formation(formation) => {
                let (sort, help) = (self.sort, self.help);
                *self = Self { sort, help, ..Self::new(formation, self.theme) };
                self.latest.true_at = at;
            }
            News::Status(status) => {
                self.latest.status = Some(*status);
                self.latest.came_at = at;
            }
            News::History(events) => self.latest.events = events.into(),
            News::Event(event) => self.latest.add(*event),
            News::Alive | News::Lost(_) => {}
        }
    }

    /// What is to be seen.
    pub fn picture(&self) -> &Picture {
        self.held.as_ref().unwrap_or(&self.latest)
    }

    /// Lets the picture stand still, or go on.
    pub fn pause(&mut self) {
        self.held = if self.held.is_some() { None } else { Some(self.latest.clone()) };
    }

    /// Whether it stands still, because somebody wanted it to.
    pub fn picture_is_held(&self) -> bool {
        self.held.is_some()
    }

    /// For how long the picture has stood still, because somebody wanted it to.
    pub fn paused_for(&self, at: Moment) -> Option<Duration> {
        Some(at.saturating_sub(self.held.as_ref()?.true_at))
    }

    /// How long ago the picture was true, where the monitor is not heard, and why.
    pub fn lost_for(&self, at: Moment) -> Option<(Duration, &str)> {
        let ago = at.saturating_sub(self.latest.true_at);
        match &self.trouble {
            Some(why) => Some((ago, why)),
            None if ago >= OLD => Some((ago, "the monitor is silent")),
            None => None,
        }
    }

    /// The place of the event that is to stand at the bottom; without events, of the first to come.
    pub fn shown(&self) -> usize {
        self.bottom_index().unwrap_or_default()
    }

    /// What has become of that: there was room for newer ones, or for older ones no more.
    pub fn drawn(&mut self, drawn: Drawn) {
        self.at_oldest = drawn.at_oldest;
        self.bottom = drawn.bottom;
    }

    /// Whether older events than the newest are looked at.
    pub fn is_scrolled(&self) -> bool {
        self.bottom.is_some()
    }

    /// Scrolls back by so many events.
    pub fn older(&mut self, by: usize) {
        if let Some(index) = self.bottom_index().filter(|_| !self.at_oldest) {
            self.scroll_to(index.saturating_sub(by));
        }
    }

    /// Scrolls on by so many events; at the newest one, new ones are shown as they come.
    pub fn newer(&mut self, by: usize) {
        if let Some(index) = self.bottom_index() {
            self.scroll_to(index.saturating_add(by));
        }
    }

    fn scroll_to(&mut self, index: usize) {
        let events = &self.picture().events;
        let is_newest = index.saturating_add(1) >= events.len();
        self.bottom = events.get(index).filter(|_| !is_newest).map(|event| event.id);
    }

    /// The place of the lowest event that is shown; `None` where there are no events.
    fn bottom_index(&self) -> Option<usize> {
        let events = &self.picture().events;
        let newest = events.len().checked_sub(1)?;
        Some(match self.bottom {
            None => newest,
            // One that is not kept any more is as good as the oldest that is.
            Some(id) => events.partition_point(|event| event.id < id).min(newest),
        })
    }
}

/// A node and where it stands in the tree.
#[derive(Debug)]
pub struct Branch<'a> {
    /// The node.
    pub node: &'a NodeStatus,
    /// What leads to it.
    pub lines: String,
    /// What leads past it to what stands below.
    pub beside: String,
}

/// The nodes as a tree: the primary on top, each node below its upstream. Who has none, or one that is not
/// there, stands at the side of the primary.
pub fn tree(status: &Status, sort: Sort) -> Vec<Branch<'_>> {
    let mut order: Vec<_> = status.nodes.iter().collect();
    order.sort_by_cached_key(|node| {
        let is_primary = status.primary.as_ref() == Some(&node.name);
        (!is_primary, node.role != "primary", sort_key(node, sort), node.name.clone())
    });
    let is_there = |node: &NodeStatus| {
        let upstream = node.upstream.as_ref();
        upstream.is_some_and(|name| status.nodes.iter().any(|other| other.name == *name))
    };
    let mut tree = Vec::new();
    let mut seen = BTreeSet::new();
    for root in order.iter().filter(|node| !is_there(node)) {
        grow(&mut tree, &mut seen, &order, (root, String::new(), String::new()));
    }
    // Two that are said to follow each other, as may be for a moment.
    for root in &order {
        grow(&mut tree, &mut seen, &order, (root, String::new(), String::new()));
    }
    tree
}

fn grow<'a>(
    tree: &mut Vec<Branch<'a>>,
    seen: &mut BTreeSet<u64>,
    order: &[&'a NodeStatus],
    (node, lines, beside): (&'a NodeStatus, String, String),
) {
    if !seen.insert(node.id.0) {
        return;
    }
    let below = |other: &&&NodeStatus| {
        other.upstream.as_ref() == Some(&node.name) && !seen.contains(&other.id.0)
    };
    let children: Vec<&'a NodeStatus> = order.iter().filter(below).copied().collect();
    let trunk = if children.is_empty() { "  " } else { "│ " };
    tree.push(Branch { node, lines, beside: format!("{beside}{trunk}") });
    for (index, child) in children.iter().enumerate() {
        let is_last = index.saturating_add(1) == children.len();
        let (branch, past) = if is_last { ("└ ", "  ") } else { ("├ ", "│ ") };
        let lines = (format!("{beside}{branch}"), format!("{beside}{past}"));
        grow(tree, seen, order, (child, lines.0, lines.1));
    }
}

fn sort_key(node: &NodeStatus, sort: Sort) -> (bool, String, Reverse<u64>) {
    let nothing = (false, String::new(), Reverse(0));
    match sort {
        Sort::Name => nothing,
        Sort::State => {
            let is_well = node.reported_state == node.goal_state && node.health == "ok";
            (is_well, node.reported_state.to_string(), Reverse(0))
        }
        // What is not known may be any lag.
        Sort::Lag => (false, String::new(), Reverse(node.lag_bytes.unwrap_or(u64::MAX))),
    }
}

/// How things look that stand out. Without colours they still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Whether there are colours.
    pub colours: bool,
}

impl Theme {
    /// As `NO_COLOR` says (<https://no-color.org>).
    pub fn of_environment() -> Self {
        Self { colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    /// Around the rest: headings, lines, times.
    pub const FRAME: Style = Style::new().add_modifier(Modifier::DIM);

    /// As it should be.
    pub fn good(self) -> Style {
        if self.colours { Style::new().fg(Color::Green) } else { Style::new() }
    }

    /// On its way, or worth a look.
    pub fn notable(self) -> Style {
        if self.colours { Style::new().fg(Color::Yellow) } else { Style::new().bold() }
    }

    /// Somebody must look.
    pub fn bad(self) -> Style {
        if self.colours { Style::new().fg(Color::Red).bold() } else { Style::new().reversed() }
    }
}
