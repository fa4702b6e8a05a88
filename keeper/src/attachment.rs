//! Which monitor the keeper calls, where an operator has said so: `attach` names another one, `detach`
//! none at all. A small file in the state directory, written by the commands alone and read by the
//! keeper, running or not.
//!
//! Not here: what the keeper does without a monitor (`agent`), and how it calls (`link`).

use crate::node::disk;
use crate::state::{StateError, load_json, save_json};
use postgres::owner::Owner;
use postgres::process;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde::{Deserialize, Serialize};
use shared::Timestamp;
use std::io;
use std::path::{Path, PathBuf};
use tokio::sync::watch;

/// The file within the state directory.
const FILE: &str = "monitor.json";

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

/// Follows the file for as long as anybody listens.
pub async fn follow(dir: PathBuf, known: watch::Sender<Attachment>) {
    if let Err(error) = watch(&dir, &known).await {
        tracing::error!(
            "{} cannot be watched ({error}): attach and detach count from the next start on",
            dir.display()
        );
    }
}

async fn watch(dir: &Path, known: &watch::Sender<Attachment>) -> io::Result<()> {
    let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    // The file is replaced whole, as the keeper's own are.
    inotify::add_watch(&events, dir, WatchFlags::MOVED_TO)?;
    let events = process::watch(events)?;
    loop {
        take(dir, known);
        let mut ready = tokio::select! {
            ready = events.readable() => ready?,
            () = known.closed() => return Ok(()),
        };
        // Whatever has come, the file is looked at.
        while rustix::io::read(events.get_ref(), &mut [0; 4096]).is_ok() {}
        ready.clear_ready();
    }
}

fn take(dir: &Path, known: &watch::Sender<Attachment>) {
    let found = match disk(|| Attachment::load(dir)) {
        Ok(found) => found,
        Err(error) => return tracing::warn!("{error}"),
    };
    known.send_if_modified(|known| {
        let changed = *known != found;
        if changed {
            tracing::info!("{}", words(&found));
            *known = found;
        }
        changed
    });
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

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_written_is_taken_up() {
        let temp = tempfile::tempdir().unwrap();
        let owner = Owner::current();
        let (known, mut taken) = watch::channel(Attachment::default());
        let following = tokio::spawn(follow(temp.path().to_owned(), known));
        for url in ["one", "two"] {
            let wanted = Attachment { monitors: urls(url), ..Attachment::default() };
            wanted.save(temp.path(), &owner).unwrap();
            // Other files come and go beside it.
            std::fs::write(temp.path().join("other"), url).unwrap();
            let limit = std::time::Duration::from_secs(10);
            let seen = taken.wait_for(|known| *known == wanted);
            assert!(tokio::time::timeout(limit, seen).await.unwrap().is_ok());
        }
        drop(taken);
        following.await.unwrap();
    }

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
