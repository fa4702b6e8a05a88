//! Where the programs are: ours beside the test executable, PostgreSQL's where packages put them.

use super::process::command;
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One of our programs. Cargo builds the binaries of other packages only when told to, so a test run
/// begins with `cargo build --workspace --bins`, as `make test` does.
pub fn ours(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("where is this test?")?;
    let found = this.ancestors().skip(1).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!(
            "{name} is not beside {}: `cargo build --workspace --bins` makes it",
            this.display()
        )
    })
}

/// Which build of our programs is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Build {
    /// The one that is shipped.
    #[default]
    Ours,
    /// Another one, which speaks this protocol.
    Other(u32),
}

impl Build {
    /// A command that runs `pgtandem-monitor` or `pgtandem-keeper` of this build.
    pub fn command(self, program: &str) -> Result<Command> {
        let Self::Other(protocol) = self else { return Ok(command(&ours(program)?)) };
        let mut command = command(&ours("pgtandem-other-build")?);
        command.arg(protocol.to_string()).arg(program.trim_start_matches("pgtandem-"));
        Ok(command)
    }
}

/// Names the directory with PostgreSQL's programs where clusters shall be of another version than the packaged one.
const BIN_DIR: &str = "PGTANDEM_TEST_BIN_DIR";

/// Where PostgreSQL's programs are to be taken from, where that was said.
pub fn bin_dir() -> Option<PathBuf> {
    std::env::var_os(BIN_DIR).map(PathBuf::from)
}

/// One of PostgreSQL's programs: of the directory that was named, else of the newest version that is installed.
pub fn postgres(name: &str) -> Result<PathBuf> {
    if let Some(dir) = bin_dir() {
        return Ok(dir.join(name));
    }
    let packaged = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut dirs: Vec<(u32, PathBuf)> = packaged
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    dirs.sort();
    let newest = dirs.into_iter().rev().map(|(_, dir)| dir.join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = newest.chain(std::env::split_paths(&path)).map(|dir| dir.join(name));
    found.into_iter().find(|path| is_file(path)).with_context(|| {
        format!("PostgreSQL's program {name} is not installed: `make setup` does that")
    })
}

fn is_file(path: &Path) -> bool {
    path.is_file()
}
