//! Rule 9: changing the sync spec so that no commit is acknowledged under neither the old nor the new
//! one. The signs are those of `docs/postgres-facts.md`, sections 1, 2 and 5.

use super::StepError;
use crate::managed;
use crate::node::{Node, ProbeTask};
use fsm::node::{File, Sync};
use postgres::session::primary::{Probe, SYNC_WAIT, Walsender};
use postgres::session::{Session, SessionError};
use shared::spec::Spec;
use std::time::Duration;
use tokio::time::Instant;

/// How long the signs are awaited before the agent looks around again.
const SIGNS_LIMIT: Duration = Duration::from_millis(1500);
/// A walsender that has not shown a sign by then is terminated, and connects again under the file.
const WALSENDER_PATIENCE: Duration = Duration::from_millis(700);
/// Signs come within milliseconds; there is no event for them.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// The barrier is awaited in slices, so that a new goal is heard meanwhile.
const BARRIER_SLICE: Duration = Duration::from_millis(100);
/// A probe may wait for ever for a standby that is gone; it ends with its backend.
const PROBE_LIMIT: Duration = Duration::from_hours(24 * 365);

impl Node {
    /// (i): nothing is acknowledged any more, which has been seen.
    pub(super) async fn block(&mut self) -> Result<(), StepError> {
        self.end_old_admissions().await?;
        self.end_probe().await;
        self.seen.sync = Sync::Unknown;
        self.configure(&File { upstream: None, spec: None, current: true, restore: false }).await?;
        let wanted = Spec::blocking_setting();
        self.await_signs(&wanted, "the signs that no commit is acknowledged", |sender| {
            sender.sync_priority == 0
        })
        .await?;
        self.begin_probe().await?;
        self.seen.barrier = None;
        self.seen.sync = Sync::Blocked;
        Ok(())
    }

    /// (ii): the members of `spec` may acknowledge, which has been seen of all that are connected.
    pub(super) async fn set_spec(&mut self, spec: &Spec) -> Result<(), StepError> {
        // From here on the file's content is unseen: it is not written again before its signs are.
        self.seen.sync = Sync::Unknown;
        self.configure(&File {
            upstream: None,
            spec: Some(spec.clone()),
            current: true,
            restore: false,
        })
        .await?;
        let members = spec.standbys.clone();
        self.await_signs(&spec.setting(), "the signs of the new sync spec", |sender| {
            let named = managed::member_of(&sender.application_name);
            named.is_none_or(|id| !members.contains(&id)) || sender.sync_priority != 0
        })
        .await?;
        if spec.is_asynchronous() {
            self.await_release().await?;
        }
        self.seen.barrier = None;
        self.seen.sync = Sync::Set(spec.generation);
        Ok(())
    }

    /// (iii): everything before the barrier is where the new spec wants it.
    pub(super) async fn barrier(&mut self, spec: &Spec) -> Result<(), StepError> {
        let barrier = match self.seen.barrier {
            Some((generation, barrier)) if generation == spec.generation => barrier,
            _ => {
                let session = self.session().await?;
                // Without a record of our own the standbys stay silent, and commits with them.
                session.write_record().await?;
                let barrier = session.flush_lsn().await?;
                self.seen.barrier = Some((spec.generation, barrier));
                barrier
            }
        };
        let deadline = Instant::now() + BARRIER_SLICE;
        loop {
            let rows = self.session().await?.replication().await?;
            let passed = rows.iter().filter(|row| {
                let member = managed::member_of(&row.application_name);
                row.state == "streaming"
                    && member.is_some_and(|id| spec.standbys.contains(&id))
                    && row.flush_lsn.is_some_and(|flushed| flushed >= barrier)
            });
            if passed.count() >= spec.required {
                self.seen.sync = Sync::InForce(spec.generation);
                self.seen.settled = true;
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(StepError::NotYet("the barrier: standbys of the new sync spec"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// A new connection shows the setting, then every member's walsender shows the sign. A row whose
    /// flush is NULL shows 0 whatever it runs under, so it is waited for, and ended if it stays.
    async fn await_signs(
        &mut self,
        setting: &str,
        what: &'static str,
        sign: impl Fn(&Walsender) -> bool,
    ) -> Result<(), StepError> {
        let begun = Instant::now();
        let mut shown = false;
        loop {
            let session = self.connect().await?;
            if !shown {
                let found = session.setting("synchronous_standby_names").await?;
                shown = found.is_some_and(|found| found.value == setting);
            }
            let rows = session.replication().await?;
            let missing: Vec<_> = rows
                .iter()
                .filter(|row| managed::member_of(&row.application_name).is_some())
                .filter(|row| row.flush_lsn.is_none() || !sign(row))
                .collect();
            if shown && missing.is_empty() {
                self.session = Some(session);
                return Ok(());
            }
            if begun.elapsed() > WALSENDER_PATIENCE && shown {
                for row in missing {
                    tracing::warn!(
                        pid = row.pid,
                        "walsender {} of {} does not show the new sync spec, it is ended",
                        row.pid,
                        row.application_name
                    );
                    session.terminate(row.pid).await?;
                }
            }
            if begun.elapsed() > SIGNS_LIMIT {
                return Err(StepError::NotYet(what));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// A probe commit is seen waiting: the checkpointer's flag has caught up too.
    async fn begin_probe(&mut self) -> Result<(), StepError> {
        let session = self.connect().await?;
        let pid = session.backend_pid();
        let task = tokio::spawn(probe(session));
        let probe = ProbeTask { pid, task };
        let deadline = Instant::now() + SIGNS_LIMIT;
        loop {
            let waits = self.session().await?.backend_wait_event(pid).await?;
            if waits.as_deref() == Some(SYNC_WAIT) {
                self.seen.probe = Some(probe);
                return Ok(());
            }
            if probe.task.is_finished() || Instant::now() > deadline {
                self.session().await?.terminate(pid).await?;
                return Err(StepError::NotYet("the sign that commits wait"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Going to asynchronous: a probe returns by itself, without a warning; otherwise a checkpointer
    /// that is late could release commits of a later spec (C18).
    async fn await_release(&mut self) -> Result<(), StepError> {
        let mut probe = if let Some(probe) = self.seen.probe.take() {
            probe
        } else {
            let session = self.connect().await?;
            ProbeTask { pid: session.backend_pid(), task: tokio::spawn(probe(session)) }
        };
        match tokio::time::timeout(SIGNS_LIMIT, &mut probe.task).await {
            Ok(Ok(true)) => Ok(()),
            Ok(_) => Err(StepError::NotYet("a probe commit that was released")),
            Err(_) => {
                self.seen.probe = Some(probe);
                Err(StepError::NotYet("the release of the probe commit"))
            }
        }
    }

    /// Makes the standbys reply now: an idle primary hears from them once a second, which is longer than a
    /// short lease.
    pub async fn ask_for_replies(&mut self) {
        let asked = async { self.session().await?.write_record().await };
        if let Err(error) = asked.await {
            tracing::debug!("the standbys were not asked: {error}");
        }
    }

    async fn end_probe(&mut self) {
        if let Some(probe) = self.seen.probe.take()
            && !probe.task.is_finished()
            && let Ok(session) = self.session().await
            && let Err(error) = session.terminate(probe.pid).await
        {
            tracing::debug!("the old probe could not be ended: {error}");
        }
    }
}

/// Whether a probe commit returned without a warning.
async fn probe(session: Session) -> bool {
    let outcome: Result<Probe, SessionError> = session.probe(PROBE_LIMIT).await;
    matches!(outcome, Ok(Probe::Released))
}
