//! The agent's side of the archive: what it shows to the gate and to the backups, and what it hears of them.

use super::condition::{self, Condition, Known};
use super::gate::{self, Facts, Gate, GateError};
use super::{Archive, backups};
use crate::guard::Right;
use crate::link::Heard;
use crate::local::Look;
use crate::managed;
use crate::node::{Node, SQL_LIMIT};
use fsm::Millis;
use shared::lsn::Lsn;
use shared::spec::Spec;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio::sync::watch;

/// How often the server is asked whether it archives as it was told.
const ASK_MS: u64 = 5000;

/// What the agent has of its archive.
#[derive(Debug)]
pub struct Desk {
    facts: watch::Sender<Option<Facts>>,
    condition: watch::Receiver<Condition>,
    /// When the server was asked last.
    asked: Option<Millis>,
}

/// A gate that is open, and that nobody serves yet.
#[derive(Debug)]
pub struct Opened {
    archive: Archive,
    listener: UnixListener,
    known: Known,
}

impl Opened {
    /// Opens the gate of a node that archives, so that what is in its way is said at the start.
    pub fn new(
        config: &crate::config::Config,
        instance: &postgres::instance::Instance,
    ) -> Result<Option<Self>, GateError> {
        let Some(archive) = config.archive.clone() else { return Ok(None) };
        let listener = gate::listen(&config.state_dir, instance)?;
        let known = condition::load(&config.state_dir)?;
        Ok(Some(Self { archive, listener, known }))
    }

    /// Begins to answer, and to take backups.
    pub fn serve(self, node: &Node, heard: watch::Receiver<Heard>, right: Right) -> Desk {
        let facts = watch::Sender::new(None);
        let start = Condition { known: self.known, ..Condition::default() };
        let (condition, seen) = watch::channel(start);
        let gate = Arc::new(Gate {
            archive: self.archive,
            instance: node.instance.clone(),
            state_dir: node.config.state_dir.clone(),
            facts: facts.subscribe(),
            heard,
            right,
            postmaster: node.postmaster.subscribe(),
            condition,
        });
        let password = node.state.passwords.as_ref().map(|all| all.keeper.clone());
        tokio::spawn(Arc::clone(&gate).run(self.listener));
        tokio::spawn(backups::take(gate, password));
        Desk { facts, condition: seen, asked: None }
    }
}

impl Desk {
    /// How the archive does.
    pub fn condition(&self) -> Condition {
        self.condition.borrow().clone()
    }

    /// Shows what was seen.
    pub fn show(&self, node: &Node, look: &Look, in_force: Option<Spec>) {
        let Some(facts) = facts(node, look, in_force) else { return };
        self.facts.send_if_modified(|before| {
            let facts = Some(facts);
            let changed = *before != facts;
            *before = facts;
            changed
        });
    }

    /// Whether it is time to ask the server about its settings.
    pub fn is_due(&mut self, now: Millis) -> bool {
        let due = self.asked.is_none_or(|at| now.since(at) >= ASK_MS);
        if due {
            self.asked = Some(now);
        }
        due
    }
}

fn facts(node: &Node, look: &Look, in_force: Option<Spec>) -> Option<Facts> {
    let persisted = node.persisted()?.clone();
    let segment_size = node.seen.control.as_ref()?.wal_segment_size;
    let streaming = look.walsenders.iter().filter(|sender| sender.state == "streaming");
    let flushed =
        streaming.filter_map(|it| Some((managed::member_of(&it.application_name)?, it.flush_lsn?)));
    let server = look.view.server.as_ref().filter(|server| !server.in_recovery);
    Some(Facts {
        persisted,
        in_force: in_force.filter(|_| server.is_some()),
        flushed: flushed.collect::<Vec<(_, Lsn)>>(),
        history: server.map(|server| server.history.clone()),
        checkpointed: look.view.checkpointed,
        segment_size,
        rebuilding: node.state.rebuilding || node.job.is_some(),
        restores: look.view.file.restore || node.job.is_some(),
    })
}

impl Node {
    /// Whether the server archives as the managed file says: somebody may overrule that, or it may have to be
    /// restarted for it.
    pub async fn look_after_archiving(&mut self) {
        let asked = tokio::time::timeout(SQL_LIMIT, self.archiving_fault()).await;
        match asked {
            Ok(Ok(None)) => drop(self.warnings.remove("archiving")),
            Ok(Ok(Some(fault))) => drop(self.warnings.insert("archiving", fault)),
            Ok(Err(error)) => tracing::debug!("the settings of archiving are not known: {error}"),
            Err(_) => tracing::debug!("the settings of archiving are not known: no answer"),
        }
    }

    async fn archiving_fault(&mut self) -> Result<Option<String>, postgres::session::SessionError> {
        let name = self.config.name.clone();
        let given = self.persisted().map(|known| known.assignment.settings.values.clone());
        let given = given.unwrap_or_default();
        let session = self.session().await?;
        for setting in ["archive_command", "archive_library", "archive_mode"] {
            if given.contains_key(setting) {
                return Ok(Some(format!(
                    "{setting} was set for the formation and is not used here, since the keeper archives; take it back with `pgtandem config unset {setting}`"
                )));
            }
            let Some(found) = session.setting(setting).await? else { continue };
            let ours = found.source_file.is_none_or(|file| file.ends_with(postgres::config::FILE));
            if !ours {
                return Ok(Some(format!(
                    "{setting} is set elsewhere than in pgtandem.conf, so nothing keeps the archive whole; take it back with ALTER SYSTEM RESET {setting}"
                )));
            }
            if found.pending_restart {
                return Ok(Some(format!(
                    "{setting} has changed: nothing is archived before a restart, `pgtandem restart {name}`"
                )));
            }
        }
        Ok(None)
    }
}
