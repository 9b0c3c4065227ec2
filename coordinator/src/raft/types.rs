//! The consensus library's types, as used by this coordinator.

use serde::{Deserialize, Serialize};
use soloist_core::{Rejection, Reply};

/// What an applied command gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Applied {
    /// Index of the command's log entry. It is also the command's number, for example a lock's fencing token.
    pub index: u64,
    /// The core's answer: a reply, or a refusal that every member agrees on.
    pub reply: Result<Reply, Rejection>,
}

/// What applying any log entry gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Response {
    /// The entry carried no command: a new leader's blank entry, or a change of the cluster's members.
    Internal {
        /// Index of the log entry.
        index: u64,
    },
    /// The entry carried a command.
    Command(Applied),
}

openraft::declare_raft_types!(
    /// Names the types that Raft carries: commands of the core, and members known by number and address.
    pub TypeConfig:
        D = soloist_core::Entry,
        R = Response,
        NodeId = u64,
        Node = openraft::BasicNode,
);

/// A type config that carries what [`TypeConfig`] carries, on any async runtime: the state machine is the same on all of them.
pub trait SameTypes:
    openraft::RaftTypeConfig<
        D = soloist_core::Entry,
        R = Response,
        NodeId = u64,
        Node = openraft::BasicNode,
        LeaderId = openraft::type_config::alias::LeaderIdOf<TypeConfig>,
        Entry = LogEntry,
    >
{
}

impl<C> SameTypes for C where
    C: openraft::RaftTypeConfig<
            D = soloist_core::Entry,
            R = Response,
            NodeId = u64,
            Node = openraft::BasicNode,
            LeaderId = openraft::type_config::alias::LeaderIdOf<TypeConfig>,
            Entry = LogEntry,
        >
{
}

pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type LogEntry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type LeaderId = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, Vec<u8>>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type Raft = openraft::Raft<TypeConfig, crate::store::Machine>;
