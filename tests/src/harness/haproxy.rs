//! The real HAProxy in front of a cluster, with the configuration that `pgtandem haproxy` prints.

use super::cluster::Cluster;
use super::ports::Port;
use super::process::{Daemon, command};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// Of the Debian package, which `make setup` brings.
const PROGRAM: &str = "/usr/sbin/haproxy";

/// A running HAProxy. Killed when it is dropped.
#[derive(Debug)]
pub struct Haproxy {
    daemon: Daemon,
    rw: Port,
    ro: Port,
    configuration: String,
}

impl Haproxy {
    /// Starts it on free ports; the arguments are further ones of `pgtandem haproxy`.
    pub async fn start(cluster: &Cluster, arguments: &[&str]) -> Result<Self> {
        let (rw, ro) = (Port::take()?, Port::take()?);
        let configuration = configuration(cluster, (&rw, &ro), arguments).await?;
        let path = cluster.sandbox().root().join("haproxy.cfg");
        fs::write(&path, &configuration)?;
        accepts(&path)?;
        let mut command = command(PROGRAM.as_ref());
        command.arg("-db").arg("-f").arg(&path);
        // Its lines are not in the form of ours, and which of its servers is down is no trouble of theirs.
        let log = cluster.sandbox().root().join("haproxy.txt");
        let daemon = Daemon::start("haproxy", command, &log)?;
        Ok(Self { daemon, rw, ro, configuration })
    }

    /// Whether the formation gives the same configuration still.
    pub async fn is_up_to_date(&self, cluster: &Cluster, arguments: &[&str]) -> Result<()> {
        let now = configuration(cluster, (&self.rw, &self.ro), arguments).await?;
        ensure!(now == self.configuration, "before:\n{}now:\n{now}", self.configuration);
        Ok(())
    }

    /// Tells whoever looks at the test's output how long clients had to wait.
    pub fn measured(what: &str, cut: Duration, outage: Duration) {
        eprintln!("{what}: an old session was cut after {cut:?}, writes waited for {outage:?}");
    }

    /// Where clients connect that write.
    pub fn rw(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.rw.number()))
    }

    /// Where clients connect that read.
    pub fn ro(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ro.number()))
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        if let Err(error) = self.daemon.kill() {
            eprintln!("{error:#}");
        }
    }
}

async fn configuration(
    cluster: &Cluster,
    (rw, ro): (&Port, &Port),
    arguments: &[&str],
) -> Result<String> {
    let [rw, ro] = [rw, ro].map(|port| format!("127.0.0.1:{}", port.number()));
    let listen = ["haproxy", "--listen-rw", &rw, "--listen-ro", &ro];
    let answer = cluster.pgtandem(&[&listen[..], arguments].concat()).await?;
    ensure!(answer.code == 0, "{answer:?}");
    let text = answer.json.get("configuration").and_then(serde_json::Value::as_str);
    Ok(format!("{}\n", text.context("no configuration")?.trim_end()))
}

/// HAProxy itself says that it can be run with that.
fn accepts(path: &Path) -> Result<()> {
    let output = command(PROGRAM.as_ref()).arg("-c").arg("-f").arg(path).output();
    let output = output.with_context(|| format!("no {PROGRAM}: `make setup` brings it"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && !said.contains("WARNING"), "{said}");
    Ok(())
}
