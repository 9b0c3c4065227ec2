//! The type config of simulated members: the coordinator's own, on a runtime that does the same in every run of a seed.

use openraft::type_config::alias;
use soloist_coordinator::{raft::types::Response, store::Machine};
use soloist_core::Entry;

use crate::{disk::Disk, runtime::Seeded};

openraft::declare_raft_types!(
    /// The coordinator's type config but for the runtime; `SameTypes` of the coordinator holds it to that.
    pub(crate) Simulated:
        D = Entry,
        R = Response,
        NodeId = u64,
        Node = openraft::BasicNode,
        AsyncRuntime = Seeded,
);

pub(crate) type Raft = openraft::Raft<Simulated, Machine<Disk>>;
pub(crate) type Vote = alias::VoteOf<Simulated>;
pub(crate) type LogId = alias::LogIdOf<Simulated>;
pub(crate) type LogEntry = alias::EntryOf<Simulated>;
pub(crate) type Snapshot = alias::SnapshotOf<Simulated, Vec<u8>>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<Simulated>;
