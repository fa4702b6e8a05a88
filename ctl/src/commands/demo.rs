//! `pgtandem demo`: a whole cluster on this machine, a writer, a killed primary, the measured outage.
//!
//! Everything is real: the monitor, the keepers, PostgreSQL, the replication and the kill. Nothing
//! outside the temporary directory is touched.

mod cluster;
mod writer;

use self::cluster::Cluster;
use self::writer::Writer;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use ctl::client::{Client, Options};
use serde_json::json;
use shared::api::Status;
use shared::ids::FormationId;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long any one thing may take on a slow machine.
const PATIENCE: Duration = Duration::from_mins(2);
/// Writes before the kill, and after everything is well again.
const CALM: Duration = Duration::from_secs(3);

/// Starts a whole cluster on this machine, kills its primary, and measures the outage
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Leaves the cluster running at the end, and says how to use it
    #[arg(long)]
    keep: bool,
    /// How many data nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=5))]
    nodes: u8,
    /// The directory of PostgreSQL's programs
    #[arg(long, value_name = "DIR", env = "PGTANDEM_BIN_DIR")]
    bin_dir: Option<PathBuf>,
}

/// What was measured.
struct Measured {
    outage: Duration,
    acknowledged: usize,
    lost: usize,
    old: String,
    new: String,
}

impl Demo {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let mut cluster = Cluster::new(self.bin_dir.clone())?;
        let outcome = tokio::select! {
            outcome = self.play(context, &mut cluster) => outcome,
            _ = tokio::signal::ctrl_c() => Err(fault("interrupted; everything is being stopped")),
        };
        let measured = match outcome {
            Ok(measured) => measured,
            Err(failure) => {
                output::note(&cluster.last_words());
                cluster.stop();
                return Err(failure);
            }
        };
        if self.keep {
            cluster.keep();
            output::note(&cluster.how_to_use());
        } else {
            cluster.stop();
        }
        let seconds = measured.outage.as_secs_f64();
        if context.json {
            output::json(&json!({
                "outage_s": seconds,
                "acknowledged": measured.acknowledged,
                "lost": measured.lost,
                "old_primary": measured.old,
                "new_primary": measured.new,
                "directory": self.keep.then(|| cluster.dir().to_owned()),
            }))?;
        } else {
            output::text(&format!(
                "outage {seconds:.2} s, acknowledged {}, lost {}",
                measured.acknowledged, measured.lost
            ))?;
        }
        Ok(if measured.lost == 0 { Exit::Done } else { Exit::Internal })
    }

    async fn play(&self, context: &Context, cluster: &mut Cluster) -> Result<Measured, Failure> {
        output::note(&format!("a monitor and {} nodes in {}", self.nodes, cluster.dir().display()));
        cluster.start_monitor()?;
        for number in 1..=self.nodes {
            cluster.start_node(number)?;
        }
        let scene = Scene { client: client(cluster)?, formation: formation()?, json: context.json };
        scene
            .until(cluster, "a primary with synchronous standbys", |status| {
                all_well(status, self.nodes)
            })
            .await?;
        let mut writer = Writer::start(cluster.addresses()).await.map_err(|e| fault(&e))?;
        tokio::time::sleep(CALM).await;
        let before = scene.status().await?;
        let old = before.primary.as_ref().map(ToString::to_string).unwrap_or_default();
        output::note(&format!(
            "\n{old} is the primary: its keeper and its PostgreSQL are killed now (SIGKILL)"
        ));
        let killed = Instant::now();
        cluster.kill(&old)?;
        let after = scene
            .until(cluster, "another primary that takes writes", |status| {
                status.writable && status.primary.as_ref().is_some_and(|name| name.as_str() != old)
            })
            .await?;
        writer.acknowledged_since(Instant::now(), PATIENCE).await.map_err(|e| fault(&e))?;
        let new = after.primary.as_ref().map(ToString::to_string).unwrap_or_default();
        output::note(&format!("\n{new} took over; the keeper of {old} is started again"));
        cluster.restart(&old)?;
        scene
            .until(cluster, "the old primary as a standby", |status| all_well(status, self.nodes))
            .await?;
        tokio::time::sleep(CALM).await;
        let ledger = writer.stop().await;
        let primary =
            cluster.address_of(&new).ok_or_else(|| fault("the new primary has no address"))?;
        let lost = writer::lost(&primary, &ledger).await.map_err(|e| fault(&e))?;
        Ok(Measured { outage: ledger.outage(killed), acknowledged: ledger.len(), lost, old, new })
    }
}

fn fault(text: &str) -> Failure {
    Failure::new(Exit::Internal, "demo", text)
}

fn client(cluster: &Cluster) -> Result<Client, Failure> {
    let url = cluster.monitor_url();
    let url = url.parse().map_err(|_| fault("the monitor has no address"))?;
    Ok(Client::new(vec![url], Options::default())?)
}

fn formation() -> Result<FormationId, Failure> {
    "default".parse().map_err(|_| fault("no default formation"))
}

/// Every node reports what it should be, and the sync set is what it will be.
fn all_well(status: &Status, nodes: u8) -> bool {
    status.writable
        && status.nodes.len() == usize::from(nodes)
        && status.sync.pending.is_none()
        && status.sync.members.len() + 1 == status.nodes.len()
        && status.nodes.iter().all(|node| node.reported_state == node.goal_state)
}

/// The audience's view.
struct Scene {
    client: Client,
    formation: FormationId,
    json: bool,
}

impl Scene {
    async fn status(&self) -> Result<Status, Failure> {
        Ok(self.client.status(&self.formation, None, 0).await?)
    }

    /// Follows the cluster until `what` holds; the table is shown whenever a state has changed.
    async fn until(
        &self,
        cluster: &mut Cluster,
        what: &str,
        holds: impl Fn(&Status) -> bool,
    ) -> Result<Status, Failure> {
        let begun = Instant::now();
        let mut shown = Vec::new();
        let mut seen = None;
        while begun.elapsed() < PATIENCE {
            cluster.check_alive()?;
            // The monitor is being started with the rest.
            let answer = self.client.status(&self.formation, seen, 500).await;
            let Ok(status) = answer else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            seen = Some(status.revision);
            // Positions change all the time; states are the story.
            let states: Vec<_> =
                status.nodes.iter().map(|node| (node.reported_state, node.goal_state)).collect();
            if states != shown && !self.json {
                output::note(&format!("\n{}", super::status::render(&status)));
                shown = states;
            }
            if holds(&status) {
                return Ok(status);
            }
        }
        Err(fault(&format!("there is no {what} after {} s", PATIENCE.as_secs())))
    }
}
