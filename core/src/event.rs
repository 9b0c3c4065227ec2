//! What happened, for people.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, OperationId, Token};
use crate::time::Time;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Log index at which it happened.
    pub index: u64,
    /// When, by the state's own time.
    pub time: Time,
    /// When, by the leader's wall clock, milliseconds since 1970.
    pub wall_ms: u64,
    /// The operation concerned.
    pub operation: Option<OperationId>,
    /// The node concerned.
    pub node: Option<NodeId>,
    /// What happened.
    pub kind: EventKind,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A node enrolled.
    Enrolled,
    /// A node's agent registered again.
    Returned {
        /// Whether its host was booted since.
        rebooted: bool,
        /// Whether its ledger was lost.
        ledger_lost: bool,
    },
    /// A node's app changed its state.
    App(String),
    /// An operation was asked for.
    Submitted(String),
    /// An operation took the lock.
    LockTaken(Token),
    /// A step's condition became true.
    StepDone(String),
    /// The exclusive part was granted.
    Granted(Token),
    /// The external holder released.
    Released(String),
    /// The external holder's lease was lost.
    HolderLost,
    /// The operation waits for something that does not come by itself.
    Blocked(String),
    /// The operation goes on again.
    Unblocked,
    /// Another attempt began.
    Attempt(u32),
    /// A promise was broken from outside: something ran that should not have.
    Breach(String),
    /// The operation is being ended early.
    Aborting(String),
    /// A node was left out.
    LeftOut(String),
    /// A person took the lock away.
    ForceReleased {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// The operation ended.
    Ended(String),
    /// The database changed its identity or version.
    Database(String),
    /// From here on users may write to what an upgrade made.
    Exposed,
    /// A person decided what an upgrade waited for.
    Decided(String),
    /// The fleet's policy was changed.
    Policy(String),
    /// A backup was made or removed.
    Backup(String),
    /// A stop cut off what was under way inside the app.
    CutOff(String),
    /// A load balancer changed where it sends users.
    Traffic(String),
    /// A person let no new operation begin, or let them begin again.
    Freeze(String),
    /// A person said that a machine is off, or that was over.
    Assumed(String),
    /// A fence around a node was asked for, holds, or is lifted.
    Fence(String),
    /// A node left the fleet; who removed it.
    Removed(String),
    /// The coordinators were restored from a backup, or somebody has looked at the fleet since.
    Restored(String),
    /// What a node's app has loaded began or ceased to differ from what it should have.
    Stale(String),
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventKind::Enrolled => f.write_str("enrolled"),
            EventKind::Returned { rebooted, ledger_lost } => {
                f.write_str("agent registered again")?;
                if *rebooted {
                    f.write_str(", host was booted")?;
                }
                if *ledger_lost {
                    f.write_str(", ledger was lost")?;
                }
                Ok(())
            }
            EventKind::App(state) => write!(f, "app {state}"),
            EventKind::Submitted(what) => write!(f, "asked for: {what}"),
            EventKind::LockTaken(token) => write!(f, "took the lock, token {token}"),
            EventKind::StepDone(step) => write!(f, "done: {step}"),
            EventKind::Granted(token) => write!(f, "granted, token {token}"),
            EventKind::Released(outcome) => write!(f, "holder released: {outcome}"),
            EventKind::HolderLost => f.write_str("holder lost: its lease was not renewed"),
            EventKind::Blocked(why) => write!(f, "blocked: {why}"),
            EventKind::Unblocked => f.write_str("goes on"),
            EventKind::Attempt(number) => write!(f, "attempt {number}"),
            EventKind::Breach(what) => write!(f, "BREACH: {what}"),
            EventKind::Aborting(why) => write!(f, "being ended early: {why}"),
            EventKind::LeftOut(why) => write!(f, "left out: {why}"),
            EventKind::ForceReleased { by, reason } => write!(f, "lock taken away by {by}: {reason}"),
            EventKind::Ended(how) => write!(f, "ended: {how}"),
            EventKind::Database(what) => write!(f, "database {what}"),
            EventKind::Exposed => f.write_str("users may write from here on"),
            EventKind::Decided(what) => f.write_str(what),
            EventKind::Policy(what) => write!(f, "policy changed: {what}"),
            EventKind::Backup(what) => write!(f, "backup {what}"),
            EventKind::CutOff(what) => write!(f, "the stop cut off: {what}"),
            EventKind::Traffic(what) => write!(f, "traffic: {what}"),
            EventKind::Freeze(what) => write!(f, "freeze {what}"),
            EventKind::Assumed(what) => write!(f, "assumed {what}"),
            EventKind::Fence(what) => write!(f, "fence {what}"),
            EventKind::Removed(by) => write!(f, "removed from the fleet by {by}"),
            EventKind::Restored(what) => write!(f, "coordinators restored: {what}"),
            EventKind::Stale(what) => f.write_str(what),
        }
    }
}
