//! The list of commands. Each has its file: the arguments, whose doc comment is the help, and one
//! function that runs it. A new one takes its `mod` and its line in the list.

mod accept;
mod completions;
mod config;
mod demo;
mod drop;
pub mod events;
mod explain;
mod failover;
mod formation;
mod fsm;
mod get;
mod haproxy;
mod maintenance;
mod man;
mod pause;
mod promote;
mod reinit;
mod restart;
mod resume;
mod set;
mod settings;
mod status;
mod switchover;
mod sync;
mod timelines;
mod token;
mod uri;
mod watch;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;

macro_rules! commands {
    ($($module:ident::$name:ident,)*) => {
        /// All commands, in the order of the help.
        #[derive(Debug, clap::Subcommand)]
        pub enum Command {
            $($name($module::$name),)*
        }

        impl Command {
            /// Runs the command.
            pub async fn run(self, context: &Context) -> Result<Exit, Failure> {
                match self {
                    $(Self::$name(command) => Box::pin(command.run(context)).await,)*
                }
            }
        }
    };
}

commands! {
    status::Status,
    watch::Watch,
    events::Events,
    explain::Explain,
    uri::Uri,
    haproxy::Haproxy,
    sync::Sync,
    timelines::Timelines,
    settings::Settings,
    fsm::Fsm,
    switchover::Switchover,
    failover::Failover,
    promote::Promote,
    maintenance::Maintenance,
    pause::Pause,
    resume::Resume,
    restart::Restart,
    reinit::Reinit,
    accept::Accept,
    set::Set,
    get::Get,
    config::Config,
    drop::Drop,
    formation::Formation,
    token::Token,
    demo::Demo,
    completions::Completions,
    man::Man,
}
