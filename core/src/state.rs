//! The replicated state.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::assignment::{Assignment, Observed};
use crate::command::{Command, FIRST_LEVEL};
use crate::event::Event;
use crate::fence::{Covers, Fence};
use crate::ids::{
    BackupId, BootId, FleetId, Generation, Incarnation, MachineId, NodeId, OperationId, Token, Version,
};
use crate::members::UsedIds;
use crate::operation::Operation;
use crate::policy::Policy;
use crate::restore::Restored;
use crate::time::Time;

/// Everything that Raft replicates.
///
/// At level 1 it is written as a release of that level wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The state's own time: the highest time of any entry.
    pub now: Time,
    /// Wall clock of the last entry, milliseconds since 1970; no decision reads it.
    pub wall_ms: u64,
    /// When the last leader was promoted.
    pub promoted: Time,
    /// The fleets.
    pub fleets: BTreeMap<FleetId, Fleet>,
    /// The feature level: what may be in it, and how it changes.
    #[serde(default = "first_level", skip_serializing_if = "is_first_level")]
    pub level: u32,
    /// Ids of the cluster's members that must not be used again.
    #[serde(default, skip_serializing_if = "UsedIds::is_empty")]
    pub used_ids: UsedIds,
    /// Set for good when the cluster comes from a backup: fleets that enrol later may have been there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}

impl Default for State {
    fn default() -> Self {
        State {
            now: Time::default(),
            wall_ms: 0,
            promoted: Time::default(),
            fleets: BTreeMap::new(),
            level: FIRST_LEVEL,
            used_ids: UsedIds::default(),
            restored: None,
        }
    }
}

impl State {
    /// The level with which a leader stamps the entry of a command.
    pub fn stamp_level(&self, command: &Command) -> u32 {
        self.level.max(command.level())
    }
}

fn first_level() -> u32 {
    FIRST_LEVEL
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_first_level(level: &u32) -> bool {
    *level == FIRST_LEVEL
}

/// Whether a fleet should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// It should run.
    Run,
    /// It should be stopped.
    #[default]
    Stop,
}

/// What is known of a fleet's database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseRecord {
    /// Its identity when it was last seen.
    pub identity: String,
    /// Its version when it was last seen.
    pub version: Option<Version>,
}

/// A backup that was made and checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// The node whose agent made it and has it.
    pub node: NodeId,
    /// When it was done, milliseconds since 1970.
    pub wall_ms: u64,
    /// Version of the database at that time.
    pub version: Option<Version>,
    /// What its agent says of it, by name: size, checksum, duration and the like.
    pub facts: BTreeMap<String, String>,
}

/// The maintenance lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Lock {
    /// Nobody holds it.
    #[default]
    Free,
    /// An operation holds it.
    Held {
        /// The operation.
        operation: OperationId,
        /// The fencing token.
        token: Token,
        /// Since when.
        since: Time,
        /// The same by the wall clock, milliseconds since 1970.
        since_wall_ms: u64,
    },
}

impl Lock {
    /// The operation that holds it.
    pub fn holder(&self) -> Option<&OperationId> {
        match self {
            Lock::Free => None,
            Lock::Held { operation, .. } => Some(operation),
        }
    }

    /// The token under which it is held.
    pub fn token(&self) -> Option<Token> {
        match self {
            Lock::Free => None,
            Lock::Held { token, .. } => Some(*token),
        }
    }
}

/// A person's stop sign for new operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it ends.
    pub until: Time,
    /// The same by the wall clock, milliseconds since 1970, for people.
    pub until_wall_ms: u64,
}

/// A person's word that a machine which nobody hears is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assumed {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When, milliseconds since 1970.
    pub wall_ms: u64,
}

/// What is left of a node that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// The run of its agent that was registered last: what goes on from it is refused.
    pub incarnation: Incarnation,
    /// Who removed it.
    pub by: String,
    /// When, milliseconds since 1970.
    pub wall_ms: u64,
}

/// The nodes that share one database and one storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Fleet {
    /// What people want of it: timeouts, checks and the like.
    pub policy: Policy,
    /// How often that was changed.
    #[serde(default)]
    pub policy_version: u64,
    /// Whether an operator has started it once: before that nothing is sequenced by itself.
    pub active: bool,
    /// Whether it should run.
    pub desired: Desired,
    /// Its database, once installed or started.
    pub database: Option<DatabaseRecord>,
    /// Its nodes.
    pub nodes: BTreeMap<NodeId, Node>,
    /// The agents beside its load balancers; no app runs under them.
    #[serde(default)]
    pub balancers: BTreeMap<NodeId, Node>,
    /// The maintenance lock.
    pub lock: Lock,
    /// Operations that wait, in order.
    pub queue: VecDeque<OperationId>,
    /// Operations that wait, run or have ended, oldest first.
    pub operations: Vec<Operation>,
    /// What happened, oldest first.
    pub events: VecDeque<Event>,
    /// Backups that were made and checked, by name.
    #[serde(default)]
    pub backups: BTreeMap<BackupId, Backup>,
    /// The backup whose restore has begun and not ended: the database may be half.
    #[serde(default)]
    pub half_restored: Option<BackupId>,
    /// The stop sign for new operations that was put up last.
    #[serde(default)]
    pub freeze: Option<Freeze>,
    /// Nodes and load balancers that were removed: their agents do not come back by themselves. At most
    /// [`REMOVED_MAX`](crate::policy::REMOVED_MAX).
    #[serde(default)]
    pub removed: BTreeMap<NodeId, Tombstone>,
    /// Set while the fleet comes from a backup of the coordinators and nobody has looked at it since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
    /// The last solo node of an operation that succeeded.
    pub last_solo: Option<NodeId>,
}

impl Fleet {
    /// An operation by id.
    pub fn operation(&self, id: &OperationId) -> Option<&Operation> {
        self.operations.iter().rev().find(|operation| operation.id == *id)
    }

    /// An operation by id, to change it.
    pub fn operation_mut(&mut self, id: &OperationId) -> Option<&mut Operation> {
        self.operations.iter_mut().rev().find(|operation| operation.id == *id)
    }

    /// An agent by name, of a node or of a load balancer.
    pub fn agent(&self, name: &NodeId) -> Option<&Node> {
        self.nodes.get(name).or_else(|| self.balancers.get(name))
    }

    /// The same, to change it.
    pub fn agent_mut(&mut self, name: &NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(name).or_else(|| self.balancers.get_mut(name))
    }

    /// All agents, of nodes and of load balancers.
    pub fn agents(&self) -> impl Iterator<Item = (&NodeId, &Node)> {
        self.nodes.iter().chain(&self.balancers)
    }

    /// The operation that holds the lock.
    pub fn current(&self) -> Option<&Operation> {
        self.operation(self.lock.holder()?)
    }

    /// The operation that holds the lock, to change it.
    pub fn current_mut(&mut self) -> Option<&mut Operation> {
        let id = self.lock.holder()?.clone();
        self.operation_mut(&id)
    }
}

/// One host, or one unit on it, with one agent: it runs one app, or steers a load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its machine.
    pub machine: MachineId,
    /// That machine's boot when its agent registered.
    pub boot: BootId,
    /// Where people reach its agent over HTTP; may be empty.
    pub address: String,
    /// The run of the agent that may speak for it.
    pub incarnation: Incarnation,
    /// Log index of that run's registration.
    pub registered: Generation,
    /// Number of the last accepted report of that run.
    pub sequence: u64,
    /// What it must make true.
    pub assignment: Assignment,
    /// Generation since which its assignments all say `Stop`; `None` while one says otherwise.
    pub stop_since: Option<Generation>,
    /// Generation of the `Stop` that it acknowledged, unless something contradicted that since.
    pub stop_evidence: Option<Generation>,
    /// What its agent last saw.
    pub observed: Option<Observed>,
    /// A person's word that its machine is off, until its agent is heard again.
    #[serde(default)]
    pub assumed: Option<Assumed>,
    /// The fences around it, by what they cover.
    #[serde(default)]
    pub fences: BTreeMap<Covers, Fence>,
    /// Since when what its app has loaded differs from what it should have, milliseconds since 1970; `None` while it does not.
    #[serde(default)]
    pub stale_wall_ms: Option<u64>,
    /// Whether a person keeps users away from it.
    #[serde(default)]
    pub drained: bool,
    /// Whether it may run outside operations.
    pub admitted: bool,
    /// Whether it came back, or is new, and waits for a start.
    pub returned: bool,
    /// When the leader last said that it was heard since a promotion.
    pub heard: Time,
}

impl Node {
    /// In what its app differs from what it should have loaded; empty if it does not.
    pub fn stale(&self) -> &[String] {
        self.observed.as_ref().map_or(&[], |seen| seen.stale.as_slice())
    }

    /// Whether the agent has acknowledged the current assignment.
    pub fn acknowledged(&self) -> bool {
        self.observed.as_ref().is_some_and(|observed| observed.applied >= self.assignment.generation)
    }
}
