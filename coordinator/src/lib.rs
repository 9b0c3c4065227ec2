//! Soloist's coordinator: the replicated brain of a fleet.
//!
//! Decisions are made in `soloist-core`; this crate gives them a log that survives crashes, and servers.
//!
//! ```text
//!   agents ─► grpc/session ─┐                      ┌─► raft ─► store
//!   people ─► grpc/operator ┼─► proposer ─► leader ┤
//!                           │      (any member)    └─◄ due, every tick
//!                           └─► reader, watch ◄── the local state, made current by the leader
//! ```
//!
//! - [`config`]: flags, environment, file.
//! - [`server`]: starts and stops all of it.
//! - [`raft`]: a member of the cluster, as one handle: propose, read, hand over.
//! - [`store`]: what a member keeps on disk.
//!
//! Architecture invariant: only `raft` and `store` name the consensus library, and only [`store`] names the database
//! under it. The rest of the crate sees `soloist-core` types, indexes and member ids. Only `clock` reads time.

mod clock;
pub mod config;
mod contact;
mod evidence;
mod grpc;
#[cfg(test)]
#[path = "../../proto/tests/hell/mod.rs"]
mod hell;
mod history;
mod http;
mod leader;
mod members;
mod memory;
mod metrics;
mod notice;
mod peers;
mod proposer;
pub mod raft;
mod reader;
pub mod server;
mod shared;
pub mod store;
mod watch;

use std::path::Path;

pub use config::{Config, ConfigError, Flags};
pub use server::{Coordinator, StartError, run};

/// Makes this member's data folder from a backup, for a new cluster that goes on from there; see [`store::restore`]. Blocks.
///
/// # Errors
///
/// When the backup cannot be used, or the folder is not new.
pub fn restore(config: &Config, file: &Path) -> Result<(store::BackupHeader, u64), store::RestoreError> {
    let now = clock::Clock::start().wall_ms();
    store::restore(&config.data, &config.cluster, config.id, &config.advertise, file, now)
}
