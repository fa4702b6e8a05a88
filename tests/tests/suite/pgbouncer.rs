//! The hooks in `deploy/hooks/` with the programs that they are for: a switchover beneath PgBouncer costs its
//! clients no error.

use anyhow::{Context as _, Result, ensure};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tests::harness::ports::Port;
use tests::harness::process::{Daemon, command};
use tests::harness::sandbox::give_to_postgres;
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, NodeOptions, binaries};
use tokio::process::Command;

const CLIENTS: &str = "8";
/// Long enough for the switchovers on a busy machine; what is measured is not the time.
const SECONDS: &str = "10";
/// So many at least meanwhile.
const SWITCHOVERS: usize = 2;

/// A PgBouncer of this test.
struct Bouncer {
    dir: tempfile::TempDir,
    port: Port,
    daemon: Daemon,
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        // One that has ended has been missed before.
        drop(self.daemon.kill());
    }
}

impl Bouncer {
    fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("pgb-").tempdir_in("/tmp")?;
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        give_to_postgres(dir.path())?;
        let port = Port::take()?;
        let at = |name: &str| dir.path().join(name);
        fs::write(at("primary.ini"), "; nobody yet\n")?;
        fs::write(at("users.txt"), "\"postgres\" \"\"\n")?;
        let settings = format!(
            "[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\nadmin_users = postgres\npool_mode = transaction\ndefault_pool_size = 8\nserver_login_retry = 1\n%include {}\n",
            port.number(),
            at("users.txt").display(),
            at("primary.ini").display()
        );
        fs::write(at("pgbouncer.ini"), settings)?;
        let mut command = command("setpriv".as_ref());
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        command.arg("/usr/sbin/pgbouncer").arg(at("pgbouncer.ini"));
        let daemon = Daemon::start("PgBouncer", command, &at("pgbouncer.log"))?;
        Ok(Self { dir, port, daemon })
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("pgbouncer.log")).unwrap_or_default()
    }

    /// The hook, with what it has to know.
    fn hook(&self, event: &str) -> String {
        format!(
            "{event}=env BOUNCERS=postgres://postgres@127.0.0.1:{}/pgbouncer,{} {}",
            self.port.number(),
            self.dir.path().join("primary.ini").display(),
            example("pgbouncer").display()
        )
    }

    fn pgbench(&self) -> Result<Command> {
        let mut pgbench = Command::from(command(&binaries::postgres("pgbench")?));
        pgbench.args(["--no-vacuum", "--client", CLIENTS, "--jobs", "2", "--time", SECONDS]);
        pgbench.arg("--log").arg("--log-prefix").arg(self.dir.path().join("bench"));
        pgbench.args(["--host", "127.0.0.1", "--port", &self.port.number().to_string()]);
        pgbench.args(["--username", "postgres", "postgres"]).kill_on_drop(true);
        Ok(pgbench)
    }

    /// The longest transaction that a client has seen.
    fn longest(&self) -> Result<Duration> {
        let mut longest = 0;
        for entry in fs::read_dir(self.dir.path())?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("bench.") {
                let text = fs::read_to_string(entry.path())?;
                let times = text.lines().filter_map(|line| line.split(' ').nth(2)?.parse().ok());
                longest = times.chain([longest]).max().unwrap_or_default();
            }
        }
        Ok(Duration::from_micros(longest))
    }
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/hooks").join(name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "what was measured")]
async fn switchovers_beneath_pgbouncer_cost_no_error() -> Result<()> {
    let bouncer = Bouncer::start()?;
    let hooks = ["pre_demote", "post_promote"].map(|event| bouncer.hook(event));
    let arguments: Vec<_> =
        hooks.into_iter().flat_map(|hook| ["--hook".to_owned(), hook]).collect();
    let node = || NodeOptions { arguments: arguments.clone(), ..NodeOptions::default() };
    let builder = Cluster::builder().node(node()).node(node()).node(node());
    let cluster = builder.starting(&[1]).untraced().start().await?;
    cluster.start_keepers(&["node2", "node3"])?;
    cluster.settled().await?;
    let first = cluster.primary().await?;
    let mut prepare = Command::from(command(&binaries::postgres("pgbench")?));
    prepare.args(["--initialize", "--quiet", "--host", "127.0.0.1", "--username", "postgres"]);
    prepare.args(["--port", &first.port().to_string(), "postgres"]);
    ensure!(prepare.output().await?.status.success(), "pgbench has not prepared its tables");
    let pgbench = tokio::spawn(bouncer.pgbench()?.output());
    let mut switchovers = 0;
    while !pgbench.is_finished() {
        let begin = Instant::now();
        let result = cluster.perform(&["switchover"]).await?;
        println!("to {:?} in {:?}", result.new_primary, begin.elapsed());
        cluster.settled().await?;
        let primary = cluster.primary().await?;
        // Its clients are there again before the next.
        let sql = primary.sql().await?;
        let count = async || sql.value::<i64>("select count(*) from pgbench_history", &[]).await;
        let before = count().await?;
        eventually("clients at the new primary", DEADLINE, async || {
            let after = count().await?;
            switchovers += usize::from(after > before);
            Ok(if after > before || pgbench.is_finished() {
                Ok(())
            } else {
                Err(format!("{before}, then {after}"))
            })
        })
        .await?;
    }
    ensure!(switchovers >= SWITCHOVERS, "pgbench saw {switchovers} switchovers");
    let output = pgbench.await?.context("pgbench")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    println!("{said}{complained}longest transaction: {:?}", bouncer.longest()?);
    ensure!(output.status.success(), "{said}{complained}{}", bouncer.log());
    ensure!(said.contains("number of failed transactions: 0 "), "{said}");
    for word in ["aborted", "error", "ERROR", "FATAL"] {
        ensure!(!complained.contains(word), "{complained}{}", bouncer.log());
    }
    let paused = bouncer.log().matches("PAUSE").count();
    ensure!(paused >= SWITCHOVERS, "it was paused {paused} times: {}", bouncer.log());
    cluster.judge().without_workload().await
}
