//! `pgtandem config edit`: the settings as a text, an editor, and the difference as one request.
//!
//! What must hold: nothing that was typed is lost. The text stays in its file until the monitor has
//! taken it, and every failure says where that is.

use super::{Changes, Request, apply};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operation::Wait;
use crate::output;
use serde_json::json;
use shared::api::ApiError;
use shared::ids::NodeName;
use shared::pgsettings::{PostgresConfig, Values};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// Where nothing names an editor.
const EDITOR: &str = "vi";

/// Opens the settings in an editor, and applies what was changed.
pub(super) async fn edit(
    context: &Context,
    node: Option<NodeName>,
    wait: &Wait,
) -> Result<Exit, Failure> {
    let config = context.client()?.postgres_settings(&context.formation).await?;
    let before = values(context, &config, node.as_ref())?;
    let path = write(&render(&config, node.as_ref(), &before))?;
    let kept = |failure: Failure, lines: &[Line]| keep(&failure, &path, lines);
    open(&path).await.map_err(|failure| kept(failure, &[]))?;
    let text = std::fs::read_to_string(&path)
        .map_err(|error| kept(Failure::new(Exit::Internal, "edit", error.to_string()), &[]))?;
    let lines = parse(&text)
        .map_err(|message| kept(Failure::new(Exit::BadArguments, "bad_value", message), &[]))?;
    let changes = difference(&before, &lines);
    if changes.is_empty() {
        remove(&path);
        if context.json {
            output::json(&json!({ "outcome": "done", "reason": "unchanged" }))?;
        } else {
            output::text("unchanged: nothing was asked for")?;
        }
        return Ok(Exit::Done);
    }
    let request = Request { node, changes, if_revision: Some(config.revision) };
    let exit = apply(context, request, wait).await.map_err(|failure| kept(failure, &lines))?;
    if exit == Exit::Done {
        remove(&path);
    } else {
        output::note(&format!("the text is kept in {}", path.display()));
    }
    Ok(exit)
}

fn values(
    context: &Context,
    config: &PostgresConfig,
    node: Option<&NodeName>,
) -> Result<Values, Failure> {
    let Some(name) = node else { return Ok(config.values.clone()) };
    let found = config.nodes.iter().find(|node| node.name == *name);
    found.map(|node| node.values.clone()).ok_or_else(|| {
        let message = format!("formation {} has no node {name}", context.formation);
        Failure::new(Exit::BadArguments, "unknown_node", message)
    })
}

fn render(config: &PostgresConfig, node: Option<&NodeName>, values: &Values) -> String {
    let whose = node.map_or_else(
        || format!("all nodes of formation {}", config.formation),
        |node| format!("{node}, instead of what is set for all nodes"),
    );
    let mut text = format!(
        "# Settings of Postgres for {whose}.\n\
         # One line each: name = 'value'. A line that is removed takes its setting back.\n\n"
    );
    for (name, value) in values {
        text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
    }
    text
}

/// Creates a file that only this user can read.
fn write(text: &str) -> Result<PathBuf, Failure> {
    let written = || -> std::io::Result<PathBuf> {
        let mut file =
            tempfile::Builder::new().prefix("pgtandem-config-").suffix(".conf").tempfile()?;
        file.write_all(text.as_bytes())?;
        let (_, path) = file.keep().map_err(|error| error.error)?;
        Ok(path)
    };
    written().map_err(|error| {
        let message = format!("cannot write a file for the editor: {error}; is TMPDIR full?");
        Failure::new(Exit::Configuration, "edit", message)
    })
}

/// Best effort: a copy that stays does no harm.
fn remove(path: &Path) {
    drop(std::fs::remove_file(path));
}

async fn open(path: &Path) -> Result<(), Failure> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| EDITOR.to_owned());
    let failed = |why: String| {
        let message = format!("the editor '{editor}' {why}; set EDITOR to another one");
        Failure::new(Exit::Configuration, "editor", message)
    };
    // It may have arguments, as in `code --wait`.
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(path);
    let status = command.status().await.map_err(|error| failed(format!("cannot run: {error}")))?;
    if status.success() { Ok(()) } else { Err(failed(format!("has failed ({status})"))) }
}

/// A line with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    number: usize,
    name: String,
    value: String,
}

/// Reads `name = value` as postgresql.conf has it, with quotes and comments; a backslash is one. Every fault
/// with its line.
fn parse(text: &str) -> Result<Vec<Line>, String> {
    let mut lines: Vec<Line> = Vec::new();
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match pair(line) {
            Some((name, _)) if lines.iter().any(|known| known.name.eq_ignore_ascii_case(&name)) => {
                faults.push(format!("line {number}: {name} stands here a second time"));
            }
            Some((name, value)) => lines.push(Line { number, name, value }),
            None => faults.push(format!("line {number}: '{line}' is not name = 'value'")),
        }
    }
    if faults.is_empty() { Ok(lines) } else { Err(faults.join("\n")) }
}

fn pair(line: &str) -> Option<(String, String)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_.$".contains(c);
    let end = line.find(|c| !is_name(c))?;
    let (name, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let (value, after) = match rest.chars().next()? {
        '\'' => quoted(rest)?,
        // Quotes of the wrong kind are no part of the value, and no quotes either.
        '#' | '"' => return None,
        _ => {
            let end = rest.find(|c: char| c == '#' || c.is_whitespace()).unwrap_or(rest.len());
            let (value, after) = rest.split_at(end);
            (value.to_owned(), after)
        }
    };
    let after = after.trim_start();
    let fine = !name.is_empty() && (after.is_empty() || after.starts_with('#'));
    fine.then(|| (name.to_owned(), value))
}

/// The text between quotes, of which two in a row are one, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text.strip_prefix('\'')?;
    loop {
        let (part, after) = rest.split_once('\'')?;
        value.push_str(part);
        match after.strip_prefix('\'') {
            Some(more) => {
                value.push('\'');
                rest = more;
            }
            None => return Some((value, after)),
        }
    }
}

/// What has to change for the text to hold.
fn difference(before: &Values, lines: &[Line]) -> Changes {
    let stays = |name: &str| lines.iter().any(|line| line.name.eq_ignore_ascii_case(name));
    let gone = before.keys().filter(|name| !stays(name)).map(|name| (name.clone(), None));
    let new = lines.iter().filter(|line| before.get(&line.name) != Some(&line.value));
    gone.chain(new.map(|line| (line.name.clone(), Some(line.value.clone())))).collect()
}

/// The failure, with the lines that it is about and the place of the text.
fn keep(failure: &Failure, path: &Path, lines: &[Line]) -> Failure {
    let error = failure.to_api_error();
    let located = |text: &str| {
        let name = text.split(':').next().unwrap_or_default();
        let line = lines.iter().find(|line| line.name.eq_ignore_ascii_case(name));
        line.map_or_else(|| text.to_owned(), |line| format!("line {}: {text}", line.number))
    };
    let message: Vec<_> = error.message.lines().map(located).collect();
    let message = format!("{}\nthe text is kept in {}", message.join("\n"), path.display());
    Failure::Here(ApiError { message, ..error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(usize, String, String)> {
        parse(text).unwrap().into_iter().map(|it| (it.number, it.name, it.value)).collect()
    }

    #[test]
    fn lines_are_read_as_postgres_does() {
        let text = "# one\nwork_mem = '8MB' # two\n\n  x.y 'it''s'\nport=5\nsearch_path = 'a, \"B\"'\ne = ''\nf = '%m '";
        let expected = [
            (2, "work_mem", "8MB"),
            (4, "x.y", "it's"),
            (5, "port", "5"),
            (6, "search_path", "a, \"B\""),
            (7, "e", ""),
            (8, "f", "%m "),
        ];
        let expected =
            expected.map(|(number, name, value)| (number, name.to_owned(), value.to_owned()));
        assert_eq!(read(text), expected);
        assert_eq!(
            parse("a = 1\nwhat\nb = 'x\nA = 2\nc = 1 2\nd = \"x\"").unwrap_err(),
            "line 2: 'what' is not name = 'value'\nline 3: 'b = 'x' is not name = 'value'\nline 4: A stands here a second time\nline 5: 'c = 1 2' is not name = 'value'\nline 6: 'd = \"x\"' is not name = 'value'"
        );
    }

    #[test]
    fn what_is_shown_is_read_back_as_no_change() {
        let values: Values =
            [("a".to_owned(), "it's # one".to_owned()), ("b.c".to_owned(), "\"x\"".to_owned())]
                .into();
        let config = PostgresConfig {
            formation: "default".parse().unwrap(),
            revision: shared::ids::Revision(1),
            values: values.clone(),
            nodes: Vec::new(),
        };
        let lines = parse(&render(&config, None, &values)).unwrap();
        assert_eq!(difference(&values, &lines), Changes::new());
        let lines = parse("a = 'other'\nd = 1").unwrap();
        let expected = [
            ("a".to_owned(), Some("other".to_owned())),
            ("b.c".to_owned(), None),
            ("d".to_owned(), Some("1".to_owned())),
        ];
        assert_eq!(difference(&values, &lines), expected.into());
    }

    #[test]
    fn faults_are_shown_with_their_lines() {
        let lines = parse("\nwork_mem = 1\nfoo = 2").unwrap();
        let failure =
            Failure::new(Exit::BadArguments, "bad_value", "foo: no\nwork_mem: '1' is bad");
        let error = keep(&failure, Path::new("/tmp/x"), &lines).to_api_error();
        let expected = "line 3: foo: no\nline 2: work_mem: '1' is bad\nthe text is kept in /tmp/x";
        assert_eq!((error.code, error.message.as_str()), (1, expected));
    }
}
