//! What hooks are told of this node, and which events a change of it is. Pure.

use super::{ON_ROLE_CHANGE, POST_PROMOTE};
use fsm::node::view::Persisted;
use fsm::node::{LocalView, Process};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shared::goal::Member;
use shared::ids::{Epoch, NodeId};

/// What a node is to its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Its Postgres does not run.
    #[default]
    None,
    /// It runs and takes no writes.
    Standby,
    /// It is the primary of its epoch.
    Primary,
}

impl Role {
    /// The word for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Standby => "standby",
            Self::Primary => "primary",
        }
    }

    /// What a look tells of it: nothing of a Postgres that is starting, does not answer, or is not what it has
    /// been promoted to yet. Then it is still what it was.
    pub fn of(view: &LocalView, persisted: &Persisted) -> Option<Self> {
        let epoch = persisted.assignment.epoch;
        let promoted = persisted.promoted.as_ref().is_some_and(|it| it.epoch == epoch);
        match (view.process, &view.server) {
            (Process::Stopped, _) => Some(Self::None),
            (Process::Starting | Process::Running, Some(server)) if server.in_recovery => {
                Some(Self::Standby)
            }
            (Process::Starting | Process::Running, Some(_)) => promoted.then_some(Self::Primary),
            (Process::Starting | Process::Running, None) => None,
        }
    }
}

/// A node and where its Postgres is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// The address of its Postgres.
    pub host: String,
    /// The port of its Postgres.
    pub port: u16,
}

impl From<&Member> for Peer {
    fn from(member: &Member) -> Self {
        Self { name: member.name.to_string(), host: member.host.clone(), port: member.port }
    }
}

/// What is known of the node and its group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// What it is.
    pub role: Role,
    /// As the primary: commits are being acknowledged, by whom they have to be.
    pub takes_writes: bool,
    /// The epoch that it knows.
    pub epoch: Epoch,
    /// The timeline of its Postgres.
    pub timeline: Option<u32>,
    /// The node itself.
    pub own: Option<Peer>,
    /// The primary, where there is one.
    pub primary: Option<Peer>,
}

impl Facts {
    /// From a look at a node of this role.
    pub fn of(
        (id, role): (NodeId, Role),
        view: &LocalView,
        persisted: &Persisted,
        takes_writes: bool,
    ) -> Self {
        let assignment = &persisted.assignment;
        let own = (role == Role::Primary).then_some(id);
        let primary = own.or(assignment.goal.primary());
        let peer = |id: NodeId| assignment.member(id).map(Peer::from);
        Self {
            role,
            takes_writes: role == Role::Primary && takes_writes,
            epoch: assignment.epoch,
            timeline: view.server.as_ref().map(|server| server.history.timeline.0),
            own: peer(id),
            primary: primary.and_then(peer),
        }
    }

    /// The fields of a notice, on top of those of the event.
    pub fn fields(&self) -> Map<String, Value> {
        let peer = |peer: &Option<Peer>| match peer {
            Some(Peer { name, host, port }) => (json!(name), json!(host), json!(port)),
            None => (Value::Null, Value::Null, Value::Null),
        };
        let ((node, host, port), (primary, primary_host, primary_port)) =
            (peer(&self.own), peer(&self.primary));
        let fields = [
            ("role", json!(self.role)),
            ("epoch", json!(self.epoch)),
            ("timeline", json!(self.timeline)),
            ("node", node),
            ("host", host),
            ("port", port),
            ("primary", primary),
            ("primary_host", primary_host),
            ("primary_port", primary_port),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// What the runner knew last, durably.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    /// The role that was told last.
    pub role: Role,
    /// The epoch in which this node was the primary and said so.
    pub promoted: Option<Epoch>,
}

impl Known {
    /// The events that lead from what was known to these facts, with their further fields, in order. Nothing is
    /// lost by a restart in between: what is known is what was told.
    pub fn events(&mut self, facts: &Facts) -> Vec<(&'static str, Map<String, Value>)> {
        let mut events = Vec::new();
        let old_role = ("old_role".to_owned(), json!(self.role));
        if self.role != facts.role {
            events.push((ON_ROLE_CHANGE, Map::from_iter([old_role.clone()])));
        }
        if facts.takes_writes && self.promoted != Some(facts.epoch) {
            self.promoted = Some(facts.epoch);
            events.push((POST_PROMOTE, Map::from_iter([old_role])));
        }
        self.role = facts.role;
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A keeper that is restarted beside a server that is busy has no news.
    #[test]
    fn a_role_is_not_guessed() {
        let mut persisted: Persisted = serde_json::from_value(json!({
            "own": 1, "sealed": null, "admitted": null, "promoted": null,
            "assignment": {
                "order": { "ticket": 3, "generation": 1 }, "epoch": 2, "goal_state": "primary",
                "goal": { "kind": "wait" }, "members": [], "lineage": [],
                "system_identifier": null, "may_stop": false,
                "timers": shared::settings::Settings::default().timers(),
            },
        }))
        .unwrap();
        let server = |in_recovery| fsm::node::Server {
            in_recovery,
            history: shared::history::History {
                ancestors: Vec::new(),
                timeline: shared::ids::TimelineId(3),
            },
            end: None,
            sealed: false,
            streaming: false,
        };
        let view = |process, server| LocalView { process, server, ..view_of_nothing() };
        let told =
            |persisted: &Persisted, process, server| Role::of(&view(process, server), persisted);
        assert_eq!(told(&persisted, Process::Stopped, None), Some(Role::None));
        assert_eq!(told(&persisted, Process::Starting, None), None);
        assert_eq!(told(&persisted, Process::Running, None), None);
        assert_eq!(told(&persisted, Process::Running, Some(server(true))), Some(Role::Standby));
        assert_eq!(told(&persisted, Process::Running, Some(server(false))), None);
        persisted.promoted = Some(shared::report::Promoted {
            epoch: Epoch(2),
            timeline: shared::ids::TimelineId(3),
            parent: None,
            start: shared::lsn::Lsn(1),
            ancestors: Vec::new(),
        });
        let primary = told(&persisted, Process::Running, Some(server(false)));
        assert_eq!(primary, Some(Role::Primary));
    }

    fn view_of_nothing() -> LocalView {
        LocalView {
            data: fsm::node::Data::Unusable,
            process: Process::Stopped,
            server: None,
            file: fsm::node::File { upstream: None, spec: None, restore: false, current: true },
            sync: fsm::node::Sync::Unknown,
            settled: false,
            sealing_for_ms: 0,
            checkpointed: false,
            heard: true,
            may_write: false,
            stopping: false,
            adopted: true,
            broken: false,
            upstream_lacks: None,
            due: None,
            hook: fsm::node::consent::Asked::Clear,
            archive: fsm::node::Archive::None,
        }
    }

    #[test]
    fn each_change_is_told_once() {
        let mut known = Known::default();
        let mut told = |role, takes_writes, epoch| {
            let facts = Facts { role, takes_writes, epoch: Epoch(epoch), ..Facts::default() };
            let events = known.events(&facts);
            let told =
                events.iter().map(|(event, fields)| format!("{event} {}", fields["old_role"]));
            told.collect::<Vec<_>>()
        };
        assert_eq!(told(Role::None, false, 1), [""; 0]);
        assert_eq!(told(Role::Standby, false, 1), ["on_role_change \"none\""]);
        assert_eq!(told(Role::Standby, false, 2), [""; 0]);
        assert_eq!(told(Role::Primary, false, 3), ["on_role_change \"standby\""]);
        assert_eq!(told(Role::Primary, true, 3), ["post_promote \"primary\""]);
        // A change of the sync set, then a restart.
        assert_eq!(told(Role::Primary, false, 3), [""; 0]);
        assert_eq!(told(Role::None, false, 3), ["on_role_change \"primary\""]);
        assert_eq!(told(Role::Primary, true, 3), ["on_role_change \"none\""]);
        // Elected again, without having been anything else.
        assert_eq!(told(Role::Primary, true, 5), ["post_promote \"primary\""]);
    }
}
