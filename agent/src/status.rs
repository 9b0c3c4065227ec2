//! What the agent shows of itself over HTTP and in its beats.

use serde::Serialize;
use soloist_core::assignment::{AppState, Assignment, Observed};
use soloist_core::ids::{FleetId, NodeId};
use tokio::time::Instant;

/// The agent's state, as `/status` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The fleet.
    pub fleet: FleetId,
    /// The node.
    pub node: NodeId,
    /// The member that serves the session, if there is one.
    pub member: Option<u64>,
    /// Whether this run of the agent has registered.
    pub registered: bool,
    /// Why nothing is done at the moment, for people; empty if nothing stands in the way.
    pub waiting: String,
    /// What the app says of its own progress.
    pub progress: String,
    /// The accepted assignment.
    pub assignment: Option<Assignment>,
    /// Whether no traffic may be sent here, although the app serves: it waits for verification or approval.
    pub hold: bool,
    /// What was seen last.
    pub observed: Observed,
    /// Process ids of the app.
    pub pids: Vec<u32>,
    /// When the loop last went round.
    #[serde(skip)]
    pub round: Instant,
}

impl Status {
    /// Whether traffic should be sent here: the app serves, is meant to, and waits for nobody. Without an assignment nobody knows
    /// whether it waits: its ledger was lost, perhaps in the middle of an upgrade.
    pub fn ready(&self) -> bool {
        let wanted = self.assignment.as_ref().is_some_and(|assignment| assignment.spec.run.mode().is_some());
        self.observed.app == AppState::Serving && wanted && !self.hold
    }
}
