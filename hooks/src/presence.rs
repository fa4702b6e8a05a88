//! Whether what a hook is to run is there: one that is mistyped, or gone, shall not be found out at the failover.
//!
//! A warning, never a refusal: a script may come later, and what it is worth is its owner's affair. Nothing is run
//! for this. Blocks on the disk.

use crate::hook::{Hook, Target};
use rustix::fs::{Access, access};
use std::path::Path;

/// Where programs are looked for where the environment does not say.
const USUAL_PLACES: &str = "/usr/local/bin:/usr/bin:/bin";

/// What a person should know of a hook whose program is not there.
pub fn missing(hook: &Hook) -> Option<String> {
    let Target::Command { program, arguments } = &hook.target else { return None };
    let is_env = Path::new(program).file_name().is_some_and(|name| name == "env");
    let told = |word: &&String| !word.contains('=') && !word.starts_with('-');
    let behind = arguments.iter().find(told).filter(|_| is_env);
    let what = match (is_there(program), behind) {
        (false, _) => "its program",
        (true, Some(behind)) if !is_there(behind) => "the program that env is to run",
        (true, _) => return None,
    };
    Some(format!(
        "the hook {hook} cannot be run: {what} is not there, or may not be executed by this user"
    ))
}

/// Hooks are run in `/`.
fn is_there(program: &str) -> bool {
    let is_program = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if program.contains('/') {
        return is_program(&Path::new("/").join(program));
    }
    let places = std::env::var_os("PATH").unwrap_or_else(|| USUAL_PLACES.into());
    std::env::split_paths(&places).any(|place| is_program(&place.join(program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_told() {
        let found =
            |line: &str| missing(&Hook::parse(&format!("on_fence={line}"), &["on_fence"]).unwrap());
        for line in ["sh -c x", "/bin/sh", "bin/sh", "env A=/no/such sh", "env", "http://nowhere"] {
            assert_eq!(found(line), None, "{line}");
        }
        for line in
            ["/no/such secret", "no-such-program", "/etc/passwd", "/usr", "env A=b -i /no/secret"]
        {
            let warning = found(line).unwrap();
            assert!(warning.contains("on_fence (") && !warning.contains("secret"), "{warning}");
        }
    }
}
