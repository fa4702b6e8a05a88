//! The host's watchdog, with a file in place of the device: what is written to it is what it would see.

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tests::harness::cluster::node_of;
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, NodeOptions};

/// Several times the pause between two feeds, and shorter than a lease.
const LOOK: Duration = Duration::from_millis(1200);

struct Devices(TempDir);

impl Devices {
    fn path(&self, node: &str) -> PathBuf {
        self.0.path().join(node)
    }

    fn text(&self, node: &str) -> Result<String> {
        Ok(fs::read_to_string(self.path(node))?)
    }

    async fn is_fed(&self, node: &str) -> Result<()> {
        let before = self.text(node)?.len();
        eventually(&format!("feeds of {node}"), DEADLINE, async || {
            let text = self.text(node)?;
            let fed = text.len() > before + 3 && text.ends_with('.');
            Ok(if fed { Ok(()) } else { Err(text) })
        })
        .await
    }

    async fn is_disarmed(&self, node: &str) -> Result<()> {
        eventually(&format!("the magic close of {node}"), DEADLINE, async || {
            let text = self.text(node)?;
            Ok(if text.ends_with('V') { Ok(()) } else { Err(text) })
        })
        .await
    }

    async fn stay(&self, nodes: &[&str]) -> Result<()> {
        let before = nodes.iter().map(|node| self.text(node)).collect::<Result<Vec<_>>>()?;
        tokio::time::sleep(LOOK).await;
        for (node, before) in nodes.iter().zip(before) {
            ensure!(self.text(node)? == before, "the device of {node} was written to");
        }
        Ok(())
    }
}

async fn start(nodes: usize) -> Result<(Cluster, Devices)> {
    let devices = Devices(TempDir::with_prefix("pgt-watchdog-")?);
    let mut builder = Cluster::builder();
    for number in 1..=nodes {
        let path = devices.path(&format!("node{number}"));
        fs::write(&path, "")?;
        let arguments = vec!["--watchdog".to_owned(), path.display().to_string()];
        builder = builder.node(NodeOptions { arguments, ..NodeOptions::default() });
    }
    Ok((builder.start().await?, devices))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follows_the_primary() -> Result<()> {
    let (cluster, devices) = start(3).await?;
    let workload = cluster.workload().await?;
    let old = cluster.primary().await?.name();
    let standbys: Vec<_> = cluster.standbys().await?.iter().map(|node| node.name()).collect();
    devices.is_fed(old).await?;
    // The operator sees that nobody knows how long this one takes.
    cluster
        .wait_for_node(old, "a warning", |node| {
            node.warnings.iter().any(|text| text.contains("time-out cannot be read"))
        })
        .await?;
    for standby in &standbys {
        ensure!(devices.text(standby)?.is_empty(), "the device of {standby} was armed");
    }
    cluster.perform(&["switchover"]).await?;
    cluster.settled().await?;
    let new = cluster.primary().await?;
    ensure!(new.name() != old);
    devices.is_disarmed(old).await?;
    devices.is_fed(new.name()).await?;
    devices.stay(&[old]).await?;
    // Its keeper's planned end: handed over, stopped, disarmed.
    ensure!(new.stop_keeper().await?.success());
    ensure!(devices.text(new.name())?.ends_with('V'), "{}", devices.text(new.name())?);
    let status = cluster.settled().await?;
    let third = status.primary.context("no primary")?;
    devices.is_fed(third.as_str()).await?;
    new.start_keeper()?;
    cluster.settled().await?;
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// A frozen keeper feeds nothing, nor does a dead one; one that is back does, at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starves_without_a_keeper() -> Result<()> {
    let (cluster, devices) = start(2).await?;
    let workload = cluster.workload().await?;
    let primary = cluster.primary().await?;
    let name = primary.name();
    devices.is_fed(name).await?;
    primary.signal_keeper(Signal::STOP)?;
    devices.stay(&[name]).await?;
    primary.signal_keeper(Signal::CONT)?;
    devices.is_fed(name).await?;
    primary.kill_keeper()?;
    devices.stay(&[name]).await?;
    ensure!(devices.text(name)?.ends_with('.'), "disarmed by a kill");
    let before = devices.text(name)?.len();
    primary.start_keeper()?;
    eventually("a feed of the new keeper", DEADLINE, async || {
        let fed = devices.text(name)?.len() > before;
        Ok(if fed { Ok(()) } else { Err("none".to_owned()) })
    })
    .await?;
    cluster.settled().await?;
    devices.is_fed(name).await?;
    let text = devices.text(name)?;
    ensure!(!text.contains('V'), "it was disarmed meanwhile: {text}");
    // Stopped at once, in order all the same.
    primary.signal_keeper(Signal::QUIT)?;
    ensure!(primary.keeper_ends().await?.success());
    ensure!(devices.text(name)?.ends_with('V'));
    cluster.settled().await?;
    primary.start_keeper()?;
    cluster.settled().await?;
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}

/// The operator sees what is wrong with a device, and the node serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_does_not_work_is_a_warning() -> Result<()> {
    let missing = vec!["--watchdog".to_owned(), "/nonexistent/watchdog".to_owned()];
    let options = NodeOptions { arguments: missing, ..NodeOptions::default() };
    let cluster = Cluster::builder().node(options).nodes(1).start().await?;
    let workload = cluster.workload().await?;
    let warned = |text: &str, part: &str| text.starts_with("the watchdog ") && text.contains(part);
    cluster
        .wait_for_node("node1", "a warning", |node| {
            node.warnings.iter().any(|text| warned(text, "cannot be used"))
        })
        .await?;
    workload.acknowledges(20).await?;
    let status = cluster.settled().await?;
    let other = node_of(&status, "node2").context("no node2")?;
    ensure!(other.warnings.is_empty(), "{:?}", other.warnings);
    let node = cluster.node("node1")?;
    let mut command = node.keeper_command()?;
    command.arg("--help");
    let help = String::from_utf8(command.output()?.stdout)?;
    ensure!(help.contains("--watchdog <DEVICE>"), "{help}");
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    Ok(())
}
