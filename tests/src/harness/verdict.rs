//! What every test ends with.
//!
//! 1. every acknowledged row is on the final primary exactly once, and no refused one is ([`rows`]);
//! 2. what callers were told of registers and lists is what one register and one list would have told
//!    them ([`registers`], [`lists`]);
//! 3. never have two servers acknowledged in overlapping time ([`reigns`]);
//! 4. every node is what it should be, exactly one of them is the primary ([`states`]);
//! 5. what the primary waits for is what the monitor says ([`states`]);
//! 6. the standbys hold what the primary holds;
//! 7. no program has ended by itself, and no log has a line that nobody expected ([`logs`]);
//! 8. everything that was decided, planned and observed is what the model allows ([`fit`]).

pub mod fit;
pub mod linearizable;
pub mod lists;
pub mod logs;
pub mod registers;
pub mod reigns;
pub mod rows;
pub mod states;

use super::cluster::{Cluster, node_of, summary};
use super::history::History;
use super::history::operations::{List, Register};
use super::node::Node;
use super::sql::Sql;
use super::wait::{DEADLINE, eventually};
use super::workload::Workload;
use anyhow::{Context as _, Result, bail, ensure};
use logs::Expected;
use rows::{Rows, Wrong};
use std::time::{Duration, Instant};
use tokio_postgres::Row;

/// For what is settled already and only has to be seen.
const SOON: Duration = Duration::from_secs(15);

/// What this test does differently. By default nothing is.
#[derive(Debug)]
pub struct Verdict<'a> {
    cluster: &'a Cluster,
    loss_accepted: bool,
    expected: Vec<Expected>,
}

impl Cluster {
    /// The end of a test.
    pub fn judge(&self) -> Verdict<'_> {
        Verdict { cluster: self, loss_accepted: false, expected: Vec::new() }
    }

    /// The end of a test that does nothing out of the ordinary.
    pub async fn verdict(&self, workload: Workload) -> Result<History> {
        self.judge().of(workload).await
    }
}

impl Verdict<'_> {
    /// The operator gave up commits: acknowledged rows may be missing.
    #[must_use]
    pub fn accepting_loss(mut self) -> Self {
        self.loss_accepted = true;
        self
    }

    /// This test provokes log lines that have this text in them.
    #[must_use]
    pub fn expecting(mut self, text: &'static str, why: &'static str) -> Self {
        self.expected.push(Expected { text, why });
        self
    }

    /// Stops the writers, waits until all is settled, and judges.
    pub async fn of(self, workload: Workload) -> Result<History> {
        // Settled first, so that the writers have seen everything.
        self.cluster.settled().await?;
        let history = workload.finish().await;
        let mut wrong = reigns::check(&history);
        self.cluster.settled().await?;
        let primary = self.cluster.primary().await?;
        for found in compare(&history, &primary.sql().await?).await? {
            if !self.loss_accepted {
                wrong.extend(found.lost);
            }
            wrong.extend(found.other);
        }
        wrong.extend(self.same_on_standbys(primary).await.err().map(|error| format!("{error:#}")));
        self.conclude(wrong).await.with_context(|| history.summary())?;
        Ok(history)
    }

    /// Judges a test that has not written.
    pub async fn without_workload(self) -> Result<()> {
        self.cluster.settled().await?;
        self.conclude(Vec::new()).await
    }

    /// Judges the logs only: of a test in which there is no group to settle.
    pub fn logs_only(self) -> Result<()> {
        self.finish(Vec::new())
    }

    async fn conclude(self, mut wrong: Vec<String>) -> Result<()> {
        let states = eventually("states and settings that agree", SOON, async || {
            let wrong = self.states().await?;
            Ok(if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) })
        });
        wrong.extend(states.await.err().map(|error| format!("{error:#}")));
        self.finish(wrong)
    }

    fn finish(self, mut wrong: Vec<String>) -> Result<()> {
        wrong.extend(self.cluster.nobody_ended().err().map(|error| format!("{error:#}")));
        for path in self.cluster.sandbox().logs() {
            let lines = logs::unexpected(&path, &self.expected)?;
            let name = path.strip_prefix(self.cluster.sandbox().root()).unwrap_or(&path);
            wrong.extend(lines.into_iter().map(|line| format!("{}: {line}", name.display())));
        }
        wrong.extend(self.fit()?);
        if !wrong.is_empty() {
            bail!("verdict:\n  {}", wrong.join("\n  "));
        }
        self.cluster.pass();
        Ok(())
    }

    /// What of the traces does not fit the model.
    fn fit(&self) -> Result<Vec<String>> {
        let begun = Instant::now();
        let fit = fit::check(&self.cluster.sandbox().traces())?;
        eprintln!(
            "replayed {} decisions, {} passes and {} steps, in {} classes after {} walks, in {:?}",
            fit.decisions,
            fit.passes,
            fit.steps,
            fit.classes,
            fit.walks,
            begun.elapsed()
        );
        Ok(fit.wrong)
    }

    async fn states(&self) -> Result<Vec<String>> {
        let status = self.cluster.monitor().status().await?;
        let mut wrong = states::unsettled(&status, &self.cluster.names_up());
        for node in &status.nodes {
            if !self.cluster.node(node.name.as_str())?.is_up() {
                wrong.push(format!("{} is in the group and not up", node.name));
            }
        }
        let primary = self.cluster.primary().await?;
        let live: String =
            primary.sql().await?.value("show synchronous_standby_names", &[]).await?;
        wrong.extend(states::sync_disagreement(&status, &live));
        if !wrong.is_empty() {
            wrong.push(summary(&status));
        }
        Ok(wrong)
    }

    /// A standby that has replayed all that the primary has holds the same rows.
    async fn same_on_standbys(&self, primary: &Node) -> Result<()> {
        const CONTENT: &str = "select count(*)::text || ' rows, ' || \
            coalesce(sum(hashtextextended(row, 0))::text, '') from (\
            select writer || ' ' || id from ledger union all \
            select 'register ' || key || ' ' || value from registers union all \
            select 'list ' || key || ' ' || items::text from lists) content (row)";
        let source = primary.sql().await?;
        // Commits that were waiting for a standby when its copy was begun cannot be seen there before
        // another transaction ends (docs/postgres-facts.md).
        source.run("select pg_logical_emit_message(true, 'verdict', '')").await?;
        let end: String = source.value("select pg_current_wal_insert_lsn()::text", &[]).await?;
        let wanted: String = source.value(CONTENT, &[]).await?;
        let status = self.cluster.monitor().status().await?;
        let names = states::standbys(&status);
        for name in names {
            let node = self.cluster.node(&name)?;
            eventually(&format!("{name} with all of {end}"), DEADLINE, async || {
                let Ok(sql) = node.sql().await else { return Ok(Err("no session".to_owned())) };
                let query = "select pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
                let has_all: Option<bool> = sql.value(query, &[&end]).await?;
                Ok(if has_all == Some(true) { Ok(()) } else { Err("less".to_owned()) })
            })
            .await?;
            let there: String = node.sql().await?.value(CONTENT, &[]).await?;
            ensure!(there == wanted, "{name} holds {there}, the primary {wanted}");
        }
        ensure!(node_of(&status, primary.name()).is_some(), "the primary is not in the status");
        Ok(())
    }
}

/// Compares what clients were told with what is on the final primary.
async fn compare(history: &History, sql: &Sql) -> Result<[Wrong; 3]> {
    let rows = rows::check(history, &read_rows(sql).await?);
    let registers = registers::check(history, &read_registers(sql).await?);
    let lists = lists::check(history, &read_lists(sql).await?);
    Ok([rows, registers, lists])
}

/// What the registers hold.
pub async fn read_registers(sql: &Sql) -> Result<registers::Last> {
    let asked = Instant::now();
    let rows = sql.query("select key, value from registers", &[]).await?;
    let answered = Instant::now();
    let pair = |row: &Row| Ok((Register(row.try_get(0)?), row.try_get(1)?));
    let values = rows.iter().map(pair).collect::<Result<_>>()?;
    Ok(registers::Last { values, asked, answered })
}

/// What the lists hold.
pub async fn read_lists(sql: &Sql) -> Result<lists::Lists> {
    let rows = sql.query("select key, items from lists", &[]).await?;
    rows.iter().map(|row| Ok((List(row.try_get(0)?), row.try_get(1)?))).collect()
}

/// How often each row is there.
pub async fn read_rows(sql: &Sql) -> Result<Rows> {
    let mut rows = Rows::new();
    for row in sql.query("select writer, id from ledger", &[]).await? {
        *rows.entry((row.try_get(0)?, row.try_get(1)?)).or_default() += 1;
    }
    Ok(rows)
}
