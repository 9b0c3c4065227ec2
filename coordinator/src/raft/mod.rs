//! A member of the coordinators' cluster.
//!
//! [`RaftNode`] is all that the rest of the coordinator sees:
//!
//! ```text
//!            propose ──► ┌──────────┐ ──► service of the other members   (network, append_stream)
//! ensure_linearizable ─► │ RaftNode │
//!             status ◄── └────┬─────┘ ◄── calls of the other members     (service)
//!                             ▼
//!                     store: log, vote, state
//! ```
//!
//! Architecture invariant: the consensus library is named only here and in [`store`](crate::store), since its interface
//! changes with every release. Nothing here decides about fleets, reads a clock for a decision, or knows what a command
//! means.

mod append_stream;
mod cluster;
mod config;
mod error;
mod gate;
mod network;
mod node;
mod service;
mod status;
pub mod types;
pub(crate) mod wire;

pub use cluster::HandOver;
pub use config::{Compaction, RaftOptions, Timing, library_config};
pub use error::{Member, OpenError, ProposeError, ReadError};
pub use node::RaftNode;
pub use service::RaftService;
pub use status::{PeerStatus, RaftStatus, Role};
pub use types::Applied;
