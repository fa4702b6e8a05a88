//! The group's machine: one durable record, what is seen of the nodes, and the rules that take one
//! to the next. `rules::step` is the only way the record changes by itself, `request::apply` and
//! `join::join` the only ways it changes because somebody asked.

mod acceptance;
pub mod adopt;
mod cascade;
pub mod course;
pub mod detector;
pub mod election;
pub mod explain;
pub mod goals;
pub mod join;
pub mod outage;
pub mod pgsettings;
mod ranking;
pub mod record;
pub mod request;
pub mod rules;
pub mod status;
pub mod sync;
pub mod timelines;
pub mod view;
pub mod whatif;

pub use record::{Decision, Node, Phase, Record};
pub use view::View;
