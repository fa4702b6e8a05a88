//! The configuration file. It may be a keeper's: keys that are not ours are left alone.

use crate::exit::Exit;
use crate::failure::Failure;
use crate::logging::LogFormat;
use ctl::client::{MonitorUrl, parse_monitor_urls};
use serde::Deserialize;
use shared::ids::FormationId;
use std::path::Path;

/// What a file can set.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct File {
    monitor: Option<OneOrMore>,
    /// See `--formation`.
    pub formation: Option<FormationId>,
    /// See `--json`.
    #[serde(default)]
    pub json: bool,
    /// See `--log-format`.
    #[serde(alias = "log_format")]
    pub log_format: Option<LogFormat>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a text is wanted, or a list of texts")]
enum OneOrMore {
    /// Separated by commas.
    Text(String),
    List(Vec<String>),
}

impl File {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        program::file::read(path).map_err(|why| {
            let message = format!("cannot use {}: {why}", path.display());
            Failure::new(Exit::Configuration, "configuration", message)
        })
    }

    /// The monitors that the file names.
    pub fn monitors(&self) -> Result<Vec<MonitorUrl>, Failure> {
        let text = match &self.monitor {
            None => return Ok(Vec::new()),
            Some(OneOrMore::Text(text)) => text.clone(),
            Some(OneOrMore::List(list)) => list.join(","),
        };
        parse_monitor_urls(&text).map_err(|error| {
            let message = format!("`monitor` in the configuration file: {error}");
            Failure::new(Exit::Configuration, "configuration", message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_its_keys_from_a_keepers_file() {
        let file: File =
            toml::from_str("monitor = 'm1, m2:7000'\nformation = 'f'\npgdata = '/d'\n[x]\ny = 1")
                .unwrap();
        let monitors: Vec<_> = file.monitors().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(monitors, ["http://m1:7432", "http://m2:7000"]);
        assert_eq!(file.formation.unwrap().as_str(), "f");
        let file: File = toml::from_str("monitor = ['m1', 'm2']").unwrap();
        assert_eq!(file.monitors().unwrap().len(), 2);
    }

    #[test]
    fn bad_files_are_configuration_errors() {
        let file: File = toml::from_str("monitor = 'https://m1'").unwrap();
        assert_eq!(file.monitors().unwrap_err().to_api_error().code, 2);
        let missing = File::read(Path::new("/nonexistent/pgtandem.toml")).unwrap_err();
        assert_eq!(missing.to_api_error().code, 2);
        assert!(toml::from_str::<File>("formation = 'not valid'").is_err());
    }
}
