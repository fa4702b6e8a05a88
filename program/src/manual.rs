//! Manual pages and shell completions, made from a program's own definition.

use clap::Command;
use serde_json::json;
use std::io;
use std::path::{Path, PathBuf};

/// A shell that can complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    /// GNU bash, with the package bash-completion.
    Bash,
    /// The Z shell.
    Zsh,
    /// The friendly interactive shell.
    Fish,
}

/// Prints a shell's completions
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(skip)]
pub struct Completions {
    /// Which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints the manual page, or writes one for each command
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Manual {
    /// Writes the pages of all commands into this directory, which is created where it is missing
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What the shell has to read to complete a program's arguments.
pub fn completions(mut program: Command, shell: Shell) -> String {
    let name = program.get_name().to_owned();
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut program, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

impl Manual {
    /// Does what was asked for; returns what is to be printed.
    pub fn make(&self, program: Command, as_json: bool) -> io::Result<String> {
        let Some(dir) = &self.dir else { return page(program) };
        let written = write_pages(&program, dir)?;
        let written: Vec<_> = written.iter().map(|path| path.display().to_string()).collect();
        Ok(if as_json { json!({ "written": written }).to_string() } else { written.join("\n") })
    }
}

/// The page of a program itself.
pub fn page(program: Command) -> io::Result<String> {
    let mut page = Vec::new();
    clap_mangen::Man::new(program).render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// Writes the pages of a program and of its commands into a directory; returns their paths.
pub fn write_pages(program: &Command, dir: &Path) -> io::Result<Vec<PathBuf>> {
    let beside = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("cannot write manual pages to {}: {error}", dir.display()),
        )
    };
    std::fs::create_dir_all(dir).map_err(beside)?;
    clap_mangen::generate_to(program.clone(), dir).map_err(beside)?;
    let mut program = program.clone().disable_help_subcommand(true);
    program.build();
    Ok(names(&program).into_iter().map(|name| dir.join(format!("{name}.1"))).collect())
}

/// What the pages of a program are called: `pgtandem`, `pgtandem-status`, and so on.
fn names(program: &Command) -> Vec<String> {
    let own = program.get_display_name().unwrap_or(program.get_name()).to_owned();
    let shown = program.get_subcommands().filter(|command| !command.is_hide_set());
    std::iter::once(own).chain(shown.flat_map(names)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Command {
        let token = Command::new("token").about("Tokens").subcommand(Command::new("list"));
        Command::new("pgx").about("A program").subcommand(token).subcommand(Command::new("run"))
    }

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let written = write_pages(&program(), &dir.path().join("man1")).unwrap();
        let names: Vec<_> = written.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(names, ["pgx.1", "pgx-token.1", "pgx-token-list.1", "pgx-run.1"]);
        assert!(written.iter().all(|path| path.is_file()));
        let blocked = write_pages(&program(), &written.first().unwrap().join("dir"));
        assert!(blocked.unwrap_err().to_string().contains("cannot write manual pages"));
        assert!(page(program()).unwrap().contains("A program"));
    }

    #[test]
    fn every_shell_learns_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completions(program(), shell);
            assert!(script.contains("token") && script.contains("list"), "{shell:?}: {script}");
        }
    }
}
