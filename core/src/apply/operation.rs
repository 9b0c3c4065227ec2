//! Operations: asked for, confirmed, ended early, tried again.

use crate::advance::{Now, begin, settled};
use crate::apply::Reply;
use crate::apply::acceptable::acceptable;
use crate::apply::sign::thawed;
use crate::assign::task_key;
use crate::assignment::{AppState, Needs, TaskPhase};
use crate::command::Submission;
use crate::event::EventKind;
use crate::finish::{close, turn};
use crate::ids::{FleetId, MachineId, NodeId, OperationId};
use crate::journal::Journal;
use crate::operation::{Bring, Course, Operation, Request, Status, Step};
use crate::policy::{QUEUE_MAX, TEXT_MAX};
use crate::reject::Rejection;
use crate::restore::looked_at;
use crate::rule::Rule;
use crate::state::{Fleet, Lock};
use crate::upgrade::RELEASE;

pub(crate) fn clip(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

pub(super) fn submit(
    id: &FleetId,
    fleet: &mut Fleet,
    name: &OperationId,
    request: &Request,
    submission: &Submission,
    now: Now,
    journal: &mut Journal,
) -> Result<Reply, Rejection> {
    if let Some(known) = fleet.operation(name) {
        let same = known.request == *request;
        let reply = Reply::Submitted { operation: name.clone() };
        return if same { Ok(reply) } else { Err(Rejection::IdInUse { operation: name.clone() }) };
    }
    if fleet.queue.len() >= QUEUE_MAX {
        return Err(Rejection::Full {
            what: format!("waiting operations of fleet \"{id}\""),
            max: QUEUE_MAX as u64,
        });
    }
    looked_at(id, fleet)?;
    acceptable(id, fleet, request)?;
    thawed(id, fleet, request, now.time)?;
    journal.operation(name, EventKind::Submitted(format!("{request} by {}", clip(&submission.by))));
    fleet.operations.push(new(fleet, name, request, submission, now));
    fleet.queue.push_back(name.clone());
    Ok(Reply::Submitted { operation: name.clone() })
}

fn new(fleet: &Fleet, name: &OperationId, request: &Request, submission: &Submission, now: Now) -> Operation {
    Operation {
        id: name.clone(),
        request: request.clone(),
        by: clip(&submission.by),
        reason: clip(&submission.reason),
        submitted: now.time,
        submitted_wall_ms: now.wall_ms,
        host_node: only_node_on(fleet, &submission.machine),
        machine: submission.machine.clone(),
        grant_by: submission.wait.map(|wait| now.time + wait),
        waited: fleet.lock != Lock::Free || !fleet.queue.is_empty(),
        status: Status::Queued,
        token: None,
        began: None,
        solo: None,
        plan: Vec::new(),
        course: Course::Forward,
        cursor: 0,
        attempt: 1,
        since: now.time,
        entered: now.time,
        down: None,
        up: None,
        granted: None,
        exclusive_until: None,
        grants: Vec::new(),
        changed: None,
        right: None,
        migrated: false,
        clearing: Vec::new(),
        absent: Vec::new(),
        overdue: false,
        aborting: None,
        late: false,
        from: None,
        exposed_wall_ms: None,
        approved: None,
        holder: None,
        sought: None,
        breached: None,
        left_out: std::collections::BTreeMap::new(),
        records: Vec::new(),
        ended: None,
    }
}

/// The node on the client's machine, if there is exactly one.
fn only_node_on(fleet: &Fleet, machine: &MachineId) -> Option<NodeId> {
    let mut found = fleet.nodes.iter().filter(|(_, node)| !machine.0.is_empty() && node.machine == *machine);
    let first = found.next()?;
    found.next().is_none().then(|| first.0.clone())
}

pub(super) fn confirm(
    id: &FleetId,
    fleet: &mut Fleet,
    name: &OperationId,
    now: Now,
    journal: &mut Journal,
) -> Result<Reply, Rejection> {
    match find(id, fleet, name)?.status {
        Status::Confirming(_) => {
            begin(fleet, name, now, journal);
            Ok(Reply::Done)
        }
        Status::Queued
        | Status::Running
        | Status::Blocked(_)
        | Status::Aborting
        | Status::Succeeded
        | Status::Aborted(_)
        | Status::RolledBack(_) => Ok(Reply::Unchanged),
    }
}

fn find<'a>(id: &FleetId, fleet: &'a Fleet, name: &OperationId) -> Result<&'a Operation, Rejection> {
    fleet
        .operation(name)
        .ok_or_else(|| Rejection::UnknownOperation { fleet: id.clone(), operation: name.clone() })
}

/// Asks for the end of an operation. What was stopped is started again; asked while that is blocked, what does not
/// come back is stopped and left out. The lock stays with the operation until that is done.
pub(super) fn abort(
    id: &FleetId,
    fleet: &mut Fleet,
    name: &OperationId,
    by: &str,
    reason: &str,
    now: Now,
    journal: &mut Journal,
) -> Result<Reply, Rejection> {
    let operation = find(id, fleet, name)?;
    let why = if reason.is_empty() {
        format!("by {}", clip(by))
    } else {
        format!("by {}: {}", clip(by), clip(reason))
    };
    match operation.status {
        Status::Succeeded | Status::Aborted(_) | Status::RolledBack(_) => return Ok(Reply::Unchanged),
        Status::Queued | Status::Confirming(_) => {
            close(fleet, name, Status::Aborted(why), now, journal);
            return Ok(Reply::Done);
        }
        Status::Running | Status::Blocked(_) | Status::Aborting => {}
    }
    if !Rule::AbortKeepsLock.holds() {
        fleet.lock = Lock::Free;
        close(fleet, name, Status::Aborted(why), now, journal);
        return Ok(Reply::Done);
    }
    let holder = operation
        .holder
        .as_ref()
        .filter(|holder| holder.released.is_none() && operation.course == Course::Forward);
    if let Some(holder) = holder {
        if holder.lost {
            return Err(Rejection::HolderUnsettled { operation: name.clone() });
        }
        if holder.accepted {
            return Ok(ask_to_end(fleet, name, &why, journal));
        }
    }
    keeps_writes(operation)?;
    if let Some(Step::Task { task, .. }) = operation.step()
        && operation.course != Course::Forward
        // A switch of the code concerns nobody but its own node.
        && task.needs != Needs::Serving
        && task.name != RELEASE
        && task_runs(fleet, operation)
    {
        return Err(Rejection::TaskRuns { operation: name.clone() });
    }
    if matches!(operation.step(), Some(Step::Task { .. }))
        && operation.course == Course::Forward
        && task_runs(fleet, operation)
    {
        return Ok(ask_to_end(fleet, name, &why, journal));
    }
    if operation.course != Course::Forward && !matches!(operation.status, Status::Blocked(_)) {
        // Asked again, or an answer was lost: it is being ended already, and that goes on.
        return Ok(Reply::Unchanged);
    }
    let begun = operation.exclusive_until.is_some() || operation.course != Course::Forward;
    let course = if begun { Course::Settle } else { Course::Restore };
    turn(fleet, name, course, false, &why, now, journal);
    Ok(Reply::Done)
}

/// Whether going back now would take nothing away that users may have written.
pub(super) fn keeps_writes(operation: &Operation) -> Result<(), Rejection> {
    let goes_back = operation.course == Course::Forward && operation.exclusive();
    match operation.exposed_wall_ms.filter(|_| goes_back) {
        Some(since_wall_ms) => {
            Err(Rejection::WritesAtStake { operation: operation.id.clone(), since_wall_ms })
        }
        None => Ok(()),
    }
}

/// Notes that the operation is to end as soon as the work that is under way has ended.
fn ask_to_end(fleet: &mut Fleet, name: &OperationId, why: &str, journal: &mut Journal) -> Reply {
    let Some(operation) = fleet.operation_mut(name) else { return Reply::Unchanged };
    if operation.aborting.is_some() {
        return Reply::Unchanged;
    }
    operation.aborting = Some(why.to_owned());
    operation.status = Status::Aborting;
    journal.operation(name, EventKind::Aborting(why.to_owned()));
    Reply::Done
}

/// Whether the current attempt of a task may still have an effect.
pub(super) fn task_runs(fleet: &Fleet, operation: &Operation) -> bool {
    let Some(Step::Task { nodes, .. }) = operation.step() else { return false };
    let ended = |name: &NodeId| {
        let seen = fleet.nodes.get(name).and_then(|node| node.observed.as_ref());
        let task = seen.and_then(|seen| seen.task.as_ref());
        task.is_some_and(|(key, phase, _)| *key == task_key(operation) && *phase == TaskPhase::Run)
    };
    !nodes.iter().filter(|node| operation.takes_part(node)).all(ended)
}

/// Another attempt at the current step, on a person's word.
pub(super) fn retry(
    id: &FleetId,
    fleet: &mut Fleet,
    name: &OperationId,
    attempt: u32,
    by: &str,
    now: Now,
    journal: &mut Journal,
) -> Result<Reply, Rejection> {
    let operation = find(id, fleet, name)?.clone();
    let refuse = |why: &str| Err(Rejection::NoRetry { operation: name.clone(), why: why.to_owned() });
    if operation.status.ended() {
        return refuse("it has ended");
    }
    if operation.attempt != attempt {
        return Ok(Reply::Unchanged);
    }
    if !matches!(operation.status, Status::Blocked(_)) {
        return refuse("it is not blocked");
    }
    if !settled(fleet, now) {
        return refuse("not every agent was heard by the new leader yet; try again in a moment");
    }
    let mut clearing = Vec::new();
    match operation.step() {
        Some(Step::Serving { nodes, .. }) => {
            let serves = |name: &NodeId| {
                fleet
                    .nodes
                    .get(name)
                    .and_then(|node| node.observed.as_ref())
                    .is_some_and(|seen| seen.app == AppState::Serving)
            };
            clearing =
                nodes.iter().filter(|name| !serves(name) && operation.takes_part(name)).cloned().collect();
        }
        Some(Step::Task { .. }) if task_runs(fleet, &operation) && Rule::OneAttempt.holds() => {
            return refuse(&format!("attempt {attempt} of the task may still run"));
        }
        Some(Step::Released) => {
            return refuse("the holder's work cannot be started again; see soloist lock status");
        }
        _ => {}
    }
    let Some(operation) = fleet.operation_mut(name) else { return Ok(Reply::Unchanged) };
    match operation.step() {
        Some(Step::Serving { bring: Bring::Migrate, .. }) => operation.right = None,
        Some(Step::Approved) => operation.approved = None,
        _ => {}
    }
    operation.clearing = clearing;
    operation.attempt += 1;
    operation.since = now.time;
    operation.overdue = false;
    operation.absent.clear();
    operation.status = if operation.aborting.is_some() { Status::Aborting } else { Status::Running };
    let number = operation.attempt;
    journal.operation(name, EventKind::Submitted(format!("another attempt, by {}", clip(by))));
    journal.operation(name, EventKind::Attempt(number));
    Ok(Reply::Done)
}
