//! Settings of PostgreSQL: what is refused, what is recorded, and that no order of raising, lowering,
//! elections and restarts leaves a node that cannot start.

use crate::group::{ask, healthy, node};
use fsm::group::goals;
use fsm::group::pgsettings::{config, settings_of};
use fsm::group::request::{Reply, apply};
use fsm::group::view::Evidence;
use fsm::group::{Record, View};
use fsm::node::pgsettings::{Local, Side, cannot_replay, values};
use fsm::pgsettings::managed::why_refused;
use proptest::prelude::*;
use shared::api::{Action, Outcome};
use shared::ids::{GroupId, NodeId, Revision};
use shared::pgsettings::{Catalogue, Known, NodeSettings, Required};
use shared::report::Report;
use shared::settings::Settings;
use sim::{World, at};
use std::collections::BTreeMap;

const NAME: &str = "max_connections";

fn known(vartype: &str, unit: Option<&str>, bounds: Option<(&str, &str)>, context: &str) -> Known {
    Known {
        vartype: vartype.to_owned(),
        unit: unit.map(str::to_owned),
        min_val: bounds.map(|(min, _)| min.to_owned()),
        max_val: bounds.map(|(_, max)| max.to_owned()),
        enumvals: Vec::new(),
        context: context.to_owned(),
    }
}

fn catalogue() -> Catalogue {
    let rows = [
        ("work_mem", known("integer", Some("kB"), Some(("64", "2147483647")), "user")),
        ("TimeZone", known("string", None, None, "user")),
        (NAME, known("integer", None, Some(("1", "262143")), "postmaster")),
        ("wal_level", known("enum", None, None, "postmaster")),
        ("block_size", known("integer", None, Some(("8192", "8192")), "internal")),
        ("port", known("integer", None, Some(("1", "65535")), "postmaster")),
    ];
    let mut settings: BTreeMap<_, _> = rows.map(|(name, known)| (name.to_owned(), known)).into();
    settings.get_mut("wal_level").unwrap().enumvals =
        ["minimal", "replica", "logical"].map(str::to_owned).to_vec();
    Catalogue { version: "15.18".to_owned(), settings }
}

/// A healthy group of three, whose servers have said what they know.
fn world() -> World {
    let mut world = healthy(3);
    world.monitor.view_mut().catalogues.insert("15.18".to_owned(), catalogue());
    world
}

fn wish(node: Option<&str>, changes: &[(&str, Option<&str>)]) -> Action {
    let own = |(name, value): &(&str, Option<&str>)| ((*name).to_owned(), value.map(str::to_owned));
    Action::Configure {
        node: node.map(|name| name.parse().unwrap()),
        changes: changes.iter().map(own).collect(),
        if_revision: None,
        by: Some("ann".to_owned()),
    }
}

fn decided(world: &mut World, action: &Action) -> Vec<shared::event::Event> {
    match ask(world, action) {
        Ok(Reply::Decided(decision, result)) => {
            assert_eq!(result.outcome, Outcome::Done);
            let events = decision.events.clone();
            world.monitor.commit(*decision, world.now);
            assert_eq!(world.monitor.violation, None);
            events
        }
        other => panic!("{action:?}: {other:?}"),
    }
}

#[test]
fn what_is_refused_and_how() {
    let world = world();
    for (name, value, code, reason, text) in [
        ("port", "1", 3, "managed_setting", "port: cannot be set here"),
        ("Synchronous_Standby_Names", "", 3, "managed_setting", "pgtandem sync"),
        ("block_size", "1", 3, "managed_setting", "how the server was built"),
        ("pgtandem.settings", "1", 3, "managed_setting", "pgtandem's own"),
        ("work_men", "1MB", 1, "unknown_setting", "the nearest is work_mem"),
        ("a..b", "1", 1, "unknown_setting", "no name of a setting"),
        ("work_mem", "1kB", 1, "bad_value", "work_mem: '1kB' is out of range: from 64kB"),
        ("work_mem", "4MB\nport = 1", 1, "bad_value", "line break"),
        (NAME, "5", 1, "bad_value", "at least 20"),
        ("wal_level", "minimal", 1, "bad_value", "not enough for standbys"),
    ] {
        let error = ask(&world, &wish(None, &[(name, Some(value))])).unwrap_err();
        assert_eq!((error.code, error.reason.as_str()), (code, reason), "{name}: {error}");
        assert!(error.message.contains(text), "{}", error.message);
        assert!(!error.message.contains('\n'), "{}", error.message);
    }
    // All faults of a request, a line each; and nothing of it holds.
    let both = wish(None, &[("foo", Some("1")), ("port", Some("1")), ("work_mem", Some("8MB"))]);
    assert_eq!(ask(&world, &both).unwrap_err().message.lines().count(), 2);
    let nobody = ask(&world, &wish(Some("nobody"), &[("work_mem", Some("8MB"))])).unwrap_err();
    assert_eq!((nobody.code, nobody.reason.as_str()), (1, "unknown_node"));
}

#[test]
fn without_a_catalogue_nothing_can_be_set_but_taken_back() {
    let mut world = world();
    decided(&mut world, &wish(None, &[("work_mem", Some("8MB"))]));
    world.monitor.view_mut().catalogues.clear();
    let error = ask(&world, &wish(None, &[("work_mem", Some("9MB"))])).unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (6, "no_catalogue"));
    decided(&mut world, &wish(None, &[("work_mem", None)]));
    assert!(world.monitor.record.postgres.formation.is_empty());
}

#[test]
fn what_is_set_is_kept_told_and_in_the_events() {
    let mut world = world();
    let first = wish(None, &[("timezone", Some("UTC")), ("WORK_MEM", Some(" 8MB "))]);
    let events = decided(&mut world, &first);
    let reasons: Vec<_> = events.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "TimeZone of all nodes is now 'UTC', was not set, by ann",
            "work_mem of all nodes is now '8MB', was not set, by ann"
        ]
    );
    assert!(matches!(ask(&world, &first), Ok(Reply::Already(_))));
    let revision = world.monitor.record.postgres.revision;
    let (id, name) = {
        let (id, node) = world.monitor.record.nodes.iter().next().unwrap();
        (*id, node.name.to_string())
    };
    let events = decided(&mut world, &wish(Some(&name), &[("work_mem", Some("16MB"))]));
    assert_eq!((events[0].node_id, events[0].to.as_deref()), (Some(id), Some("16MB")));
    let record = &world.monitor.record;
    assert!(record.postgres.revision > revision);
    for node in record.nodes.keys() {
        let told = goals::assignment(record, &world.monitor.view, *node).unwrap().settings;
        let own = if *node == id { "16MB" } else { "8MB" };
        assert_eq!((told.values["work_mem"].as_str(), told.limits.len()), (own, 0));
        assert_eq!(told.revision, record.postgres.revision);
    }
    // Whoever looked before the last change has not seen it.
    let mut late = wish(None, &[("work_mem", Some("1MB"))]);
    if let Action::Configure { if_revision, .. } = &mut late {
        *if_revision = Some(revision);
    }
    let error = ask(&world, &late).unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (6, "changed_meanwhile"));
    decided(&mut world, &wish(Some(&name), &[("work_mem", None)]));
    assert!(world.monitor.record.postgres.nodes.is_empty());
}

/// PostgreSQL does not tell upper from lower case in names, and keeps the blanks of a text.
#[test]
fn a_setting_is_kept_once_and_a_text_whole() {
    let mut world = world();
    decided(&mut world, &wish(None, &[("App.Name", Some("a")), ("timezone", Some("UTC "))]));
    decided(&mut world, &wish(None, &[("app.NAME", Some("b"))]));
    let kept: Vec<_> = world.monitor.record.postgres.formation.clone().into_iter().collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(kept, [pair("TimeZone", "UTC "), pair("app.name", "b")]);
}

#[test]
fn what_goes_with_a_node_is_forgotten_with_it() {
    let mut world = world();
    let (id, name) = {
        let (id, node) = world.monitor.record.nodes.iter().next_back().unwrap();
        (*id, node.name.clone())
    };
    decided(&mut world, &wish(Some(name.as_str()), &[(NAME, Some("0100"))]));
    let record = &world.monitor.record;
    // Kept as the number that it is.
    assert_eq!(record.postgres.nodes[&id][NAME], "64");
    let drop = Action::Drop { node: name, force: true, destroy: false };
    let Ok(Reply::Decided(decision, _)) = ask(&world, &drop) else { panic!("not dropped") };
    let postgres = decision.record.postgres;
    assert!(postgres.nodes.is_empty() && postgres.released.contains(NAME), "{postgres:?}");
}

#[test]
fn a_record_from_before_can_be_read() {
    let mut old = serde_json::to_value(&*world().monitor.record).unwrap();
    old.as_object_mut().unwrap().remove("postgres").unwrap();
    let read: Record = serde_json::from_value(old).unwrap();
    assert_eq!(read.postgres.revision, Revision(0));
    assert!(why_refused("work_mem").is_none());
}

/// A node of a made-up group, as far as one setting goes.
#[derive(Clone, Debug)]
struct Server {
    running: Option<u64>,
    /// What the log that is on its disk demands of a standby; of a primary, what it runs with.
    control: u64,
    /// What the managed file says.
    file: Option<u64>,
    told: NodeSettings,
}

/// What would count without the managed file.
const BENEATH: u64 = 100;

#[derive(Clone, Debug)]
struct Group {
    record: Record,
    view: View,
    servers: BTreeMap<NodeId, Server>,
    /// What could not be started, or was started with too little.
    faults: Vec<String>,
}

impl Group {
    fn new(count: u64) -> Self {
        let mut record = Record::new("default".parse().unwrap(), GroupId(0), Settings::default());
        let server = Server {
            running: Some(BENEATH),
            control: BENEATH,
            file: None,
            told: NodeSettings::default(),
        };
        let mut servers = BTreeMap::new();
        for id in (1..=count).map(NodeId) {
            record.nodes.insert(id, node(id));
            servers.insert(id, server.clone());
        }
        record.primary = Some(NodeId(1));
        Self { record, view: View::default(), servers, faults: Vec::new() }
    }

    fn is_primary(&self, id: NodeId) -> bool {
        self.record.primary == Some(id)
    }

    fn set(&mut self, value: Option<u64>) {
        let value = value.map(|value| value.to_string());
        let changes = [(NAME.to_owned(), value)].into();
        let action = Action::Configure { node: None, changes, if_revision: None, by: None };
        self.view.catalogues.insert("15".to_owned(), catalogue());
        if let Reply::Decided(decision, _) =
            apply(&self.record, &self.view, &action, at(0)).unwrap()
        {
            self.record = decision.record;
        }
    }

    /// A keeper and the monitor talk; the keeper writes what comes of it.
    fn talk(&mut self, id: NodeId) {
        let server = &self.servers[&id];
        let mut report = Report::of_new_node("keeper");
        if let Some(running) = server.running {
            let next = Some(server.file.unwrap_or(BENEATH));
            report.settings.required.insert(NAME.to_owned(), Required { running, next });
        }
        self.view.nodes.insert(id, Evidence { report: Some(report), ..Evidence::default() });
        self.servers.get_mut(&id).unwrap().told = settings_of(&self.record, &self.view, id);
        self.write(id);
    }

    fn local(server: &Server) -> BTreeMap<&'static str, Local> {
        let local = Local {
            running: server.running,
            control: Some(server.control),
            // A keeper can always find out what counts now.
            beneath: (server.running.is_some() || server.file.is_none()).then_some(BENEATH),
            file: server.file,
        };
        [(NAME, local)].into()
    }

    fn write(&mut self, id: NodeId) {
        let side = if self.is_primary(id) { Side::Primary } else { Side::Standby };
        let server = self.servers.get_mut(&id).unwrap();
        let given = values(&server.told, side, &Self::local(server));
        server.file = given.get(NAME).map(|value| value.parse().unwrap());
        // Writing again changes nothing.
        assert_eq!(values(&server.told, side, &Self::local(server)), given);
    }

    /// A keeper looks at its file before each start.
    fn restart(&mut self, id: NodeId) {
        self.servers.get_mut(&id).unwrap().running = None;
        self.write(id);
        let primary = self.is_primary(id);
        let server = self.servers.get_mut(&id).unwrap();
        let value = server.file.unwrap_or(BENEATH);
        if !primary && value < server.control {
            self.faults.push(format!("{id} does not start with {value} below {}", server.control));
        }
        server.running = Some(value);
        if primary {
            server.control = value;
        }
    }

    /// The log reaches a standby, which restarts by itself if it cannot go on.
    fn replay(&mut self, id: NodeId) {
        let Some(primary) = self.record.primary.filter(|primary| *primary != id) else { return };
        let demanded = self.servers[&primary].control;
        let server = self.servers.get_mut(&id).unwrap();
        server.control = demanded;
        self.talk(id);
        let server = &self.servers[&id];
        if cannot_replay(&server.told, &Self::local(server)).is_some() {
            self.restart(id);
        }
        let running = self.servers[&id].running;
        if running.is_some_and(|running| running < demanded) {
            self.faults.push(format!("{id} runs with {running:?} below {demanded}"));
        }
    }

    /// Another node is elected: it goes on with what it runs with.
    fn promote(&mut self, id: NodeId) {
        self.record.primary = Some(id);
        self.talk(id);
        let server = self.servers.get_mut(&id).unwrap();
        server.control = server.running.unwrap_or(server.control);
        // Who served before comes back as a standby.
        for other in self.servers.keys().copied().collect::<Vec<_>>() {
            self.talk(other);
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Set(Option<u64>),
    Talk(u64),
    Restart(u64),
    Replay(u64),
    Promote(u64),
}

fn event(count: u64) -> impl Strategy<Value = Event> {
    let value = prop::sample::select(vec![None, Some(40), Some(80), Some(150), Some(300)]);
    prop_oneof![
        2 => value.prop_map(Event::Set),
        6 => (1..=count).prop_map(Event::Talk),
        4 => (1..=count).prop_map(Event::Restart),
        4 => (1..=count).prop_map(Event::Replay),
        1 => (1..=count).prop_map(Event::Promote),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Every start succeeds, and no standby stays with less than what the log demands; and once nobody
    /// interferes any more, everybody has what was set.
    #[test]
    fn no_order_of_events_keeps_a_node_down(
        count in 2_u64..=4,
        events in prop::collection::vec(event(4), 1..60),
        last in prop::sample::select(vec![None, Some(40), Some(300)]),
    ) {
        let mut group = Group::new(count);
        for event in events {
            let id = |number: u64| NodeId(1 + (number - 1) % count);
            match event {
                Event::Set(value) => group.set(value),
                Event::Talk(number) => group.talk(id(number)),
                Event::Restart(number) => group.restart(id(number)),
                Event::Replay(number) => group.replay(id(number)),
                Event::Promote(number) => group.promote(id(number)),
            }
            prop_assert!(group.faults.is_empty(), "{:?}", group.faults);
        }
        group.set(last);
        for _ in 0..4 {
            for id in (1..=count).map(NodeId) {
                group.talk(id);
                group.restart(id);
                group.replay(id);
                group.talk(id);
            }
        }
        prop_assert!(group.faults.is_empty(), "{:?}", group.faults);
        for (id, server) in &group.servers {
            prop_assert_eq!(server.running, Some(last.unwrap_or(BENEATH)), "{}", id);
            prop_assert_eq!(server.file, last, "{}", id);
        }
    }
}

#[test]
fn who_waits_for_whom_is_said() {
    let mut group = Group::new(3);
    group.set(Some(300));
    for id in (1..=3).map(NodeId) {
        group.talk(id);
    }
    let waits = |group: &Group| {
        let config = config(&group.record, &group.view, at(0));
        config.nodes.into_iter().map(|node| node.waits.join("; ")).collect::<Vec<_>>()
    };
    let text =
        "max_connections stays at 100 until it is at least 300 on n2, n3: restart there first";
    assert_eq!(waits(&group), [text, "", ""]);
    for id in [2, 3, 1].map(NodeId) {
        group.talk(id);
        group.restart(id);
        group.talk(id);
    }
    assert_eq!(waits(&group), ["", "", ""]);
    group.set(Some(100));
    for id in (1..=3).map(NodeId) {
        group.talk(id);
    }
    let text = "max_connections stays at 300 until it is at most 100 on n1: restart there first";
    assert_eq!(waits(&group), ["", text, text]);
}
