//! External holders: accept, renew, release, lose, and have the lock taken away.

use crate::advance::Now;
use crate::apply::Reply;
use crate::apply::operation::{clip, keeps_writes, task_runs};
use crate::assignment::Needs;
use crate::event::EventKind;
use crate::finish::turn;
use crate::ids::{FleetId, OperationId, Token};
use crate::journal::Journal;
use crate::operation::{Course, Status, Step};
use crate::reject::Rejection;
use crate::state::{Fleet, Lock};

/// A new leader: what nobody could renew in the meantime gets its full length again.
pub(super) fn promote(fleet: &mut Fleet, now: Now) {
    let (lease, accept, confirm) =
        (fleet.policy.lease, fleet.policy.accept_timeout, fleet.policy.confirm_timeout);
    if let Some(holder) = fleet.current_mut().and_then(|operation| operation.holder.as_mut())
        && !holder.lost
    {
        let length = if holder.accepted { lease } else { accept };
        holder.deadline = holder.deadline.max(now.time + length);
    }
    if let Some(id) = fleet.queue.front().cloned()
        && let Some(operation) = fleet.operation_mut(&id)
        && let Status::Confirming(until) = operation.status
    {
        operation.status = Status::Confirming(until.max(now.time + confirm));
    }
}

fn held<'a>(
    id: &FleetId,
    fleet: &'a mut Fleet,
    name: &OperationId,
    token: Token,
) -> Result<&'a mut crate::operation::Operation, Rejection> {
    let right = fleet.lock.token() == Some(token) && fleet.lock.holder() == Some(name);
    let refusal = Rejection::NotHolder { fleet: id.clone(), token };
    if !right {
        return Err(refusal);
    }
    fleet
        .operation_mut(name)
        .filter(|operation| matches!(operation.step(), Some(Step::Released)))
        .ok_or(refusal)
}

pub(super) fn renew(
    id: &FleetId,
    fleet: &mut Fleet,
    name: &OperationId,
    token: Token,
    now: Now,
    journal: &mut Journal,
) -> Result<Reply, Rejection> {
    let lease = fleet.policy.lease;
    let operation = held(id, fleet, name, token)?;
    let Some(holder) = operation.holder.as_mut() else {
        return Err(Rejection::NotHolder { fleet: id.clone(), token });
    };
    if holder.lost {
        return Err(Rejection::LeaseLost { token });
    }
    if !holder.accepted {
        holder.accepted = true;
        journal.operation(name, EventKind::StepDone("the holder accepted the grant".into()));
    }
    holder.deadline = now.time + lease;
    Ok(Reply::Renewed { until: holder.deadline, lease })
}

pub(super) fn release(
    id: &FleetId,
    fleet: &mut Fleet,
    name: &OperationId,
    token: Token,
    outcome: &str,
    journal: &mut Journal,
) -> Result<Reply, Rejection> {
    // A release that is repeated because its answer was lost is not an error.
    let before = fleet.operation(name).filter(|operation| operation.token == Some(token));
    if before
        .is_some_and(|operation| operation.holder.as_ref().is_some_and(|holder| holder.released.is_some()))
    {
        return Ok(Reply::Unchanged);
    }
    let operation = held(id, fleet, name, token)?;
    let Some(holder) = operation.holder.as_mut() else {
        return Err(Rejection::NotHolder { fleet: id.clone(), token });
    };
    holder.released = Some(clip(outcome));
    journal.operation(name, EventKind::Released(clip(outcome)));
    Ok(Reply::Done)
}

/// Takes the lock away: the token rises at once, so that the old holder is refused from now on; then the fleet is
/// brought back, and only after that the lock is free.
pub(super) fn force(
    id: &FleetId,
    fleet: &mut Fleet,
    token: Token,
    by: &str,
    reason: &str,
    now: Now,
    journal: &mut Journal,
) -> Result<Reply, Rejection> {
    if reason.trim().is_empty() {
        return Err(Rejection::NoReason);
    }
    if fleet.lock.token() != Some(token) {
        return Err(Rejection::NotHolder { fleet: id.clone(), token });
    }
    let Some(operation) = fleet.current() else { return Ok(Reply::Unchanged) };
    let name = operation.id.clone();
    if let Some(Step::Task { task, .. }) = operation.step()
        && task.needs != Needs::Serving
        && task_runs(fleet, operation)
    {
        // Nothing that Soloist could stop would end it: it works beside the app, not inside it.
        return Err(Rejection::TaskRuns { operation: name });
    }
    keeps_writes(operation)?;
    let forward = operation.course == Course::Forward && operation.exclusive_until.is_none();
    let harm = operation.exclusive() && matches!(operation.step(), Some(Step::Released | Step::Task { .. }));
    let (by, reason) = (clip(by), clip(reason));
    journal.operation(&name, EventKind::ForceReleased { by: by.clone(), reason: reason.clone() });
    let raised = raise(fleet, now);
    let course = if forward { Course::Restore } else { Course::Settle };
    turn(fleet, &name, course, harm, &format!("lock taken away by {by}: {reason}"), now, journal);
    Ok(Reply::Released { token: raised })
}

/// Gives the lock a new token, so that whoever has the old one is refused.
pub(super) fn raise(fleet: &mut Fleet, now: Now) -> Token {
    let raised = Token(now.index);
    if let Lock::Held { token, .. } = &mut fleet.lock {
        *token = raised;
    }
    if let Some(operation) = fleet.current_mut() {
        operation.token = Some(raised);
    }
    raised
}
