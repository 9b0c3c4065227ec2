//! Soloist's command line.
//!
//! ```text
//!   cli ──► commands/* ──► client ──► any coordinator        follow ──► what an operation does, live or line by line
//!                │                                               ▲
//!                └──► render/{table,json,status} ──► ui ──► stdout        watch ──► status over connections that break
//! ```
//!
//! A command is one file with its arguments and one function. Errors have a kind, which is the exit code, and hints, which
//! are data until [`ui`] writes them. No command decides anything about a fleet: coordinators do.

pub mod cli;
pub mod client;
mod clock;
pub mod commands;
pub mod error;
pub mod evidence;
pub mod follow;
pub mod names;
pub mod policy_file;
pub mod render;
pub mod ui;
pub mod watch;
