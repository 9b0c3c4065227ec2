//! What an operation would do, before it is asked for.

use serde::{Deserialize, Serialize};

use crate::apply::apply;
use crate::command::{Command, Entry, Submission};
use crate::ids::{FleetId, OperationId};
use crate::operation::Request;
use crate::outage::expected;
use crate::reject::Rejection;
use crate::state::{Lock, State};
use crate::time::Millis;

/// One step of a plan that has not begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// The step in words.
    pub step: String,
    /// What it waits for.
    pub waits_for: String,
    /// How long steps of its kind took in this fleet; `None` if there was none.
    pub expected: Option<Millis>,
}

/// The plan of a request as it would begin now, or why it could not.
pub fn preview(state: &State, id: &FleetId, request: &Request) -> Result<Vec<PlannedStep>, Rejection> {
    let mut trial = state.clone();
    let operation =
        OperationId::new("plan").map_err(|error| Rejection::Malformed { what: error.to_string() })?;
    let fleet = trial.fleets.get_mut(id).ok_or_else(|| Rejection::UnknownFleet {
        fleet: id.clone(),
        known: state.fleets.keys().cloned().collect(),
    })?;
    // Whatever runs now has ended when this would begin.
    fleet.lock = Lock::Free;
    fleet.queue.clear();
    fleet.operations.clear();
    let entry = Entry {
        time: state.now,
        wall_ms: state.wall_ms,
        feature_level: state.level,
        command: Command::Submit {
            fleet: id.clone(),
            operation: operation.clone(),
            request: request.clone(),
            submission: Submission::default(),
        },
    };
    apply(&mut trial, u64::MAX, &entry).reply?;
    let planned = trial.fleets.get(id).and_then(|fleet| fleet.operation(&operation));
    let plan = planned.map(|operation| operation.plan.as_slice()).unwrap_or_default();
    let history = state.fleets.get(id);
    Ok(plan
        .iter()
        .map(|step| PlannedStep {
            step: step.to_string(),
            waits_for: step.waits_for().to_owned(),
            expected: history.and_then(|fleet| expected(fleet, step)),
        })
        .collect())
}
