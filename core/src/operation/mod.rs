//! Operations: whole maintenance jobs, as plans of steps.

mod request;
mod status;
mod step;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use request::{HoldMode, PackageChange, PluginChange, Request};
pub use status::{Blocked, Status};
pub use step::{Bring, Step, TaskCall};

use crate::evidence::Grant;
use crate::ids::{Generation, NodeId, OperationId, Right, Token, Version};
use crate::time::Time;

/// The external holder of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Whether the grant was accepted.
    pub accepted: bool,
    /// When the lease, or the time to accept, ends.
    pub deadline: Time,
    /// Whether the lease was lost.
    pub lost: bool,
    /// How the work ended, once released.
    pub released: Option<String>,
    /// When the work was proven to have ended, after the lease was lost.
    pub ended: Option<Time>,
    /// Whether an agent has seen the holder's processes on its host.
    pub seen: bool,
}

/// How the plan that an operation follows came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Course {
    /// The plan that was asked for.
    Forward,
    /// What was stopped is started again.
    Restore,
    /// What does not serve is stopped and left out.
    Settle,
    /// Code, and the database if it may have been touched, go back to what they were; then all is started again.
    Rollback,
}

fn yes() -> bool {
    true
}

/// A record of one finished step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step, in words.
    pub step: String,
    /// What kind of step it is: see [`Step::kind`].
    #[serde(default)]
    pub kind: String,
    /// When it began.
    pub began: Time,
    /// When its condition became true, or the operation took another way.
    pub ended: Time,
    /// Whether its condition became true.
    #[serde(default = "yes")]
    pub done: bool,
    /// How many attempts it took.
    pub attempts: u32,
    /// What each node found, if the step verified them.
    #[serde(default)]
    pub found: BTreeMap<NodeId, String>,
}

/// A whole maintenance job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The client's name for it.
    pub id: OperationId,
    /// What was asked for.
    pub request: Request,
    /// Who asked.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it was asked for.
    pub submitted: Time,
    /// The same by the wall clock, milliseconds since 1970.
    pub submitted_wall_ms: u64,
    /// The node on the client's own machine, if there is exactly one.
    pub host_node: Option<NodeId>,
    /// Machine of the client.
    pub machine: crate::ids::MachineId,
    /// When the client stops waiting for its grant.
    pub grant_by: Option<Time>,
    /// Whether it had to wait for another operation.
    pub waited: bool,
    /// Where it stands.
    pub status: Status,
    /// The lock's token, once it has the lock.
    pub token: Option<Token>,
    /// Log index at which it took the lock; what its first assignments are numbered with.
    pub began: Option<Generation>,
    /// The solo node, or the node that starts first.
    pub solo: Option<NodeId>,
    /// The plan. Fixed when the operation leaves the queue; an abort keeps what was done and adds what ends it.
    pub plan: Vec<Step>,
    /// How the rest of the plan came about.
    pub course: Course,
    /// Position of the current step.
    pub cursor: u32,
    /// Number of the current attempt, from 1.
    pub attempt: u32,
    /// When the current attempt began.
    pub since: Time,
    /// When the current step began.
    #[serde(default)]
    pub entered: Time,
    /// Since when no node was there for users.
    #[serde(default)]
    pub down: Option<Time>,
    /// When the first one was there again.
    #[serde(default)]
    pub up: Option<Time>,
    /// When the exclusive part was granted.
    pub granted: Option<Time>,
    /// When the exclusive part ended.
    pub exclusive_until: Option<Time>,
    /// Its exclusive parts as agents witness them; at most [`GRANTS_MAX`](crate::evidence::GRANTS_MAX).
    #[serde(default)]
    pub grants: Vec<Grant>,
    /// Log index after which an app process counts as started after the change.
    pub changed: Option<Generation>,
    /// The right to migrate that it gave last.
    pub right: Option<Right>,
    /// Whether it ever gave one: then the database may have been changed.
    #[serde(default)]
    pub migrated: bool,
    /// Nodes that must be proven stopped before the next attempt begins.
    pub clearing: Vec<NodeId>,
    /// Nodes that the step waits for and that are out of contact.
    pub absent: Vec<NodeId>,
    /// Whether the current attempt has taken longer than it may.
    pub overdue: bool,
    /// Why it is being ended early.
    pub aborting: Option<String>,
    /// Whether it is ended because its grant did not come in time.
    #[serde(default)]
    pub late: bool,
    /// The version before an upgrade.
    #[serde(default)]
    pub from: Option<Version>,
    /// Since when users may have written to what an upgrade made, milliseconds since 1970.
    #[serde(default)]
    pub exposed_wall_ms: Option<u64>,
    /// What a person decided at [`Step::Approved`].
    #[serde(default)]
    pub approved: Option<bool>,
    /// The external holder.
    pub holder: Option<Holder>,
    /// Log index at which the lock was taken away from it: what agents acknowledge from there on tells whether its work has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sought: Option<Generation>,
    /// The breach that was recorded last.
    pub breached: Option<(NodeId, String)>,
    /// Nodes that were left out, with the reason.
    pub left_out: BTreeMap<NodeId, String>,
    /// Finished steps.
    pub records: Vec<StepRecord>,
    /// When it ended.
    pub ended: Option<Time>,
}

impl Operation {
    /// Whether a node was not left out.
    pub fn takes_part(&self, node: &NodeId) -> bool {
        !self.left_out.contains_key(node)
    }

    /// The current step; `None` past the end of the plan.
    pub fn step(&self) -> Option<&Step> {
        self.plan.get(usize::try_from(self.cursor).unwrap_or(usize::MAX))
    }

    /// Whether the exclusive part has begun and has not ended.
    pub fn exclusive(&self) -> bool {
        self.granted.is_some() && self.exclusive_until.is_none()
    }
}
