//! Volumes: full, frozen, read-only, and gone.

use anyhow::{Context as _, Result, ensure};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tests::harness::wait::{DEADLINE, eventually};
use tests::harness::{Cluster, Volume};
use tests::network::Network;

/// The mebibyte.
const MB: u64 = 1 << 20;

#[test]
fn a_full_volume_takes_no_more_until_it_is_freed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let volume = Volume::new(&dir.path().join("v"), 64)?;
    let file = volume.dir().join("file");
    volume.fill()?;
    let refused = fs::write(&file, vec![1; 64 << 10]).err().map(|error| error.kind());
    ensure!(refused == Some(ErrorKind::StorageFull), "{refused:?}");
    volume.free()?;
    fs::write(&file, vec![1; 64 << 10])?;
    volume.fill_but(4 * MB)?;
    let left = volume.available()?;
    ensure!((3 * MB..=4 * MB).contains(&left), "{left} bytes are left");
    fs::write(volume.dir().join("fits"), vec![1; 2 << 20])?;
    let refused = fs::write(volume.dir().join("does not"), vec![1; 4 << 20]).is_err();
    ensure!(refused, "more fits than is left");
    Ok(())
}

/// A process that writes to a file and syncs it.
fn writer(file: &Path) -> Result<Child> {
    let script = r#"echo written >"$1" && sync "$1""#;
    Ok(Command::new("sh").args(["-c", script, "sh"]).arg(file).stderr(Stdio::null()).spawn()?)
}

/// Waits until a process waits for a disk.
async fn hangs(pid: u32) -> Result<()> {
    eventually("a process that waits for the disk", DEADLINE, async || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        let waits = state.is_some_and(|state| state.starts_with('D'));
        Ok(if waits { Ok(()) } else { Err(format!("{state:?}")) })
    })
    .await
}

#[tokio::test]
async fn who_writes_to_a_frozen_volume_waits_and_goes_on() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let volume = Volume::new(&dir.path().join("v"), 32)?;
    let file = volume.dir().join("file");
    ensure!(volume.thaw().is_err(), "it was not frozen");
    volume.freeze()?;
    ensure!(volume.freeze().is_err(), "it is frozen already");
    let mut writer = writer(&file)?;
    hangs(writer.id()).await?;
    ensure!(!file.exists(), "it was written");
    volume.thaw()?;
    ensure!(writer.wait()?.success());
    ensure!(fs::read_to_string(&file)? == "written\n");
    // Not even this ends it before.
    volume.freeze()?;
    let mut writer = self::writer(&file)?;
    hangs(writer.id()).await?;
    writer.kill()?;
    hangs(writer.id()).await?;
    volume.thaw()?;
    ensure!(writer.wait()?.signal() == Some(9));
    Ok(())
}

#[test]
fn a_read_only_volume_takes_nothing_until_it_is_repaired() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let volume = Volume::new(&dir.path().join("v"), 32)?;
    let (path, owner) = (volume.dir().join("file"), fs::metadata(volume.dir())?.uid());
    let mut open = File::create(&path)?;
    open.write_all(b"before")?;
    open.sync_all()?;
    File::open(volume.dir())?.sync_all()?;
    volume.read_only()?;
    let refused = [
        open.write_all(b"after").err(),
        OpenOptions::new().append(true).open(&path).err(),
        File::create(volume.dir().join("another")).err(),
    ];
    let kinds = refused.map(|error| error.map(|error| error.kind()));
    ensure!(kinds == [Some(ErrorKind::ReadOnlyFilesystem); 3], "{kinds:?}");
    ensure!(fs::read_to_string(&path)? == "before");
    ensure!(volume.read_write().is_err(), "it was unmounted under an open file");
    drop(open);
    volume.read_write()?;
    ensure!(fs::read_to_string(&path)? == "before");
    ensure!(fs::metadata(volume.dir())?.uid() == owner, "it has another owner");
    fs::write(&path, "after")?;
    Ok(())
}

/// What is left of a volume.
fn traces_of(dir: &Path) -> Result<Vec<String>> {
    let name = dir.display().to_string();
    let mut found = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    found.extend(mounts.lines().filter(|line| line.contains(&name)).map(str::to_owned));
    for entry in fs::read_dir("/sys/block")?.flatten() {
        // Only where a loop device is in use.
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if file.contains(&name) {
            found.push(format!("{} on {file}", entry.path().display()));
        }
    }
    let parent = dir.parent().context("no parent")?;
    for entry in fs::read_dir(parent)?.flatten() {
        found.push(entry.path().display().to_string());
    }
    Ok(found)
}

/// Also where a host has it mounted that goes on.
#[test]
fn nothing_is_left_of_a_volume() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("v");
    let network = Network::new()?;
    let before = network.host("before")?;
    let volume = Volume::new(&path, 32)?;
    ensure!(traces_of(&path)?.len() == 3, "{:?}", traces_of(&path)?);
    volume.show(&before)?;
    let after = network.host("after")?;
    drop(volume);
    let left = traces_of(&path)?;
    ensure!(left.is_empty(), "{left:?}");
    ensure!(before.is_on() && after.is_on());
    Ok(())
}

/// Says that this test is to be ended, and where it shall work.
const VICTIM: &str = "PGTANDEM_TEST_VOLUME";

/// This test once more, as a process of its own that is killed while the volume is frozen and somebody waits
/// for it.
#[tokio::test]
async fn nothing_is_left_of_a_volume_whose_test_is_killed() -> Result<()> {
    if let Some(path) = std::env::var_os(VICTIM) {
        return wait_for_the_end(Path::new(&path)).await;
    }
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("v");
    let name = "tools::volumes::nothing_is_left_of_a_volume_whose_test_is_killed";
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", name, "--nocapture"])
        .env(VICTIM, &path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let said = BufReader::new(victim.stdout.take().context("no output")?).lines();
    let ready = said.map_while(Result::ok).any(|line| line.contains("the writer hangs"));
    ensure!(ready, "the victim has ended too early: {}", victim.wait()?);
    ensure!(traces_of(&path)?.len() == 3, "{:?}", traces_of(&path)?);
    victim.kill()?;
    victim.wait()?;
    eventually("the end of the volume", DEADLINE, async || {
        let left = traces_of(&path)?;
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
    })
    .await
}

async fn wait_for_the_end(path: &Path) -> Result<()> {
    let volume = Volume::new(path, 32)?;
    volume.freeze()?;
    hangs(writer(&volume.dir().join("file"))?.id()).await?;
    writeln!(std::io::stdout(), "\nthe writer hangs")?;
    std::future::pending().await
}

#[test]
fn volumes_are_made_side_by_side() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let make = |number: u32| Volume::new(&dir.path().join(number.to_string()), 16);
    let made = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..12).map(|number| scope.spawn(move || make(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Result<Vec<_>>>()
    })?;
    let mut devices: Vec<_> = made.iter().map(|volume| volume.device().to_owned()).collect();
    devices.sort();
    devices.dedup();
    ensure!(devices.len() == made.len(), "{devices:?}");
    Ok(())
}

/// Whether it was on before, or is powered on later.
#[tokio::test]
async fn a_host_sees_the_volume() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let network = Network::new()?;
    let host = network.host("host")?;
    let volume = Volume::new(&dir.path().join("v"), 32)?;
    volume.show(&host)?;
    let copy = |from: &str, to: &str| {
        let mut command = Command::new("cp");
        command.arg(volume.dir().join(from)).arg(volume.dir().join(to));
        host.start("cp", &command, &dir.path().join("log"))
    };
    fs::write(volume.dir().join("0"), "content")?;
    ensure!(copy("0", "1")?.wait().await?.success());
    host.power_off()?;
    host.power_on()?;
    ensure!(copy("1", "2")?.wait().await?.success());
    ensure!(fs::read_to_string(volume.dir().join("2"))? == "content");
    Ok(())
}

/// The primary's data on one, and the standby's WAL on another, which is a copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_on_volumes() -> Result<()> {
    let builder = Cluster::builder().nodes(1).on_volume(512).nodes(1).wal_on_volume(512);
    let cluster = builder.starting(&[1]).start().await?;
    cluster.start_keepers(&["node2"])?;
    cluster.settled().await?;
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev());
    let (primary, standby) = (cluster.primary().await?, cluster.node("node2")?);
    ensure!(primary.name() == "node1");
    ensure!(device(&primary.pgdata())? == device(primary.volume()?.dir())?);
    ensure!(device(&primary.state_dir())? == device(cluster.sandbox().root())?);
    ensure!(device(&standby.pgdata())? == device(cluster.sandbox().root())?);
    ensure!(device(&standby.pgdata().join("pg_wal"))? == device(standby.volume()?.dir())?);
    let workload = cluster.workload().await?;
    workload.acknowledges(50).await?;
    // Shorter than anybody's patience.
    primary.volume()?.freeze()?;
    primary.volume()?.thaw()?;
    workload.goes_on().await?;
    cluster.verdict(workload).await?;
    let root = cluster.sandbox().root().to_owned();
    drop(cluster);
    ensure!(!root.exists(), "{} is left", root.display());
    Ok(())
}
