//! Where an operation stands, and why it is blocked.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::time::Time;

/// Where an operation stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It waits for the lock.
    Queued,
    /// It has reached the head of the queue; its client must confirm by then.
    Confirming(Time),
    /// It has the lock and goes on by itself.
    Running,
    /// It has the lock and waits for something that does not come by itself.
    Blocked(Blocked),
    /// It is being ended early; it keeps the lock until that is safe.
    Aborting,
    /// Done.
    Succeeded,
    /// Ended early, with the reason.
    Aborted(String),
    /// Everything is as it was before, with the reason.
    RolledBack(String),
}

impl Status {
    /// Whether it is over.
    pub fn ended(&self) -> bool {
        match self {
            Status::Succeeded | Status::Aborted(_) | Status::RolledBack(_) => true,
            Status::Queued
            | Status::Confirming(_)
            | Status::Running
            | Status::Blocked(_)
            | Status::Aborting => false,
        }
    }

    /// One word for lists.
    pub fn word(&self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Confirming(_) => "confirming",
            Status::Running => "running",
            Status::Blocked(_) => "blocked",
            Status::Aborting => "aborting",
            Status::Succeeded => "succeeded",
            Status::Aborted(_) => "aborted",
            Status::RolledBack(_) => "rolled_back",
        }
    }
}

/// Why an operation is blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blocked {
    /// These nodes do not answer.
    Unreachable(Vec<NodeId>),
    /// A node that must be stopped is not, or a foreign process runs.
    Breach(NodeId, String),
    /// The node's agent refuses to start the app.
    Refused(NodeId, String),
    /// The app says that it failed.
    Failed(NodeId, String),
    /// The app ended by itself.
    Crashed(NodeId, String),
    /// The task failed.
    TaskFailed(NodeId, String),
    /// The external holder did not renew its lease.
    HolderLost,
    /// The step takes longer than it may.
    Overdue,
    /// A load balancer cannot be steered.
    Traffic(NodeId, String),
    /// A person must approve.
    Approval,
    /// Going back would lose what users may have written since the backup, with the cause.
    WritesAtStake(String),
}

impl Blocked {
    /// One word for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Blocked::Unreachable(_) => "unreachable",
            Blocked::Breach(..) => "breach",
            Blocked::Refused(..) => "refused",
            Blocked::Failed(..) => "failed",
            Blocked::Crashed(..) => "crashed",
            Blocked::TaskFailed(..) => "task_failed",
            Blocked::HolderLost => "holder_lost",
            Blocked::Overdue => "overdue",
            Blocked::Traffic(..) => "traffic",
            Blocked::Approval => "approval",
            Blocked::WritesAtStake(_) => "writes_at_stake",
        }
    }

    /// Whether going back to what was before may mend it.
    pub fn can_roll_back(&self) -> bool {
        match self {
            Blocked::Refused(..) | Blocked::Failed(..) | Blocked::Crashed(..) | Blocked::TaskFailed(..) => {
                true
            }
            Blocked::Unreachable(_)
            | Blocked::Breach(..)
            | Blocked::HolderLost
            | Blocked::Overdue
            | Blocked::Traffic(..)
            | Blocked::Approval
            | Blocked::WritesAtStake(_) => false,
        }
    }

    /// Whether the operation goes on without a person when the cause is gone.
    pub fn passes(word: &str) -> bool {
        ["unreachable", "breach", "refused", "traffic"].contains(&word)
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Blocked::Unreachable(nodes) => {
                let names = nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
                write!(f, "no contact with {names}")
            }
            Blocked::Breach(node, what) => write!(f, "{node}: {what}"),
            Blocked::Refused(node, why) => write!(f, "{node} will not start: {why}"),
            Blocked::Failed(node, why) => write!(f, "the app on {node} failed: {why}"),
            Blocked::Crashed(node, how) => write!(f, "the app on {node} ended by itself: {how}"),
            Blocked::TaskFailed(node, why) => write!(f, "the task on {node} failed: {why}"),
            Blocked::HolderLost => f.write_str("the holder stopped renewing its lease"),
            Blocked::Overdue => f.write_str("the step takes longer than it may"),
            Blocked::Traffic(node, why) => write!(f, "the load balancer of {node} cannot be steered: {why}"),
            Blocked::Approval => f.write_str("a person must approve"),
            Blocked::WritesAtStake(why) => {
                write!(
                    f,
                    "{why}; users may have written since the backup, so nothing is rolled back by itself"
                )
            }
        }
    }
}
