//! Tests of the store and of the API over a real Postgres, with scripted keepers over real TCP.

mod answers;
mod database;
mod harness;
mod operator;
mod store;
