//! The client and the command against a real server on TCP that plays the monitor.

mod client;
mod command;
mod server;
