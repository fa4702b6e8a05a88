//! Which monitor the keeper calls, where an operator has said so: `attach` names another one, `detach`
//! none at all. A small file in the state directory, written by the commands alone and read by the
//! keeper, running or not.
//!
//! Not here: what the keeper does without a monitor (`agent`), and how it calls (`link`).

use crate::clock;
use crate::state::{StateError, load_json, save_json};
use postgres::owner::Owner;
use serde::{Deserialize, Serialize};
use shared::Timestamp;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;

/// The file within the state directory.
const FILE: &str = "monitor.json";
/// How often a running keeper looks at it.
const LOOK: Duration = Duration::from_millis(200);

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attachment {
    /// The monitor to call instead of the one that the keeper was started with; empty: that one.
    pub monitors: Vec<String>,
    /// Lets it join there.
    pub token: Option<String>,
    /// No monitor is called, since then.
    pub detached: Option<Timestamp>,
}

/// What the keeper has taken up of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The monitor that was named.
    pub to: Vec<String>,
    /// What `--monitor` said then. Where it says something else later, it counts again.
    pub instead_of: Vec<String>,
}

impl Attachment {
    /// Reads the file of a state directory.
    pub fn load(dir: &Path) -> Result<Self, StateError> {
        load_json(&dir.join(FILE))
    }

    /// Writes it, durably.
    pub fn save(&self, dir: &Path, owner: &Owner) -> Result<(), StateError> {
        save_json(&dir.join(FILE), self, owner)
    }

    /// What is to be called: the monitor that was named, unless `--monitor` (`given`) has changed since.
    pub fn in_place_of(&self, given: &[String], taken: Option<&Attached>) -> Option<Vec<String>> {
        let changed =
            taken.is_some_and(|taken| taken.to == self.monitors && taken.instead_of != given);
        (!self.monitors.is_empty() && !changed).then(|| self.monitors.clone())
    }
}

/// Follows the file for as long as anybody listens. It has no event of its own: the commands that write
/// it may be those of another build, and of another user.
pub async fn follow(dir: PathBuf, known: watch::Sender<Attachment>) {
    while !known.is_closed() {
        tokio::time::sleep(LOOK).await;
        match Attachment::load(&dir) {
            Ok(found) => {
                known.send_if_modified(|known| {
                    let changed = *known != found;
                    if changed {
                        tracing::info!(at_ms = clock::now().0, "{}", words(&found));
                        *known = found;
                    }
                    changed
                });
            }
            Err(error) => tracing::warn!("{error}"),
        }
    }
}

fn words(found: &Attachment) -> String {
    match found.detached {
        Some(_) => "detached from the monitor: none is called any more".to_owned(),
        None => format!("attached to the monitor at {}", found.monitors.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    #[test]
    fn the_option_counts_again_once_it_has_changed() {
        let attachment = Attachment { monitors: urls("new"), ..Attachment::default() };
        assert_eq!(attachment.in_place_of(&urls("old"), None), Some(urls("new")));
        let taken = Attached { to: urls("new"), instead_of: urls("old") };
        assert_eq!(attachment.in_place_of(&urls("old"), Some(&taken)), Some(urls("new")));
        assert_eq!(attachment.in_place_of(&urls("newest"), Some(&taken)), None);
        // Another word of the operator's, not taken up yet.
        let again = Attachment { monitors: urls("third"), ..attachment };
        assert_eq!(again.in_place_of(&urls("newest"), Some(&taken)), Some(urls("third")));
        assert_eq!(Attachment::default().in_place_of(&urls("old"), None), None);
    }
}
