//! The facts about PostgreSQL that the safety rules lean on (docs/postgres-facts.md), looked at on real
//! servers of each major version, by the queries that ship. A new major version that behaves otherwise
//! fails here before it loses a commit.
//!
//! One file per rule of docs/safety.md. What must hold: a fact is one function for all versions; where a
//! hole is closed by a rule, the hole itself is reproduced beside it, so that the test would notice if it
//! looked in the wrong place. "Does not return" is looked at for [`stage::LOOK`]; all else is awaited. A
//! version that is not installed fails. Not here: facts that need a process held inside its read of a
//! file (section 11), and figures (section 5).

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail by panicking, in its helpers too"
)]

/// Makes a module of tests from the function of the same name: one test for each major version. Given
/// are the section of docs/postgres-facts.md and what it says.
macro_rules! fact {
    ($name:ident, $section:literal, $says:literal) => {
        mod $name {
            #[tokio::test]
            async fn on_15() {
                crate::stage::look(15, $section, $says, super::$name).await;
            }
            #[tokio::test]
            async fn on_16() {
                crate::stage::look(16, $section, $says, super::$name).await;
            }
            #[tokio::test]
            async fn on_18() {
                crate::stage::look(18, $section, $says, super::$name).await;
            }
        }
    };
}

mod commit;
#[path = "../real/harness.rs"]
mod harness;
mod node;
mod processes;
mod rule_10;
mod rule_3;
mod rule_4;
mod rule_8;
mod rule_9;
mod rule_9_block;
mod rule_9_mixed;
mod stage;
mod stops;
mod versions;
