//! Deterministic refusals: part of the state machine's output, the same on every member.

use serde::{Deserialize, Serialize};

use crate::command::Role;
use crate::fence::Covers;
use crate::ids::{BackupId, FleetId, MachineId, NodeId, OperationId, Token, Version};
use crate::time::Millis;

/// Why a command was refused. The text says what is wrong; [`Rejection::hint`] says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// No such fleet.
    #[error("there is no fleet \"{fleet}\"")]
    UnknownFleet {
        /// What was asked for.
        fleet: FleetId,
        /// The fleets that there are.
        known: Vec<FleetId>,
    },
    /// No such node.
    #[error("there is no node \"{node}\" in fleet \"{fleet}\"")]
    UnknownNode {
        /// The fleet.
        fleet: FleetId,
        /// What was asked for.
        node: NodeId,
        /// The nodes that there are.
        known: Vec<NodeId>,
    },
    /// No such operation.
    #[error("there is no operation \"{operation}\" in fleet \"{fleet}\"")]
    UnknownOperation {
        /// The fleet.
        fleet: FleetId,
        /// What was asked for.
        operation: OperationId,
    },
    /// A person lets no new operation begin.
    #[error("fleet \"{fleet}\" is frozen for another {left} by {by}: {reason}")]
    Frozen {
        /// The fleet.
        fleet: FleetId,
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// For how long.
        left: Millis,
    },
    /// The coordinators were restored from a backup, and nobody has looked at the fleet since.
    #[error("the coordinators were restored from a backup, and nobody has looked at fleet \"{fleet}\" since{}", heard_of(.silent))]
    Restored {
        /// The fleet.
        fleet: FleetId,
        /// Nodes of which nothing is known since.
        silent: Vec<NodeId>,
    },
    /// The fleet was resumed after a restore of the coordinators, and agents have not taken note yet.
    #[error("fleet \"{fleet}\" was resumed, and these nodes have not taken note yet: {}", names(.nodes))]
    Resuming {
        /// The fleet.
        fleet: FleetId,
        /// The nodes.
        nodes: Vec<NodeId>,
    },
    /// Something goes on that was asked for before the coordinators were restored.
    #[error("fleet \"{fleet}\" cannot be resumed: on {node}, {what}")]
    StillWorks {
        /// The fleet.
        fleet: FleetId,
        /// The node.
        node: NodeId,
        /// What.
        what: String,
    },
    /// Nothing keeps users away from a node of this fleet.
    #[error(
        "nothing keeps users away from a node of fleet \"{fleet}\": its policy says traffic = \"direct\""
    )]
    NobodyDrains {
        /// The fleet.
        fleet: FleetId,
    },
    /// No such backup.
    #[error("there is no backup \"{backup}\" of fleet \"{fleet}\"")]
    UnknownBackup {
        /// The fleet.
        fleet: FleetId,
        /// What was asked for.
        backup: BackupId,
        /// The backups that there are.
        known: Vec<BackupId>,
    },
    /// A restore was ended in the middle: the database may be half.
    #[error("the restore of \"{backup}\" has not ended, so the database of fleet \"{fleet}\" may be half")]
    RestoreUnfinished {
        /// The fleet.
        fleet: FleetId,
        /// The backup.
        backup: BackupId,
    },
    /// Soloist's own work may still run.
    #[error("the task of operation \"{operation}\" may still run")]
    TaskRuns {
        /// The operation.
        operation: OperationId,
    },
    /// The version is older than what runs.
    #[error("fleet \"{fleet}\" has version {version}, and {to} is older")]
    Downgrade {
        /// The fleet.
        fleet: FleetId,
        /// What it has.
        version: Version,
        /// What was asked for.
        to: Version,
    },
    /// Going back would lose what users may have written.
    #[error("users may have written since the backup of operation \"{operation}\"")]
    WritesAtStake {
        /// The operation.
        operation: OperationId,
        /// Since when they could, milliseconds since 1970.
        since_wall_ms: u64,
    },
    /// The policy was changed by somebody else meanwhile.
    #[error("the policy of fleet \"{fleet}\" has version {version} by now, and you saw version {seen}")]
    PolicyMoved {
        /// The fleet.
        fleet: FleetId,
        /// Its version.
        version: u64,
        /// What the client saw.
        seen: u64,
    },
    /// Nothing waits for a decision.
    #[error("operation \"{operation}\" does not wait for that")]
    NotAsked {
        /// The operation.
        operation: OperationId,
    },
    /// The id names another request already.
    #[error("operation \"{operation}\" exists already and asks for something else")]
    IdInUse {
        /// The id.
        operation: OperationId,
    },
    /// An agent with another role has this name.
    #[error("\"{node}\" is already the name of {} of fleet \"{fleet}\"", other(*role))]
    OtherRole {
        /// The fleet.
        fleet: FleetId,
        /// The name.
        node: NodeId,
        /// What the refused agent does.
        role: Role,
    },
    /// A bound was reached.
    #[error("{what}: at most {max}")]
    Full {
        /// What is full.
        what: String,
        /// The bound.
        max: u64,
    },
    /// The fleet was never started.
    #[error("fleet \"{fleet}\" was never started")]
    NotActive {
        /// The fleet.
        fleet: FleetId,
    },
    /// The fleet is stopped.
    #[error("fleet \"{fleet}\" is stopped")]
    FleetStopped {
        /// The fleet.
        fleet: FleetId,
    },
    /// An install was asked for, but the fleet has a database.
    #[error("fleet \"{fleet}\" was installed before (database version {version})")]
    AlreadyInstalled {
        /// The fleet.
        fleet: FleetId,
        /// The version that is known.
        version: String,
    },
    /// The client's list of nodes is not the fleet's.
    #[error("the nodes of fleet \"{fleet}\" are {enrolled}, but the request names {named}", enrolled = list(enrolled), named = list(named))]
    NodesDiffer {
        /// The fleet.
        fleet: FleetId,
        /// Enrolled nodes.
        enrolled: Vec<NodeId>,
        /// Nodes of the request.
        named: Vec<NodeId>,
    },
    /// Another agent speaks for the node.
    #[error("another agent has registered as {fleet}/{node} since this one did, on machine {machine}")]
    OtherAgent {
        /// The fleet.
        fleet: FleetId,
        /// The node.
        node: NodeId,
        /// Where that one runs.
        machine: MachineId,
    },
    /// An agent without a ledger came from another machine.
    #[error("{fleet}/{node} was last seen on machine {machine}, and is not known to be stopped there")]
    OtherMachine {
        /// The fleet.
        fleet: FleetId,
        /// The node.
        node: NodeId,
        /// Where it was last seen.
        machine: MachineId,
    },
    /// An agent without a ledger came while another one is connected.
    #[error("another agent is connected as {fleet}/{node} at this moment")]
    Rival {
        /// The fleet.
        fleet: FleetId,
        /// The node.
        node: NodeId,
    },
    /// A report of an agent's run that is over.
    #[error("this run of the agent of {fleet}/{node} is not the one that is registered")]
    Superseded {
        /// The fleet.
        fleet: FleetId,
        /// The node.
        node: NodeId,
    },
    /// The caller does not hold the lock under that token.
    #[error("token {token} does not hold the lock of fleet \"{fleet}\"")]
    NotHolder {
        /// The fleet.
        fleet: FleetId,
        /// The token.
        token: Token,
    },
    /// The lease was lost before.
    #[error("the lease of token {token} was lost")]
    LeaseLost {
        /// The token.
        token: Token,
    },
    /// The operation does not wait for a confirmation.
    #[error("operation \"{operation}\" has ended: {status}")]
    Ended {
        /// The operation.
        operation: OperationId,
        /// Where it stands.
        status: String,
    },
    /// Nothing to retry.
    #[error("operation \"{operation}\" cannot be retried: {why}")]
    NoRetry {
        /// The operation.
        operation: OperationId,
        /// Why not.
        why: String,
    },
    /// The lost holder's work may still run.
    #[error("the holder of operation \"{operation}\" stopped renewing its lease, and its work may still run")]
    HolderUnsettled {
        /// The operation.
        operation: OperationId,
    },
    /// Its agent is in contact, and can say itself what runs.
    #[error("the agent of \"{node}\" in fleet \"{fleet}\" is in contact")]
    StillHeard {
        /// The fleet.
        fleet: FleetId,
        /// The node.
        node: NodeId,
    },
    /// An operation counts on the node.
    #[error("operation \"{operation}\" counts on \"{node}\" of fleet \"{fleet}\" to run")]
    NeededBy {
        /// The fleet.
        fleet: FleetId,
        /// The node.
        node: NodeId,
        /// The operation.
        operation: OperationId,
    },
    /// No agent that is heard can put up a fence around the node that is wide enough.
    #[error(
        "no agent that is heard can fence \"{node}\" of fleet \"{fleet}\" from the {covers}{}",
        because(unarmed)
    )]
    NoFence {
        /// The fleet.
        fleet: FleetId,
        /// The node.
        node: NodeId,
        /// What it would have to be kept from.
        covers: Covers,
        /// Fences that are configured and would not hold, with the reason.
        unarmed: Vec<String>,
    },
    /// The fenced node is not proven to be stopped.
    #[error(
        "\"{node}\" of fleet \"{fleet}\" has not acknowledged a stop: what runs there would reach the data again"
    )]
    NotStopped {
        /// The fleet.
        fleet: FleetId,
        /// The node.
        node: NodeId,
    },
    /// The node was removed, and this is the agent that it had.
    #[error("\"{node}\" was removed from fleet \"{fleet}\" by {by}")]
    Removed {
        /// The fleet.
        fleet: FleetId,
        /// The node.
        node: NodeId,
        /// Who did that.
        by: String,
    },
    /// A reason is missing.
    #[error("a reason is needed")]
    NoReason,
    /// A parameter is malformed.
    #[error("{what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
}

/// What the other agent of the name does.
fn other(role: Role) -> &'static str {
    match role {
        Role::App => "a load balancer",
        Role::Balancer => "a node",
    }
}

fn list(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ")
}

fn because(unarmed: &[String]) -> String {
    if unarmed.is_empty() { String::new() } else { format!(" ({})", unarmed.join("; ")) }
}

impl Rejection {
    /// A word of low cardinality for logs, metrics and programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Rejection::UnknownFleet { .. } => "unknown_fleet",
            Rejection::UnknownNode { .. } => "unknown_node",
            Rejection::UnknownOperation { .. } => "unknown_operation",
            Rejection::UnknownBackup { .. } => "unknown_backup",
            Rejection::RestoreUnfinished { .. } => "restore_unfinished",
            Rejection::TaskRuns { .. } => "task_runs",
            Rejection::Downgrade { .. } => "downgrade",
            Rejection::WritesAtStake { .. } => "writes_at_stake",
            Rejection::PolicyMoved { .. } => "policy_moved",
            Rejection::NotAsked { .. } => "not_asked",
            Rejection::IdInUse { .. } => "id_in_use",
            Rejection::Frozen { .. } => "frozen",
            Rejection::Restored { .. } => "restored",
            Rejection::Resuming { .. } => "resuming",
            Rejection::StillWorks { .. } => "still_works",
            Rejection::NobodyDrains { .. } => "nobody_drains",
            Rejection::OtherRole { .. } => "other_role",
            Rejection::Full { .. } => "full",
            Rejection::NotActive { .. } => "not_active",
            Rejection::FleetStopped { .. } => "fleet_stopped",
            Rejection::AlreadyInstalled { .. } => "already_installed",
            Rejection::NodesDiffer { .. } => "nodes_differ",
            Rejection::OtherAgent { .. } => "other_agent",
            Rejection::OtherMachine { .. } => "other_machine",
            Rejection::Rival { .. } => "rival",
            Rejection::Superseded { .. } => "superseded",
            Rejection::NotHolder { .. } => "not_holder",
            Rejection::LeaseLost { .. } => "lease_lost",
            Rejection::Ended { .. } => "ended",
            Rejection::NoRetry { .. } => "no_retry",
            Rejection::HolderUnsettled { .. } => "holder_unsettled",
            Rejection::StillHeard { .. } => "still_heard",
            Rejection::NeededBy { .. } => "needed_by",
            Rejection::NoFence { .. } => "no_fence",
            Rejection::NotStopped { .. } => "not_stopped",
            Rejection::Removed { .. } => "removed",
            Rejection::NoReason => "no_reason",
            Rejection::Malformed { .. } => "malformed",
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Rejection::UnknownFleet { known, .. } if known.is_empty() => {
                "no agent has enrolled yet: start an agent on each node; a fleet appears with its first agent".into()
            }
            Rejection::UnknownFleet { known, .. } => {
                let names = known.iter().map(FleetId::as_str).collect::<Vec<_>>().join(", ");
                format!("known fleets: {names}; choose one with --fleet")
            }
            Rejection::UnknownNode { known, .. } => format!("its nodes: {}", list(known)),
            Rejection::UnknownOperation { .. } => "list them with: soloist operation list".into(),
            Rejection::UnknownBackup { known, .. } if known.is_empty() => {
                "there is none yet; make one with: soloist backup".into()
            }
            Rejection::UnknownBackup { known, .. } => {
                let names = known.iter().take(10).map(BackupId::as_str).collect::<Vec<_>>().join(", ");
                format!("the backups: {names}; see soloist backup list")
            }
            Rejection::RestoreUnfinished { backup, .. } => format!(
                "restore it again: soloist restore {backup} (soloist rollback {backup} if the code is to go back with it); or mend \
                 the database by hand, then: soloist restore --accept-database"
            ),
            Rejection::TaskRuns { .. } => {
                "wait until it has ended; an operation that goes forward ends after it with: soloist operation abort".into()
            }
            Rejection::Downgrade { to, .. } => format!(
                "NocoBase cannot take a database back: bring back a backup of {to} together with its code, with: soloist rollback"
            ),
            Rejection::WritesAtStake { operation, .. } => format!(
                "mend what is wrong and go on: soloist operation retry {operation}; or give those writes up: soloist operation \
                 rollback {operation} --lose-writes"
            ),
            Rejection::PolicyMoved { .. } => "look at the difference again: soloist fleet apply FILE".into(),
            Rejection::NotAsked { operation } => format!("see soloist operation show {operation}"),
            Rejection::IdInUse { .. } => "choose a new id".into(),
            Rejection::Frozen { .. } => {
                "wait until it ends, or end it: soloist unfreeze; starts, rollbacks and aborts are not kept from you".into()
            }
            Rejection::Restored { fleet, .. } => format!(
                "make sure that nothing of what was under way goes on; then: soloist fleet resume {fleet} --reason \"...\""
            ),
            Rejection::Resuming { .. } => "wait; if a machine is off: soloist node assume-stopped NODE".into(),
            Rejection::StillWorks { .. } => "wait until it has ended, or end it there by hand".into(),
            Rejection::NobodyDrains { .. } => {
                "set how users reach the fleet: traffic = \"ready\" or \"balancer\", with soloist fleet apply FILE".into()
            }
            Rejection::OtherRole { .. } => "give the agent another name: node in its configuration".into(),
            Rejection::Full { .. } => "wait until some have ended, or abort what is not needed".into(),
            Rejection::NotActive { .. } => {
                "start it first: soloist start, or soloist start --install for an empty database".into()
            }
            Rejection::FleetStopped { .. } => "start it first: soloist start".into(),
            Rejection::AlreadyInstalled { .. } => "start it with: soloist start".into(),
            Rejection::NodesDiffer { .. } => {
                "enrol the missing agents, or correct the list; nothing was started".into()
            }
            Rejection::OtherAgent { .. } => {
                "each node needs a name and a data folder of its own: stop one of the two agents, or rename it".into()
            }
            Rejection::OtherMachine { .. } => {
                "stop the fleet while that machine's agent is connected; or, if that machine is off for good, say so: soloist node assume-stopped; or give \
                 this machine another node name"
                    .into()
            }
            Rejection::Rival { .. } => {
                "each node needs a name of its own; after a lost data folder, wait until the old agent is gone".into()
            }
            Rejection::Superseded { .. } => "the agent registers again by itself".into(),
            Rejection::NotHolder { .. } => "see who holds it with: soloist lock status".into(),
            Rejection::LeaseLost { .. } => {
                "stop the work; then release, or have an operator look with: soloist lock status".into()
            }
            Rejection::Ended { .. } => "nothing is left to do".into(),
            Rejection::NoRetry { .. } => "see what it waits for with: soloist operation show".into(),
            Rejection::HolderUnsettled { .. } => {
                "make sure that the work has ended, then: soloist lock release --force --reason \"...\"".into()
            }
            Rejection::StillHeard { .. } => {
                "let it stop the app: soloist stop, or soloist node remove; only a machine that nobody hears is assumed to be off".into()
            }
            Rejection::NeededBy { operation, .. } => {
                format!("end that first: soloist operation abort {operation}; then say it again")
            }
            Rejection::NoFence { node, .. } => {
                format!("configure one (docs/fences.md), or switch the machine off and say so: soloist node assume-stopped {node}")
            }
            Rejection::NotStopped { .. } => {
                "bring its agent back: it stops the app, and the fence is lifted by itself".into()
            }
            Rejection::Removed { .. } => {
                "stop this agent; or, if the machine is to join anew, stop the app on it and delete the agent's data folder".into()
            }
            Rejection::NoReason => "add --reason \"...\"; it is kept with the event".into(),
            Rejection::Malformed { .. } => "correct it and try again".into(),
        }
    }
}

fn heard_of(silent: &[NodeId]) -> String {
    if silent.is_empty() { String::new() } else { format!("; not heard of since: {}", names(silent)) }
}

fn names(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ")
}
