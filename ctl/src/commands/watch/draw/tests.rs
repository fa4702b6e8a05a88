//! Pictures of known situations, at the widths that people have.

use super::*;
use crate::commands::status::fixture;
use crate::commands::watch::feed::News;
use crate::commands::watch::keys::press;
use crate::commands::watch::model::Sort;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use serde_json::{from_value, json};
use shared::Span as TimeSpan;
use shared::api::{NodeStatus, Status};
use shared::event::Event;
use shared::report::Lease;
use std::time::Duration;

const SIZES: [(u16, u16); 3] = [(120, 24), (80, 24), (40, 24)];

fn at(ms: u64) -> Moment {
    Duration::from_millis(ms)
}

fn node(status: &mut Status, index: usize) -> &mut NodeStatus {
    &mut status.nodes[index]
}

/// A switchover under way while the third node is being copied, of which nobody has heard for 12 s.
fn status() -> Status {
    let mut status = fixture::status();
    let taken: shared::Timestamp = "2026-01-02T03:04:09.5Z".parse().unwrap();
    status.taken_at = Some(taken);
    status.lease_left = Some(Lease::For { ms: 1900 });
    status.sync.pending = Some("ANY 1 (pgtandem_1)".to_owned());
    for (index, silent_ms) in [(0, 250), (1, 400), (2, 12_000)] {
        let heard = taken - TimeSpan::milliseconds(silent_ms);
        node(&mut status, index).last_report_at = Some(heard);
    }
    node(&mut status, 0).lag_ms = Some(1300);
    node(&mut status, 1).lag_ms = Some(0);
    status
}

fn event(id: u64, reason: &str) -> Event {
    from_value(json!({
        "id": id, "at": format!("2026-01-02T03:{:02}:{:02}.5Z", id / 60, id % 60),
        "formation": "default", "group": 0, "node": format!("node{}", id % 3 + 1), "node_id": 1,
        "epoch": 3, "kind": "phase", "rule": "node-state", "from": null, "to": null, "timeline": 2,
        "lsn": null, "reason": reason, "evidence": {}
    }))
    .unwrap()
}

fn screen() -> Screen {
    let theme = Theme { colours: true };
    let mut screen = Screen::new("default".parse().unwrap(), theme);
    screen.take(News::Status(Box::new(status())), at(1000));
    let mut events: Vec<_> =
        (1..=30).map(|id| event(id, &format!("event {id} happened"))).collect();
    events.push(event(
        31,
        "node3 follows node2 from 0/3000060 on: its log is a prefix of the history of the primary, \
         which was compared up to timeline 2",
    ));
    screen.take(News::History(events), at(1000));
    screen
}

fn picture(screen: &mut Screen, (wide, tall): (u16, u16), now: Moment) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(wide, tall)).unwrap();
    terminal.draw(|frame| screen.drawn(draw(frame, screen, now))).unwrap();
    terminal.backend().clone()
}

fn text(screen: &mut Screen, size: (u16, u16), now: Moment) -> String {
    picture(screen, size, now).to_string()
}

fn key(screen: &mut Screen, code: KeyCode) {
    press(screen, KeyEvent::new(code, KeyModifiers::NONE));
}

#[test]
fn a_busy_group() {
    for (wide, tall) in SIZES {
        let picture = text(&mut screen(), (wide, tall), at(1000));
        insta::assert_snapshot!(format!("busy_{wide}"), picture);
    }
}

/// Nothing is wrong: no notes, the events have the room.
#[test]
fn a_quiet_group() {
    let mut quiet = status();
    (quiet.operation, quiet.sync.pending, quiet.lease_left) = (None, None, Some(Lease::Unlimited));
    quiet.warnings.clear();
    quiet.nodes.truncate(2);
    for (wide, tall) in SIZES {
        let mut screen = screen();
        screen.take(News::Status(Box::new(quiet.clone())), at(1000));
        insta::assert_snapshot!(format!("quiet_{wide}"), text(&mut screen, (wide, tall), at(1000)));
    }
}

/// The monitor has gone while the group elects, and the picture is held as well.
#[test]
fn the_monitor_is_away() {
    let mut electing = status();
    (electing.primary, electing.writable, electing.paused) = (None, false, true);
    electing.phase = "electing".to_owned();
    electing.nodes.iter_mut().for_each(|node| node.upstream = None);
    for (wide, tall) in SIZES {
        let mut screen = screen();
        screen.take(News::Status(Box::new(electing.clone())), at(2000));
        key(&mut screen, KeyCode::Char('p'));
        let why = "cannot reach the monitor (http://m1:7432: Connection refused)";
        screen.take(News::Lost(why.to_owned()), at(3000));
        insta::assert_snapshot!(format!("away_{wide}"), text(&mut screen, (wide, tall), at(9000)));
    }
}

#[test]
fn the_help() {
    for (wide, tall) in SIZES {
        let mut screen = screen();
        key(&mut screen, KeyCode::Char('?'));
        insta::assert_snapshot!(format!("help_{wide}"), text(&mut screen, (wide, tall), at(1000)));
    }
}

/// However small it is, nothing is drawn outside, and nothing panics.
#[test]
fn any_size() {
    for wide in 1..50 {
        for tall in [1, 2, 3, 5, 8, 15, 40] {
            let mut screen = screen();
            text(&mut screen, (wide, tall), at(1000));
            key(&mut screen, KeyCode::Char('?'));
            text(&mut screen, (wide, tall), at(9000));
        }
    }
    let mut empty = Screen::new("default".parse().unwrap(), Theme { colours: false });
    assert!(text(&mut empty, (40, 10), at(0)).contains("formation default"));
}

/// Ages grow as long as the monitor is heard, and not beyond: what was then is all that is known.
#[test]
fn ages_are_those_of_the_picture() {
    let mut screen = screen();
    let size = (120, 24);
    assert!(text(&mut screen, size, at(1000)).contains("lease ends in 1.9 s"));
    screen.take(News::Alive, at(2000));
    let alive = text(&mut screen, size, at(2100));
    assert!(alive.contains("lease ends in 0.9 s") && alive.contains("heard 1.4 s ago"), "{alive}");
    let silent = text(&mut screen, size, at(60_000));
    assert!(silent.contains("THIS WAS SO 58.0 s AGO: the monitor is silent"), "{silent}");
    assert!(silent.contains("lease ends in 0.9 s"), "{silent}");
    screen.take(News::Alive, at(60_000));
    let back = text(&mut screen, size, at(60_000));
    assert!(back.contains("lease ended") && !back.contains("THIS WAS SO"), "{back}");
}

/// What stands at the bottom of the events.
fn bottom(screen: &mut Screen) -> String {
    let text = text(screen, (40, 30), at(1000));
    let line = text.lines().rev().nth(1).unwrap_or_default();
    line.trim_matches(['"', ' ']).to_owned()
}

#[test]
fn events_can_be_scrolled() {
    let mut screen = screen();
    let last = "timeline 2";
    assert!(bottom(&mut screen).ends_with(last), "{}", bottom(&mut screen));
    key(&mut screen, KeyCode::Up);
    assert!(bottom(&mut screen).ends_with("event 30 happened"));
    // What comes meanwhile does not move what is being read.
    screen.take(News::Event(Box::new(event(32, "event 32 happened"))), at(1000));
    assert!(bottom(&mut screen).ends_with("event 30 happened"));
    key(&mut screen, KeyCode::Down);
    assert!(bottom(&mut screen).ends_with(last));
    key(&mut screen, KeyCode::Down);
    assert!(bottom(&mut screen).ends_with("event 32 happened"));
    assert!(!screen.is_scrolled());
    for _ in 0..20 {
        key(&mut screen, KeyCode::PageUp);
        bottom(&mut screen);
    }
    let oldest = text(&mut screen, (40, 30), at(1000));
    assert!(oldest.contains("event 1 happened"), "{oldest}");
    assert!(bottom(&mut screen).ends_with("happened"), "the room is used: {oldest}");
    // One step back is seen at once.
    let before = bottom(&mut screen);
    key(&mut screen, KeyCode::Down);
    assert_ne!(bottom(&mut screen), before);
    key(&mut screen, KeyCode::End);
    assert!(bottom(&mut screen).ends_with("event 32 happened"));
}

#[test]
fn a_held_picture_stands_still() {
    let mut screen = screen();
    key(&mut screen, KeyCode::Char('p'));
    let mut other = status();
    other.epoch = shared::ids::Epoch(77);
    screen.take(News::Status(Box::new(other)), at(1500));
    let held = text(&mut screen, (80, 24), at(2000));
    assert!(held.contains("epoch 3") && held.contains("IS HELD, for 1.0 s"), "{held}");
    key(&mut screen, KeyCode::Char('p'));
    assert!(text(&mut screen, (80, 24), at(2000)).contains("epoch 77"));
}

/// The names of the nodes from the top.
fn names(screen: &mut Screen) -> Vec<String> {
    let text = text(screen, (120, 24), at(1000));
    let lines = text.lines().map(|line| line.trim_start_matches(['"', '├', '└', '│', ' ']));
    let words = lines.filter_map(|line| line.split(' ').next());
    let names = words.filter(|word| word.starts_with("node") && !word.ends_with(':'));
    names.map(str::to_owned).collect()
}

#[test]
fn the_primary_is_on_top_and_the_rest_is_sorted() {
    let mut screen = screen();
    assert_eq!(names(&mut screen), ["node2", "node1", "node3"]);
    key(&mut screen, KeyCode::Char('s'));
    assert_eq!((screen.sort, names(&mut screen)[1].as_str()), (Sort::State, "node3"));
    key(&mut screen, KeyCode::Char('s'));
    assert_eq!((screen.sort, names(&mut screen)[1].as_str()), (Sort::Lag, "node3"));
    key(&mut screen, KeyCode::Char('s'));
    assert_eq!(screen.sort, Sort::Name);
}

/// A cascade is drawn as one; two that follow each other for a moment are drawn all the same.
#[test]
fn trees() {
    let (mut screen, mut status) = (screen(), status());
    let (first, third) = (status.nodes[0].name.clone(), status.nodes[2].name.clone());
    let has = |screen: &mut Screen, lines: [&str; 3]| {
        let text = text(screen, (120, 24), at(1000));
        assert!(lines.iter().all(|line| text.contains(&format!("\"{line} "))), "{text}");
    };
    has(&mut screen, ["node2", "├ node1", "└ node3"]);
    status.nodes[2].upstream = Some(first);
    screen.take(News::Status(Box::new(status.clone())), at(1000));
    has(&mut screen, ["node2", "└ node1", "  └ node3"]);
    status.nodes[0].upstream = Some(third);
    screen.take(News::Status(Box::new(status)), at(1000));
    has(&mut screen, ["node2", "node1", "└ node3"]);
}

#[test]
fn without_colours_there_are_none() {
    let colours = |screen: &mut Screen| {
        let backend = picture(screen, (120, 24), at(9000));
        let cells = backend.buffer().content().iter();
        cells.filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count()
    };
    let mut screen = screen();
    assert!(colours(&mut screen) > 0);
    screen.theme.colours = false;
    assert_eq!(colours(&mut screen), 0);
}

#[test]
fn nothing_from_elsewhere_reaches_the_terminal_as_an_order() {
    let mut screen = screen();
    let mut status = status();
    status.warnings.push("\x1b[2J\x07 gone".to_owned());
    node(&mut status, 2).step.as_mut().unwrap().name = "cl\x1bone".to_owned();
    screen.take(News::Status(Box::new(status)), at(1000));
    screen.take(News::Event(Box::new(event(32, "a\x1b[31mred one"))), at(1000));
    let backend = picture(&mut screen, (120, 40), at(1000));
    let symbols = backend.buffer().content().iter().map(ratatui::buffer::Cell::symbol);
    assert!(symbols.flat_map(str::chars).all(|c| !c.is_control()));
}
