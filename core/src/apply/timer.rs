//! Deadlines, checked again when the entry is applied: the race with a late renewal or report is decided by log order.

use crate::advance::{AUTOMATIC, Now};
use crate::apply::Reply;
use crate::apply::fence::carry;
use crate::apply::holder::raise;
use crate::apply::operation;
use crate::command::{Submission, Timer};
use crate::condition::answers;
use crate::due::{auto_heal, auto_start, checks, step_limit};
use crate::event::EventKind;
use crate::finish::{close, turn};
use crate::ids::{FleetId, MachineId, NodeId, OperationId};
use crate::journal::Journal;
use crate::operation::{Bring, Course, Operation, Request, Status, Step};
use crate::plan::order_start;
use crate::state::Fleet;

/// Rings a timer.
pub(super) fn ring(fleet: &mut Fleet, timer: &Timer, now: Now, journal: &mut Journal) -> Reply {
    match timer {
        Timer::Grant(id) => grant(fleet, id, now, journal),
        Timer::Confirm(id) => match fleet.operation(id).map(|operation| operation.status.clone()) {
            Some(Status::Confirming(until)) if until <= now.time => {
                let why = "its client did not confirm in time that it still wants it".to_owned();
                close(fleet, id, Status::Aborted(why), now, journal);
                Reply::Done
            }
            _ => Reply::Unchanged,
        },
        Timer::Lease(id, token) => {
            if fleet.lock.holder() != Some(id) || fleet.lock.token() != Some(*token) {
                return Reply::Unchanged;
            }
            lease(fleet, id, now, journal)
        }
        Timer::Restore(id, token) => {
            let restore_after = fleet.policy.restore_after;
            let Some(operation) = held(fleet, id).filter(|operation| operation.token == Some(*token)) else {
                return Reply::Unchanged;
            };
            let ended =
                operation.holder.as_ref().filter(|holder| holder.lost).and_then(|holder| holder.ended);
            if !matches!(operation.step(), Some(Step::Released))
                || ended.is_none_or(|at| now.time < at + restore_after)
            {
                return Reply::Unchanged;
            }
            raise(fleet, now);
            let why = "the holder was lost, its work has ended, and nobody came";
            turn(fleet, id, Course::Restore, true, why, now, journal);
            Reply::Done
        }
        Timer::Gather(id) => {
            let limit = fleet.policy.gather_timeout;
            let Some(operation) = held(fleet, id) else { return Reply::Unchanged };
            let Some(Step::Reachable { nodes, absent_ok: true }) = operation.step() else {
                return Reply::Unchanged;
            };
            let missing = unreached(fleet, operation, nodes);
            // Somebody must be there: a start of nobody would never end.
            if now.time.since(operation.since) < limit || missing.len() == nodes.len() {
                return Reply::Unchanged;
            }
            leave_out(fleet, id, &missing, "its agent did not answer", journal)
        }
        Timer::Step(id, step, attempt) => {
            let late = held(fleet, id).is_some_and(|operation| {
                (operation.cursor, operation.attempt) == (*step, *attempt)
                    && step_limit(fleet, operation)
                        .is_some_and(|limit| now.time.since(operation.since) >= limit)
            });
            match fleet.operation_mut(id) {
                Some(operation) if late && !operation.overdue => {
                    operation.overdue = true;
                    Reply::Done
                }
                _ => Reply::Unchanged,
            }
        }
        Timer::Absent(id, step, nodes) => {
            let Some(operation) = held(fleet, id).filter(|operation| operation.cursor == *step) else {
                return Reply::Unchanged;
            };
            if may_leave_out(operation) {
                let reply = leave_out(fleet, id, nodes, "out of contact", journal);
                // It waits for a start that begins when it is heard again, be that before the operation ends or after.
                for node in nodes {
                    if let Some(node) = fleet.nodes.get_mut(node) {
                        node.returned = true;
                    }
                }
                return reply;
            }
            let Some(operation) = fleet.operation_mut(id) else { return Reply::Unchanged };
            operation.absent.clone_from(nodes);
            Reply::Done
        }
        Timer::Settled => Reply::Done,
        Timer::AutoStart => {
            if !auto_start(fleet) {
                return Reply::Unchanged;
            }
            let request = Request::Start { install: false, nodes: None };
            by_itself(fleet, "start", &request, "nodes that should run are not running", now, journal)
        }
        Timer::Carry(node, covers, heard) => carry(fleet, node, *covers, heard, now),
        Timer::AutoHeal => {
            if !auto_heal(fleet, now.time) {
                return Reply::Unchanged;
            }
            by_itself(fleet, "heal", &Request::Heal, "nodes have not loaded what they should", now, journal)
        }
    }
}

/// Asks for an operation that nobody else has asked for.
fn by_itself(
    fleet: &mut Fleet,
    word: &str,
    request: &Request,
    reason: &str,
    now: Now,
    journal: &mut Journal,
) -> Reply {
    let Ok(name) = OperationId::new(format!("{word}-{}", now.index)) else { return Reply::Unchanged };
    let Ok(fleet_name) = FleetId::new("fleet") else { return Reply::Unchanged };
    let submission = Submission {
        by: AUTOMATIC.to_owned(),
        reason: reason.to_owned(),
        wait: None,
        machine: MachineId::default(),
    };
    match operation::submit(&fleet_name, fleet, &name, request, &submission, now, journal) {
        Ok(reply) => reply,
        Err(_) => Reply::Unchanged,
    }
}

fn held<'a>(fleet: &'a Fleet, id: &OperationId) -> Option<&'a Operation> {
    fleet.current().filter(|operation| operation.id == *id)
}

fn grant(fleet: &mut Fleet, id: &OperationId, now: Now, journal: &mut Journal) -> Reply {
    let Some(operation) = fleet.operation(id) else { return Reply::Unchanged };
    if operation.grant_by.is_none_or(|by| now.time < by) || operation.granted.is_some() {
        return Reply::Unchanged;
    }
    match &operation.status {
        Status::Queued | Status::Confirming(_) => {
            let why = "not granted in time: another operation held the lock".to_owned();
            late(fleet, id);
            close(fleet, id, Status::Aborted(why), now, journal);
            Reply::Done
        }
        Status::Running | Status::Blocked(_) => {
            if operation.course != Course::Forward
                || !operation.plan.contains(&Step::Granted)
                || checks(operation)
            {
                return Reply::Unchanged;
            }
            let waits = match &operation.status {
                Status::Blocked(blocked) => blocked.to_string(),
                _ => operation.step().map_or(String::new(), ToString::to_string),
            };
            late(fleet, id);
            turn(fleet, id, Course::Restore, false, &format!("not granted in time: {waits}"), now, journal);
            Reply::Done
        }
        Status::Aborting | Status::Succeeded | Status::Aborted(_) | Status::RolledBack(_) => Reply::Unchanged,
    }
}

fn late(fleet: &mut Fleet, id: &OperationId) {
    if let Some(operation) = fleet.operation_mut(id) {
        operation.late = true;
    }
}

fn lease(fleet: &mut Fleet, id: &OperationId, now: Now, journal: &mut Journal) -> Reply {
    let Some(operation) = fleet.operation_mut(id) else { return Reply::Unchanged };
    if !matches!(operation.step(), Some(Step::Released)) {
        return Reply::Unchanged;
    }
    let Some(holder) = operation.holder.as_mut() else { return Reply::Unchanged };
    if holder.lost || holder.released.is_some() || holder.deadline > now.time {
        return Reply::Unchanged;
    }
    if !holder.accepted {
        raise(fleet, now);
        turn(fleet, id, Course::Restore, false, "the grant was not accepted in time", now, journal);
        return Reply::Done;
    }
    holder.lost = true;
    let token = operation.token;
    journal.operation(id, EventKind::HolderLost);
    let host = operation.host_node.clone();
    let runs = host
        .and_then(|host| fleet.nodes.get(&host))
        .and_then(|node| node.observed.as_ref())
        .is_some_and(|seen| token.is_some_and(|token| seen.holders.contains(&token)));
    if let Some(holder) = fleet.operation_mut(id).and_then(|operation| operation.holder.as_mut())
        && holder.seen
        && !runs
    {
        holder.ended = Some(now.time);
    }
    Reply::Done
}

fn unreached(fleet: &Fleet, operation: &Operation, nodes: &[NodeId]) -> Vec<NodeId> {
    let began = operation.began.unwrap_or_default();
    let reached = |name: &NodeId| fleet.nodes.get(name).is_some_and(|node| answers(node, began));
    nodes.iter().filter(|name| !reached(name)).cloned().collect()
}

/// Whether nodes that are out of contact may be left out of the current step: bringing back service does not wait for
/// them, and what settles an operation reports them as unsettled, unless one may hold a right to migrate.
fn may_leave_out(operation: &Operation) -> bool {
    match operation.step() {
        Some(Step::Serving { nodes, bring: Bring::Plain | Bring::Single }) => {
            operation.exclusive_until.is_some()
                || operation.course != Course::Forward
                || (matches!(operation.request, Request::Start { .. })
                    && nodes.first() != operation.solo.as_ref())
        }
        Some(Step::Proved { restarted: true, .. }) => true,
        Some(Step::Stopped { .. }) => operation.course == Course::Settle && !operation.migrated,
        _ => false,
    }
}

fn leave_out(
    fleet: &mut Fleet,
    id: &OperationId,
    nodes: &[NodeId],
    why: &str,
    journal: &mut Journal,
) -> Reply {
    let Some(operation) = fleet.operation_mut(id) else { return Reply::Unchanged };
    let mut changed = false;
    for node in nodes {
        if operation.left_out.insert(node.clone(), why.to_owned()).is_none() {
            changed = true;
            journal.node(Some(id), node, EventKind::LeftOut(why.to_owned()));
        }
    }
    let starts = matches!(operation.request, Request::Start { install: false, .. })
        && operation.course == Course::Forward
        && matches!(operation.step(), Some(Step::Serving { .. }));
    if changed && starts {
        let operation = operation.clone();
        let rest = order_start(fleet, &operation);
        if let Some(operation) = fleet.operation_mut(id) {
            operation.plan.truncate(usize::try_from(operation.cursor).unwrap_or(usize::MAX));
            operation.plan.extend(rest);
        }
    }
    if changed { Reply::Done } else { Reply::Unchanged }
}
