//! The operator's settings on this node: what the managed file shall say of them, whether the server
//! takes it, and what is reported.
//!
//! Which value is written when is decided in `fsm::node::pgsettings`. What must hold: values that the
//! server refuses leave the file as it was before them, and are not tried again until the operator
//! changes something.

use crate::clock;
use crate::node::{Node, disk};
use crate::steps::StepError;
use fsm::Millis;
use fsm::node::pgsettings::{Local, Side, cannot_replay, values};
use fsm::pgsettings::managed::MARK;
use postgres::config::{self, ManagedConfig};
use postgres::run::RunError;
use postgres::session::SessionError;
use postgres::session::settings::RequiredSetting;
use shared::goal::{Assignment, Goal};
use shared::ids::Revision;
use shared::pgsettings::{
    Catalogue, NodeSettings, REQUIRED, Refused, Required, SettingsReport, Values,
};
use std::collections::{BTreeMap, BTreeSet};

/// How often the server is asked while the operator has set something; a reload is asked about at once.
const ASK_MS: u64 = 1000;
/// The same while it has not read the newest values: a reload takes some milliseconds, and may be
/// waiting for a step before it.
const ASK_SOON_MS: u64 = 100;
/// The same while nothing is set: for what waits for a restart.
const ASK_RARELY_MS: u64 = 10_000;
/// The note in the managed file that names the operator's settings.
const NOTE: &str = "settings";

/// What the managed file says of the operator's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// The revision that the values are of; 0: none has ever been given.
    pub revision: Revision,
    /// The values.
    pub values: Values,
}

impl Given {
    /// What a file says that was written with [`Self::write`].
    pub fn read(config: &ManagedConfig) -> Self {
        let names = config.note(NOTE).unwrap_or_default().split(' ');
        let value = |name: &str| Some((name.to_owned(), config.setting(name)?.to_owned()));
        Self {
            revision: config.setting(MARK).and_then(|mark| mark.parse().ok()).unwrap_or_default(),
            values: names.filter_map(value).collect(),
        }
    }

    /// Adds them to the file; what pgtandem sets itself stays.
    pub fn write(&self, config: &mut ManagedConfig) {
        if self.revision == Revision::default() {
            return;
        }
        let mut names = Vec::new();
        for (name, value) in &self.values {
            if config.setting(name).is_none() {
                config.set(name, value);
                names.push(name.as_str());
            }
        }
        config.set_note(NOTE, names.join(" "));
        config.set(MARK, self.revision.to_string());
    }
}

/// What is known of the settings besides what the file says.
#[derive(Debug, Default)]
pub struct Desk {
    /// When the server was asked last, since it was started or told to reload.
    asked: Option<Millis>,
    /// What it said.
    found: Option<Found>,
    /// What the configuration files say apart from the managed one, as last seen.
    beneath: BTreeMap<String, u64>,
    /// What the control file of a running standby demands, read later than [`crate::node::Seen::control`].
    demanded: Option<BTreeMap<&'static str, u64>>,
    /// What was not taken, and why.
    refused: Option<(Values, String)>,
    catalogue: Option<Box<Catalogue>>,
}

#[derive(Debug, Default)]
struct Found {
    mark: Revision,
    in_force: Values,
    pending_restart: BTreeSet<String>,
    required: BTreeMap<String, RequiredSetting>,
}

impl Desk {
    /// The server has been told to reload.
    pub fn reloads(&mut self) {
        self.asked = None;
    }

    /// The server was started, or has ended.
    pub fn forget_server(&mut self) {
        (self.asked, self.found, self.demanded, self.catalogue) = (None, None, None, None);
    }

    /// The operator wants these: what was refused before others were wanted may be good by now.
    fn want(&mut self, wanted: &Values) {
        self.refused = self.refused.take().filter(|(refused, _)| refused == wanted);
    }

    /// What to report.
    pub fn report(&self, told: &NodeSettings) -> SettingsReport {
        let refused = self.refused.as_ref().filter(|(values, _)| *values == told.values);
        let refused = refused.map(|(_, why)| Refused { revision: told.revision, why: why.clone() });
        let Some(found) = &self.found else {
            return SettingsReport { refused, ..SettingsReport::default() };
        };
        let required = found
            .required
            .iter()
            .map(|(name, it)| (name.clone(), Required { running: it.running, next: it.next }));
        SettingsReport {
            revision: found.mark,
            in_force: found.in_force.clone(),
            pending_restart: found.pending_restart.clone(),
            required: required.collect(),
            refused,
        }
    }

    /// What the server says of all settings.
    pub fn catalogue(&self) -> Option<Box<Catalogue>> {
        self.catalogue.clone()
    }
}

impl Node {
    /// What the managed file shall say, where it says `present` now.
    pub fn settings_to_write(&self, assignment: &Assignment, present: &Given) -> Given {
        let told = &assignment.settings;
        let refused = self.settings.refused.as_ref();
        let is_refused = refused.is_some_and(|(refused, _)| *refused == told.values);
        let mut told = told.clone();
        if is_refused {
            told.values.clone_from(&present.values);
            told.revision = present.revision;
        }
        let local = self.required_here(present);
        Given { revision: told.revision, values: values(&told, side(assignment), &local) }
    }

    fn required_here(&self, present: &Given) -> BTreeMap<&'static str, Local> {
        let control = self.settings.demanded.as_ref();
        let control = control.or(self.seen.control.as_ref().map(|control| &control.required));
        let found = self.settings.found.as_ref();
        let local = |name: &'static str| {
            let found = found.and_then(|found| found.required.get(name));
            let local = Local {
                running: found.map(|found| found.running),
                control: control.and_then(|control| control.get(name)).copied(),
                beneath: self.settings.beneath.get(name).copied(),
                file: present.values.get(name).and_then(|value| value.parse().ok()),
            };
            (name, local)
        };
        REQUIRED.into_iter().map(local).collect()
    }

    /// Takes the present file's values back into force where the server does not take the new ones.
    pub(crate) async fn check_settings(
        &mut self,
        assignment: &Assignment,
        (before, after): (&Given, &Given),
    ) -> bool {
        if before.values == after.values {
            return true;
        }
        let why = self.faults(before, after).await;
        if let Some(why) = &why {
            tracing::warn!(
                node.id = self.id.0,
                "the new settings are not taken, the ones before stay: {why}"
            );
        }
        let refused = why.map(|why| (assignment.settings.values.clone(), why));
        let taken = refused.is_none();
        self.settings.refused = refused;
        taken
    }

    /// What the server has to say against the files as they stand, as far as it is about what changed.
    async fn faults(&mut self, before: &Given, after: &Given) -> Option<String> {
        let changed = |name: &&String| before.values.get(*name) != after.values.get(*name);
        let changed: Vec<_> = after.values.keys().filter(changed).collect();
        if self.running().is_some()
            && let Ok(session) = self.session().await
            && let Ok(errors) = session.file_errors().await
        {
            let ours = errors.into_iter().find(|fault| {
                fault.file.as_deref().is_some_and(|file| file.ends_with(config::FILE))
            });
            if let Some(fault) = ours {
                return Some(format!("{}: {}", fault.name.unwrap_or_default(), fault.error));
            }
        }
        // The server tells a bad value of a setting that needs a restart from a good one only when it
        // starts.
        match self.instance.configured("max_connections").await {
            Err(RunError::Failed { output, .. }) => {
                let ours = |line: &&str| {
                    line.contains(config::FILE)
                        || changed.iter().any(|name| line.contains(&format!("\"{name}\"")))
                };
                output.lines().find(ours).map(|line| line.trim().to_owned())
            }
            Err(error @ (RunError::Spawn { .. } | RunError::Timeout { .. })) => {
                tracing::warn!("the new settings are not checked: {error}");
                None
            }
            Ok(_) => None,
        }
    }

    /// Asks the server how far it is; what it does not answer now is asked again.
    pub async fn look_after_settings(&mut self, wants_catalogue: bool) {
        let Some(told) = self.persisted().map(|known| known.assignment.settings.clone()) else {
            return;
        };
        self.settings.want(&told.values);
        let now = clock::now();
        let idle = told.revision == Revision::default();
        let read = self.settings.found.as_ref().map(|found| found.mark);
        let refused = self.settings.report(&told).refused.is_some();
        let pause = match read {
            _ if idle => ASK_RARELY_MS,
            Some(read) if read == told.revision || refused => ASK_MS,
            Some(_) | None => ASK_SOON_MS,
        };
        if self.settings.asked.is_none_or(|at| now.since(at) >= pause) {
            let names: Vec<_> = told.values.keys().map(String::as_str).collect();
            match self.ask_for_settings(&names).await {
                Ok(found) => {
                    let beneath =
                        |(name, it): (&String, &RequiredSetting)| Some((name.clone(), it.beneath?));
                    self.settings.beneath = found.required.iter().filter_map(beneath).collect();
                    self.settings.found = Some(found);
                    self.settings.asked = Some(now);
                }
                Err(error) => tracing::debug!("the settings are not known: {error}"),
            }
            self.look_at_demands().await;
        }
        if wants_catalogue && self.settings.catalogue.is_none() {
            let asked = async { self.session().await?.catalogue().await };
            match asked.await {
                Ok(catalogue) => self.settings.catalogue = Some(Box::new(catalogue)),
                Err(error) => tracing::debug!("the catalogue of settings is not known: {error}"),
            }
        }
    }

    async fn ask_for_settings(&mut self, names: &[&str]) -> Result<Found, SessionError> {
        let session = self.session().await?;
        let mark = session.in_force(&[MARK]).await?;
        Ok(Found {
            mark: mark.get(MARK).and_then(|mark| mark.parse().ok()).unwrap_or_default(),
            in_force: session.in_force(names).await?,
            pending_restart: session.pending_restart().await?,
            required: session.required().await?,
        })
    }

    /// Of a server that is down, what the files say of what nobody sets here any more: it cannot be asked.
    pub(crate) async fn look_beneath(&mut self) {
        let Some(known) = self.persisted() else { return };
        let limits = known.assignment.settings.limits.clone();
        let missing = |name: &&String| !self.settings.beneath.contains_key(*name);
        let missing: Vec<_> = limits.keys().filter(missing).collect();
        if missing.is_empty() {
            return;
        }
        let given = self.given();
        for name in missing.into_iter().filter(|name| !given.values.contains_key(*name)) {
            if let Ok(value) = self.instance.configured(name).await
                && let Ok(value) = value.parse()
            {
                self.settings.beneath.insert(name.clone(), value);
            }
        }
    }

    /// The log of a running standby may demand more, or less, than when it was started. Looked at only
    /// while that matters, since it takes a process.
    async fn look_at_demands(&mut self) {
        let Some(known) = self.persisted() else { return };
        let told = &known.assignment.settings;
        let (limits, wanted) = (told.limits.clone(), told.values.clone());
        if limits.is_empty() || side(&known.assignment) == Side::Primary {
            self.settings.demanded = None;
            return;
        }
        let present = self.given();
        let matters = |(name, limit): (&String, &Option<u64>)| {
            let found = self.settings.found.as_ref().and_then(|found| found.required.get(name));
            let behind =
                found.is_some_and(|found| limit.is_some_and(|limit| found.running < limit));
            behind || present.values.get(name) != wanted.get(name)
        };
        if limits.iter().any(matters)
            && let Ok(control) = self.instance.control_data().await
        {
            self.settings.demanded = Some(control.required);
        }
    }

    /// A standby that runs with less than its log demands does not replay any more, and only a restart
    /// mends that; it is done where the file has enough.
    pub async fn restart_if_stuck(&mut self) -> Result<(), StepError> {
        let Some(known) = self.persisted() else { return Ok(()) };
        if !matches!(known.assignment.goal, Goal::Follow { .. }) {
            return Ok(());
        }
        let told = known.assignment.settings.clone();
        if told.limits.is_empty() {
            return Ok(());
        }
        let local = self.required_here(&self.given());
        let Some((name, running, demanded)) = cannot_replay(&told, &local) else { return Ok(()) };
        tracing::warn!(
            node.id = self.id.0,
            "postgres is restarted: it runs with {name} {running}, and cannot replay what was written with {demanded}"
        );
        self.stop_for_settings().await
    }

    /// What the managed file says now.
    pub fn given(&self) -> Given {
        let found = disk(|| ManagedConfig::read(&self.instance.data_dir)).ok().flatten();
        found.as_ref().map(Given::read).unwrap_or_default()
    }
}

fn side(assignment: &Assignment) -> Side {
    match assignment.goal {
        Goal::Primary { .. } => Side::Primary,
        Goal::Wait
        | Goal::Follow { .. }
        | Goal::Seal { .. }
        | Goal::FastForward { .. }
        | Goal::Maintenance
        | Goal::Dropped => Side::Standby,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_tried_again_after_a_change() {
        let values = |value: &str| [("work_mem".to_owned(), value.to_owned())].into();
        let refused = Some((values("much"), "no".to_owned()));
        let mut desk = Desk { refused, ..Desk::default() };
        let told = NodeSettings { values: values("much"), ..NodeSettings::default() };
        desk.want(&told.values);
        assert!(desk.report(&told).refused.is_some());
        desk.want(&values("8MB"));
        desk.want(&told.values);
        assert!(desk.report(&told).refused.is_none());
    }

    #[test]
    fn what_was_written_is_read_back() {
        let mut config = ManagedConfig::default();
        config.set("port", "5432");
        Given::default().write(&mut config);
        assert_eq!(Given::read(&config), Given::default());
        assert_eq!((config.note(NOTE), config.setting(MARK)), (None, None));
        let values: Values = [("port", "1"), ("work_mem", "8MB"), ("x.y", "it's")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        Given { revision: Revision(7), values }.write(&mut config);
        let read = Given::read(&ManagedConfig::parse(&config.render()).unwrap());
        assert_eq!((config.setting("port"), read.revision), (Some("5432"), Revision(7)));
        let names: Vec<_> = read.values.into_iter().collect();
        let text = |text: &str| text.to_owned();
        let expected = [(text("work_mem"), text("8MB")), (text("x.y"), text("it's"))];
        assert_eq!(names, expected);
    }
}
