//! Archives that keepers store WAL and backups in: a local repository of pgBackRest, and a directory that
//! commands write to. Outside of any cluster, since its keepers are told of it at their start.

use super::binaries;
use super::node::{Node, NodeOptions};
use super::sandbox::{give_to_postgres, postgres_user};
use super::sql::Sql;
use super::verdict::logs;
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The stanza.
const STANZA: &str = "main";
/// Of a restored server, which listens on a socket in a directory of its own only.
const PORT: u16 = 5432;

/// A repository of pgBackRest. Each node has a file of its own, so that it can fail for one alone.
#[derive(Debug)]
pub struct Repository {
    dir: tempfile::TempDir,
}

impl Repository {
    /// An empty one.
    pub fn new() -> Result<Self> {
        let dir = scratch()?;
        for name in ["repo", "log", "lock"] {
            directory(&dir.path().join(name))?;
        }
        Ok(Self { dir })
    }

    /// What a node's keeper is told, by the node's number.
    pub fn options(&self, number: usize) -> Result<NodeOptions> {
        let name = format!("node{number}");
        self.mend(&name)?;
        let config = self.config(&name).display().to_string();
        let arguments = ["--pgbackrest-stanza", STANZA, "--pgbackrest-config", &config];
        let arguments = arguments.map(str::to_owned).into();
        Ok(NodeOptions { arguments, ..NodeOptions::default() })
    }

    /// From now on nothing can be stored from this node.
    pub fn break_for(&self, node: &Node) -> Result<()> {
        self.write(node.name(), &self.dir.path().join("gone/repo"))
    }

    /// It works again.
    pub fn mend(&self, name: &str) -> Result<()> {
        self.write(name, &self.dir.path().join("repo"))
    }

    fn config(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.conf"))
    }

    fn write(&self, name: &str, repo: &Path) -> Result<()> {
        let at = |what: &str| self.dir.path().join(what).display().to_string();
        let text = format!(
            "[global]\nrepo1-path={}\nrepo1-retention-full=9\nlog-path={}\nlock-path={}\ncompress-type=none\n",
            repo.display(),
            at("log"),
            at(&format!("lock/{name}")),
        );
        fs::write(self.config(name), text)?;
        fs::set_permissions(self.config(name), Permissions::from_mode(0o644))?;
        Ok(())
    }

    /// How pgBackRest is called with the file of a node, before what it shall do.
    pub fn command_line(&self, name: &str) -> Vec<String> {
        let config = format!("--config={}", self.config(name).display());
        vec!["pgbackrest".to_owned(), format!("--stanza={STANZA}"), config]
    }

    /// Runs pgBackRest for a node.
    pub fn pgbackrest(&self, node: &Node, arguments: &[&str]) -> Result<String> {
        let line = self.command_line(node.name());
        let (program, options) = line.split_first().context("no command")?;
        let mut command = as_postgres(program)?;
        command.args(options).args(arguments);
        let output = command.output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        ensure!(output.status.success(), "pgbackrest {arguments:?}: {}: {out}{err}", output.status);
        Ok(out)
    }

    /// The first segment that each backup needs, in their order.
    pub fn backups(&self, node: &Node) -> Result<Vec<String>> {
        let text = self.pgbackrest(node, &["--output=json", "info"])?;
        let info: serde_json::Value = serde_json::from_str(&text)?;
        let backups = info.pointer("/0/backup").and_then(|found| found.as_array());
        let backups = backups.map_or(&[][..], Vec::as_slice);
        let start =
            |it: &serde_json::Value| Some(it.pointer("/archive/start")?.as_str()?.to_owned());
        backups.iter().map(|it| start(it).with_context(|| format!("{it}"))).collect()
    }

    /// A server on the first backup and all that is in the archive since, without a keeper, as
    /// docs/archiving.md says: it runs until it is dropped, and is what a restore would bring back.
    pub fn restored(&self, node: &Node) -> Result<Restored> {
        let label = self.backup_label(node)?;
        let dir = self.dir.path().join("restored");
        directory(&dir)?;
        fs::set_permissions(&dir, Permissions::from_mode(0o700))?;
        let path = format!("--pg1-path={}", dir.display());
        self.pgbackrest(
            node,
            &[&path, &format!("--set={label}"), "--archive-mode=off", "restore"],
        )?;
        let restored = Restored { dir, sockets: self.dir.path().join("lock") };
        let options = format!("-p {PORT} -k {} -c listen_addresses=", restored.sockets.display());
        let log = restored.dir.join("restored.out");
        restored.pg_ctl(&["start", "-w", "-o", &options, "-l", &log.display().to_string()])?;
        Ok(restored)
    }

    fn backup_label(&self, node: &Node) -> Result<String> {
        let text = self.pgbackrest(node, &["--output=json", "info"])?;
        let info: serde_json::Value = serde_json::from_str(&text)?;
        let label = info.pointer("/0/backup/0/label").and_then(|label| label.as_str());
        Ok(label.with_context(|| format!("no backup: {info}"))?.to_owned())
    }

    /// The files of the archive, by their names in `pg_wal`.
    pub fn files(&self) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        collect(&self.dir.path().join("repo/archive"), &mut found)?;
        Ok(found)
    }
}

/// A server on what a restore has brought back.
#[derive(Debug)]
pub struct Restored {
    dir: PathBuf,
    sockets: PathBuf,
}

impl Restored {
    /// A session with it.
    pub async fn sql(&self) -> Result<Sql> {
        Sql::connect_locally(&self.sockets, PORT).await
    }

    fn pg_ctl(&self, arguments: &[&str]) -> Result<()> {
        let mut command = as_postgres(&binaries::postgres("pg_ctl")?.display().to_string())?;
        command.arg("-D").arg(&self.dir).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status()?;
        let log = logs::tail(&self.dir.join("restored.out"), 20);
        ensure!(status.success(), "pg_ctl {arguments:?}: {status}: {log}");
        Ok(())
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        // One that did not start is no trouble.
        drop(self.pg_ctl(&["stop", "-m", "immediate"]));
    }
}

/// A directory that `deploy/archive/to-directory` keeps.
#[derive(Debug)]
pub struct Directory {
    dir: tempfile::TempDir,
}

impl Directory {
    /// An empty one.
    pub fn new() -> Result<Self> {
        let dir = scratch()?;
        directory(&dir.path().join("wal"))?;
        // As `to-directory init` does.
        fs::write(dir.path().join("wal/.archive"), "")?;
        Ok(Self { dir })
    }

    /// What keepers are told.
    pub fn options(&self) -> Result<NodeOptions> {
        // Where user postgres can read it.
        let program = self.dir.path().join("to-directory");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/archive/to-directory");
        fs::copy(source, &program)?;
        fs::set_permissions(&program, Permissions::from_mode(0o755))?;
        let call =
            |what: &str| format!("{} {what} {} %p %f", program.display(), self.path().display());
        let (push, get) = (call("push"), call("get"));
        let backup = format!("echo $PGPORT >> {}", self.path().join("backups").display());
        let arguments =
            ["--archive-push", &push, "--archive-get", &get, "--archive-backup", &backup];
        let arguments = arguments.map(str::to_owned).into();
        Ok(NodeOptions { arguments, ..NodeOptions::default() })
    }

    /// Where the files are.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("wal")
    }

    /// The names of the files.
    pub fn files(&self) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        collect(&self.path(), &mut found)?;
        Ok(found)
    }
}

/// The names of what a node has ready to be archived.
pub fn waiting(node: &Node) -> Result<BTreeSet<String>> {
    let dir = node.pgdata().join("pg_wal/archive_status");
    let names = fs::read_dir(dir)?.flatten().map(|entry| entry.file_name());
    let names = names.filter_map(|name| name.to_str()?.strip_suffix(".ready").map(str::to_owned));
    Ok(names.collect())
}

/// What an archive lacks between its first and its last segment, whatever their timelines, with segments of
/// 16 MB: their numbers.
pub fn holes(files: &BTreeSet<String>) -> Result<Vec<u64>> {
    let mut numbers = BTreeSet::new();
    for name in files.iter().filter(|name| is_segment(name)) {
        let part = |range| u64::from_str_radix(name.get(range).unwrap_or_default(), 16);
        numbers.insert(part(8..16)? * 256 + part(16..24)?);
    }
    let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else {
        bail!("no segments: {files:?}")
    };
    Ok((*first..*last).filter(|number| !numbers.contains(number)).collect())
}

/// Whether this is the name of a segment.
pub fn is_segment(name: &str) -> bool {
    name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Names up to what pgBackRest appends: a checksum, and how it was compressed.
fn collect(dir: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), found)?;
        } else if let Some(name) = entry.file_name().to_str()
            && !name.starts_with('.')
        {
            found.insert(name.split('-').next().unwrap_or(name).to_owned());
        }
    }
    Ok(())
}

fn scratch() -> Result<tempfile::TempDir> {
    let dir = tempfile::Builder::new().prefix("pgt-archive-").tempdir_in("/tmp")?;
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
    Ok(dir)
}

fn directory(path: &Path) -> Result<()> {
    fs::create_dir(path)?;
    give_to_postgres(path)
}

fn as_postgres(program: &str) -> Result<Command> {
    let mut command = Command::new(program);
    command.current_dir("/").env("LC_ALL", "C");
    if let Some((uid, gid)) = postgres_user()? {
        command.uid(uid).gid(gid);
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_found() {
        let names =
            ["000000010000000000000001", "0000000300000000000000FF", "000000030000000100000001"];
        let mut files: BTreeSet<_> = names.map(str::to_owned).into();
        assert_eq!(holes(&files).unwrap().len(), 0xFE);
        files.extend((2..0xFF).map(|number| format!("0000000100000000{number:08X}")));
        files.insert("000000030000000100000000.partial".to_owned());
        assert_eq!(holes(&files).unwrap(), [0x100]);
        assert!(holes(&BTreeSet::new()).is_err());
    }
}
