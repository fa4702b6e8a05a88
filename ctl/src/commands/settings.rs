//! `pgtandem settings`.

use super::get::{FormationKey, plain};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::text::Table;
use clap::ValueEnum as _;
use shared::api::FormationSettings;

/// Shows the formation's settings with the values in force
#[derive(Debug, clap::Args)]
pub struct Settings {}

impl Settings {
    pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let settings = context.client()?.settings(&context.formation).await?;
        if context.json {
            output::json(&settings)?;
        } else {
            output::text(&render(&settings))?;
        }
        Ok(Exit::Done)
    }
}

fn render(settings: &FormationSettings) -> String {
    let mut table = Table::new(&["Setting", "In force", "From", "Meaning"]);
    for key in FormationKey::value_variants() {
        let help = key.to_possible_value();
        let help = help.as_ref().and_then(|value| value.get_help());
        table.row(vec![
            key.name().to_owned(),
            plain(&key.value(settings)),
            if key.is_set(settings) { "set" } else { "default" }.to_owned(),
            help.map(ToString::to_string).unwrap_or_default(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::settings::Settings;

    #[test]
    fn tells_what_is_set_from_what_follows() {
        let set = Settings { lease_ms: Some(1500), ..Settings::default() };
        let text = render(&FormationSettings {
            formation: "default".parse().unwrap(),
            timers: set.timers(),
            settings: set,
            number_sync_standbys: 1,
        });
        let row = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().skip(1).take(2).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(row("number-sync-standbys"), "1 default");
        assert_eq!(row("lease"), "1500ms set");
        assert_eq!(row("report-interval"), "500ms default");
        assert_eq!(row("drain-timeout"), "30s default");
    }
}
