//! Soloist's agent: keeps one NocoBase node in the state that the coordinators assign.

pub mod driver;
pub mod host;
pub mod keeper;
pub mod ledger;
pub mod probe;
pub mod profile;
pub mod task;
