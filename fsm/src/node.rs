//! The keeper's side.
