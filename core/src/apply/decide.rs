//! What a person decides about an upgrade.

use crate::advance::Now;
use crate::apply::Reply;
use crate::apply::operation::{clip, task_runs};
use crate::command::Decision;
use crate::event::EventKind;
use crate::finish::turn;
use crate::ids::{FleetId, OperationId};
use crate::journal::Journal;
use crate::operation::{Course, Status, Step};
use crate::reject::Rejection;
use crate::state::Fleet;

#[expect(clippy::too_many_arguments, reason = "one argument per field of the command")]
pub(super) fn decide(
    id: &FleetId,
    fleet: &mut Fleet,
    name: &OperationId,
    decision: Decision,
    by: &str,
    reason: &str,
    now: Now,
    journal: &mut Journal,
) -> Result<Reply, Rejection> {
    let unknown = || Rejection::UnknownOperation { fleet: id.clone(), operation: name.clone() };
    let operation = fleet.operation(name).ok_or_else(unknown)?;
    let upgrade = operation.request.goes_back() && operation.granted.is_some();
    let not_asked = Err(Rejection::NotAsked { operation: name.clone() });
    if fleet.lock.holder() != Some(name) || !upgrade || operation.course != Course::Forward {
        return not_asked;
    }
    match decision {
        Decision::Approve | Decision::Reject => {
            let yes = decision == Decision::Approve;
            if operation.approved == Some(yes) {
                return Ok(Reply::Unchanged);
            }
            if operation.step() != Some(&Step::Approved) || operation.approved.is_some() {
                return not_asked;
            }
            if let Some(operation) = fleet.operation_mut(name) {
                operation.approved = Some(yes);
            }
            let word = if yes { "approved" } else { "rejected" };
            journal.operation(name, EventKind::Decided(decided(word, by, reason)));
            Ok(Reply::Done)
        }
        Decision::Rollback { lose_writes } => {
            if !matches!(operation.status, Status::Blocked(_)) {
                return not_asked;
            }
            if task_runs(fleet, operation) {
                return Err(Rejection::TaskRuns { operation: name.clone() });
            }
            if let (Some(since), false) = (operation.exposed_wall_ms, lose_writes) {
                return Err(Rejection::WritesAtStake { operation: name.clone(), since_wall_ms: since });
            }
            let word = if lose_writes { "rolled back, and writes given up," } else { "rolled back" };
            let text = decided(word, by, reason);
            journal.operation(name, EventKind::Decided(text.clone()));
            turn(fleet, name, Course::Rollback, false, &text, now, journal);
            Ok(Reply::Done)
        }
    }
}

fn decided(what: &str, by: &str, reason: &str) -> String {
    let why = if reason.is_empty() { String::new() } else { format!(": {}", clip(reason)) };
    format!("{what} by {}{why}", clip(by))
}
