//! What Raft replicates. Variants and fields are only ever added.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::assignment::Observed;
use crate::fence::Covers;
use crate::ids::{BootId, FleetId, Incarnation, MachineId, NodeId, OperationId, Token};
use crate::operation::Request;
use crate::policy::Policy;
use crate::time::{Millis, Time};

/// The behaviour that this build's `apply` knows; it branches on the logged level only, which [`Command::Raise`] raises.
///
/// A build knows every level up to its own. A cluster stays at the level that it has until a person raises it, so that each
/// member can go back to the version before until then.
///
/// | level | what it adds |
/// |---|---|
/// | 1 | what the first release knows |
/// | 2 | the state remembers the ids of removed members ([`MEMBERS_LEVEL`]); a state may come from a backup ([`RESTORE_LEVEL`]); a lost holder's work has ended when every agent has looked for it since ([`HOLDER_LEVEL`]) |
pub const FEATURE_LEVEL: u32 = 2;

/// The level of a cluster that never raised it.
pub const FIRST_LEVEL: u32 = 1;

/// From this level on, the ids of removed members are remembered.
pub const MEMBERS_LEVEL: u32 = 2;

/// From this level on, the work of a holder whose lock was taken away counts as ended when every agent has looked for it since.
pub const HOLDER_LEVEL: u32 = 2;

/// The level that a cluster has at least that was restored from a backup, as members of an earlier one would serve its fleets at once.
pub const RESTORE_LEVEL: u32 = 2;

/// A command with the time that its leader gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The leader's elapsed time.
    pub time: Time,
    /// Wall clock of the leader in milliseconds since 1970, for people; no decision reads it.
    pub wall_ms: u64,
    /// Feature level at which it was proposed.
    pub feature_level: u32,
    /// The command.
    pub command: Command,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{} {}", self.time.0, self.command)
    }
}

/// Everything that can change the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// A member became leader, or found a gap in its own ticking: every live lease gets its full length again, and
    /// nothing new begins until the nodes concerned were heard.
    Promote {
        /// The member.
        member: u64,
    },
    /// An agent begins a session.
    Register {
        /// Its fleet; made by its first registration.
        fleet: FleetId,
        /// Its node.
        node: NodeId,
        /// Who it is and what it remembers.
        registration: Registration,
        /// Timeouts of a fleet that this registration makes.
        policy: Policy,
        /// Whether another run of this node's agent is heard at this moment. Only the leader knows: it is filled in by
        /// [`crate::due::witness`] when the leader proposes.
        #[serde(default)]
        rival: bool,
    },
    /// An agent saw something that decisions read.
    Report {
        /// Its fleet.
        fleet: FleetId,
        /// Its node.
        node: NodeId,
        /// The run of the agent that saw it.
        incarnation: Incarnation,
        /// Number of the report in that run; older ones are dropped.
        sequence: u64,
        /// What it saw.
        observed: Box<Observed>,
    },
    /// The leader has heard these nodes since it was promoted.
    Heard {
        /// The nodes, by fleet.
        nodes: Vec<(FleetId, NodeId)>,
    },
    /// A client asks for an operation. Asking again with the same id changes nothing.
    Submit {
        /// The fleet.
        fleet: FleetId,
        /// The client's name for it.
        operation: OperationId,
        /// What is asked for.
        request: Request,
        /// Who and why, and how long to wait.
        submission: Submission,
    },
    /// A client whose operation reached the head of the queue still wants it.
    Confirm {
        /// The fleet.
        fleet: FleetId,
        /// The operation.
        operation: OperationId,
    },
    /// An external holder accepts its grant or renews its lease.
    Renew {
        /// The fleet.
        fleet: FleetId,
        /// The operation.
        operation: OperationId,
        /// The token of the grant.
        token: Token,
    },
    /// An external holder has ended its work.
    Release {
        /// The fleet.
        fleet: FleetId,
        /// The operation.
        operation: OperationId,
        /// The token of the grant.
        token: Token,
        /// How the work ended, for people, for example `exit status 0`.
        outcome: String,
    },
    /// A person asks to end an operation early.
    Abort {
        /// The fleet.
        fleet: FleetId,
        /// The operation.
        operation: OperationId,
        /// Who asks.
        by: String,
        /// Why.
        reason: String,
    },
    /// A person asks for another attempt at a blocked step.
    Retry {
        /// The fleet.
        fleet: FleetId,
        /// The operation.
        operation: OperationId,
        /// The attempt that is to be followed by another, so that asking twice is asking once.
        attempt: u32,
        /// Who asks.
        by: String,
    },
    /// A person decides what an upgrade waits for.
    Decide {
        /// The fleet.
        fleet: FleetId,
        /// The operation.
        operation: OperationId,
        /// What is decided.
        decision: Decision,
        /// Who decides.
        by: String,
        /// Why.
        reason: String,
    },
    /// A person takes the lock away from its holder.
    ForceRelease {
        /// The fleet.
        fleet: FleetId,
        /// The token of the grant that is meant.
        token: Token,
        /// Who asks.
        by: String,
        /// Why.
        reason: String,
    },
    /// A person changes the fleet's policy.
    SetPolicy {
        /// The fleet.
        fleet: FleetId,
        /// What it is to be.
        policy: Policy,
        /// The version that the person has seen; another one in between is not overwritten.
        seen: u64,
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// What is changed, for people: a line each.
        changes: Vec<String>,
    },
    /// A person lets no new operation begin for a while, or lets them begin again.
    Freeze {
        /// The fleet.
        fleet: FleetId,
        /// For how long; `None` ends it.
        length: Option<Millis>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// A person keeps users away from a node, or gives it to them again.
    Drain {
        /// The fleet.
        fleet: FleetId,
        /// The node.
        node: NodeId,
        /// Whether they are kept away.
        drained: bool,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// A person says of a machine that is not heard that it is off.
    AssumeStopped {
        /// The fleet.
        fleet: FleetId,
        /// The node, or the load balancer's agent.
        node: NodeId,
        /// Whether the leader hears it after all.
        heard: bool,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// A node is to be fenced: a person asks, or the fleet does it by itself.
    Fence {
        /// The fleet.
        fleet: FleetId,
        /// The node.
        node: NodeId,
        /// Which fence; `None` is the gentlest that keeps it from what the operation at hand may change.
        covers: Option<Covers>,
        /// The agents that the leader hears; see [`crate::due::witness`].
        #[serde(default)]
        heard: Vec<NodeId>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// A person asks for the end of the fences around a node.
    Unfence {
        /// The fleet.
        fleet: FleetId,
        /// The node.
        node: NodeId,
        /// The agents that the leader hears; see [`crate::due::witness`].
        #[serde(default)]
        heard: Vec<NodeId>,
        /// Who.
        by: String,
    },
    /// A person has looked at a fleet whose coordinators were restored from a backup.
    Resume {
        /// The fleet.
        fleet: FleetId,
        /// Who.
        by: String,
        /// Why it may go on.
        reason: String,
    },
    /// The leader found that a deadline has passed. Checked again when applied.
    Timer {
        /// The fleet.
        fleet: FleetId,
        /// Which deadline.
        timer: Timer,
    },
    /// The cluster's feature level rises, for good: the leader has seen that every member knows it.
    Raise {
        /// The level.
        level: u32,
        /// Who asks.
        by: String,
    },
}

impl Command {
    /// The feature level that whoever applies this must know: a level is raised by an entry of that very level, at which a
    /// member that does not know it stops.
    pub fn level(&self) -> u32 {
        if let Command::Raise { level, .. } = self { *level } else { FIRST_LEVEL }
    }

    /// The only fleet that this can change; nothing if it may change several.
    #[must_use]
    pub fn fleet(&self) -> Option<&FleetId> {
        match self {
            Command::Promote { .. } | Command::Heard { .. } | Command::Raise { .. } => None,
            Command::Register { fleet, .. }
            | Command::Report { fleet, .. }
            | Command::Submit { fleet, .. }
            | Command::Confirm { fleet, .. }
            | Command::Renew { fleet, .. }
            | Command::Release { fleet, .. }
            | Command::Abort { fleet, .. }
            | Command::Retry { fleet, .. }
            | Command::Decide { fleet, .. }
            | Command::ForceRelease { fleet, .. }
            | Command::SetPolicy { fleet, .. }
            | Command::Freeze { fleet, .. }
            | Command::Drain { fleet, .. }
            | Command::AssumeStopped { fleet, .. }
            | Command::Fence { fleet, .. }
            | Command::Unfence { fleet, .. }
            | Command::Resume { fleet, .. }
            | Command::Timer { fleet, .. } => Some(fleet),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Promote { member } => write!(f, "promote member {member}"),
            Command::Register { fleet, node, registration, .. } => {
                write!(f, "register {fleet}/{node} incarnation {}", registration.incarnation)
            }
            Command::Report { fleet, node, sequence, observed, .. } => {
                write!(f, "report {fleet}/{node} #{sequence} applied {} {:?}", observed.applied, observed.app)
            }
            Command::Heard { nodes } => write!(f, "heard {} nodes", nodes.len()),
            Command::Submit { fleet, operation, request, .. } => {
                write!(f, "submit {fleet} {operation}: {request}")
            }
            Command::Confirm { fleet, operation } => write!(f, "confirm {fleet} {operation}"),
            Command::Renew { fleet, operation, token } => {
                write!(f, "renew {fleet} {operation} token {token}")
            }
            Command::Release { fleet, operation, token, outcome } => {
                write!(f, "release {fleet} {operation} token {token}: {outcome}")
            }
            Command::Abort { fleet, operation, by, .. } => write!(f, "abort {fleet} {operation} by {by}"),
            Command::Retry { fleet, operation, attempt, .. } => {
                write!(f, "retry {fleet} {operation} after attempt {attempt}")
            }
            Command::Decide { fleet, operation, decision, by, .. } => {
                write!(f, "decide {fleet} {operation} {decision:?} by {by}")
            }
            Command::ForceRelease { fleet, token, by, .. } => {
                write!(f, "force release {fleet} token {token} by {by}")
            }
            Command::SetPolicy { fleet, seen, by, .. } => {
                write!(f, "policy of {fleet} after version {seen} by {by}")
            }
            Command::Freeze { fleet, length: Some(length), by, .. } => {
                write!(f, "freeze {fleet} for {length} by {by}")
            }
            Command::Freeze { fleet, length: None, by, .. } => write!(f, "unfreeze {fleet} by {by}"),
            Command::Drain { fleet, node, drained, by, .. } => {
                write!(f, "{} {fleet}/{node} by {by}", if *drained { "drain" } else { "undrain" })
            }
            Command::AssumeStopped { fleet, node, by, .. } => {
                write!(f, "assume {fleet}/{node} stopped by {by}")
            }
            Command::Fence { fleet, node, by, .. } => write!(f, "fence {fleet}/{node} by {by}"),
            Command::Unfence { fleet, node, by, .. } => write!(f, "unfence {fleet}/{node} by {by}"),
            Command::Resume { fleet, by, .. } => write!(f, "resume {fleet} by {by}"),
            Command::Timer { fleet, timer } => write!(f, "timer {fleet} {timer:?}"),
            Command::Raise { level, by } => write!(f, "raise the feature level to {level} by {by}"),
        }
    }
}

/// What a person decides about an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// What was verified is good: go on.
    Approve,
    /// It is not: go back.
    Reject,
    /// Go back.
    Rollback {
        /// Whether what users may have written since the backup is given up.
        lose_writes: bool,
    },
}

/// Who an agent is and what it remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// This run of the agent.
    pub incarnation: Incarnation,
    /// Runs of the same ledger that may have registered before, this one included; only itself if the ledger is new.
    pub lineage: Vec<Incarnation>,
    /// Whether the ledger was new at the start of this run and has not been registered yet.
    pub fresh: bool,
    /// The host.
    pub machine: MachineId,
    /// Its boot.
    pub boot: BootId,
    /// Where people reach the node's agent over HTTP, for example `127.0.0.1:7411`; may be empty.
    pub address: String,
    /// What it does for the fleet.
    #[serde(default)]
    pub role: Role,
}

/// What an agent does for its fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It runs an app.
    #[default]
    App,
    /// It steers a load balancer and runs no app.
    Balancer,
}

/// Who asks, why, and how long the client will wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Submission {
    /// Who asks, for example `root@host`.
    pub by: String,
    /// Why, in the person's words; may be empty.
    pub reason: String,
    /// How long the client waits for its grant; `None` leaves it to the fleet's policy.
    pub wait: Option<Millis>,
    /// The machine that the client runs on.
    pub machine: MachineId,
}

/// A deadline that the leader watches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timer {
    /// The operation was not granted in time.
    Grant(OperationId),
    /// The client did not confirm in time.
    Confirm(OperationId),
    /// The holder did not accept, or did not renew, in time.
    Lease(OperationId, Token),
    /// A lost holder's work has ended and nobody came.
    Restore(OperationId, Token),
    /// A start has waited long enough for absent nodes.
    Gather(OperationId),
    /// A step took too long.
    Step(OperationId, u32, u32),
    /// Nodes that the step waits for are out of contact.
    Absent(OperationId, u32, Vec<NodeId>),
    /// Time for what waits for settled nodes to look again.
    Settled,
    /// A fleet that should run has nodes that wait for a start.
    AutoStart,
    /// A fleet that heals by itself has stale nodes.
    AutoHeal,
    /// The agent that carries a fence is not heard; those that are.
    Carry(NodeId, Covers, Vec<NodeId>),
}
