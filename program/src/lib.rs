//! What our three programs have in common as programs: the unit file that runs one as a service, its
//! line to the service manager, its manual pages and completions, what is wrong with its arguments
//! and its file of options, errors with their causes, and its duties as the first process of a container.
//!
//! Deliberately not here: anything about PostgreSQL, monitors and keepers, and any option of a program;
//! all of that is handed in.

pub mod arguments;
pub mod causes;
pub mod file;
pub mod first;
pub mod manual;
pub mod notify;
pub mod unit;
