//! How operations end, early or at the end of their plan.

use crate::advance::{Now, enter, record, restores};
use crate::apply::gone::remove;
use crate::assign::wanted;
use crate::command::HOLDER_LEVEL;
use crate::event::EventKind;
use crate::ids::{NodeId, OperationId};
use crate::journal::Journal;
use crate::lost::seek;
use crate::operation::{Course, Request, Status, Step};
use crate::outage::note_outage;
use crate::plan::ending;
use crate::policy::HISTORY_MAX;
use crate::remember::output;
use crate::rule::Rule;
use crate::state::{Desired, Fleet, Lock};
use crate::traffic::close_traffic;

/// Replaces what is left of the plan by what ends the operation early.
pub(crate) fn turn(
    fleet: &mut Fleet,
    id: &OperationId,
    course: Course,
    harm: bool,
    why: &str,
    now: Now,
    journal: &mut Journal,
) {
    let Some(operation) = fleet.operation(id).cloned() else { return };
    // Whoever gives up meanwhile does not know more of the lost holder than before.
    let proven = now.level >= HOLDER_LEVEL;
    let again = proven && operation.step() == Some(&Step::HolderGone) && Rule::EndIsAwaited.holds();
    let harm = harm || again;
    if harm && proven && Rule::EndIsProven.holds() {
        seek(fleet, id, now);
    }
    if let (Request::Stop, Course::Restore) = (&operation.request, course) {
        fleet.desired = Desired::Run;
    }
    if let Some(Step::Task { nodes, .. }) = operation.step()
        && restores(&operation).is_some()
        && let [node] = nodes.as_slice()
        && output(fleet, node)
            .is_some_and(|output| output.get("touched").is_some_and(|touched| touched == "no"))
    {
        fleet.half_restored = None;
    }
    let course = match operation.request {
        Request::Start { .. } => Course::Settle,
        // What a restore has begun may be half: nothing is started on it by itself.
        Request::Restore { .. } if fleet.half_restored.is_some() => Course::Settle,
        Request::Stop
        | Request::Hold { .. }
        | Request::Plugin { .. }
        | Request::Backup { .. }
        | Request::Restore { .. }
        | Request::RemoveBackup { .. }
        | Request::Prepare { .. }
        | Request::Verify
        | Request::Restart { .. }
        | Request::Heal
        | Request::Remove { .. }
        | Request::AcceptDatabase => course,
        // Code and database go back together, and that cannot be undone in the middle.
        Request::Upgrade { .. } | Request::Packages { .. } | Request::Migrate { .. } => {
            match (operation.course, course) {
                (Course::Forward, Course::Rollback) => Course::Rollback,
                (Course::Forward, Course::Restore) if operation.exclusive() => Course::Rollback,
                (Course::Forward, Course::Restore) if operation.granted.is_none() => Course::Restore,
                _ => Course::Settle,
            }
        }
    };
    if course == Course::Rollback
        && let Some(operation) = fleet.operation_mut(id)
    {
        // What was done on a node before it was left out is undone there too; the grant waits for its stop in any case.
        operation.left_out.clear();
    }
    let mut rest = ending(fleet, &operation, course, harm);
    if operation.step() != Some(&Step::InService) {
        close_traffic(fleet, &mut rest);
    }
    let accept_timeout = fleet.policy.accept_timeout;
    if operation.entered < now.time {
        record(fleet, id, now, false);
    }
    let Some(operation) = fleet.operation_mut(id) else { return };
    // The current step keeps its effect on the nodes: what it had begun is undone by the steps that follow.
    let passed = usize::from(!again);
    let keep = usize::try_from(operation.cursor)
        .unwrap_or(usize::MAX)
        .saturating_add(passed)
        .min(operation.plan.len());
    operation.plan.truncate(keep);
    operation.plan.extend(rest);
    operation.course = course;
    operation.aborting.get_or_insert_with(|| why.to_owned());
    operation.status = Status::Aborting;
    if !harm && operation.granted.is_some() {
        // Nothing exclusive is left to protect: bringing the service back does not wait for anybody.
        operation.exclusive_until.get_or_insert(now.time);
    }
    let cursor = u32::try_from(keep).unwrap_or(u32::MAX);
    enter(operation, cursor, now, accept_timeout);
    journal.operation(id, EventKind::Aborting(why.to_owned()));
    note_outage(fleet, now.time);
}

/// The plan is done: the lock is freed.
pub(crate) fn finish(fleet: &mut Fleet, id: &OperationId, now: Now, journal: &mut Journal) {
    let Some(operation) = fleet.operation(id).cloned() else { return };
    let runs = wanted(fleet, &operation);
    for (name, node) in &mut fleet.nodes {
        node.admitted = runs.get(name).is_some_and(|run| run.plainly());
        if operation.takes_part(name) && operation.plan.iter().any(|step| concerns(step, name)) {
            node.returned = false;
        }
    }
    let installed = matches!(operation.request, Request::Start { install: true, .. });
    let status = match operation.aborting.clone() {
        None => {
            fleet.active |= installed;
            if operation.solo.is_some() {
                fleet.last_solo.clone_from(&operation.solo);
            }
            Status::Succeeded
        }
        Some(why) => {
            if installed && fleet.database.is_none() || fleet.half_restored.is_some() {
                fleet.desired = Desired::Stop;
            }
            if operation.course == Course::Rollback { Status::RolledBack(why) } else { Status::Aborted(why) }
        }
    };
    if let (Request::Remove { node }, Status::Succeeded) = (&operation.request, &status) {
        remove(fleet, node, &operation.by, now.wall_ms, journal);
    }
    fleet.lock = Lock::Free;
    close(fleet, id, status, now, journal);
}

fn concerns(step: &Step, name: &NodeId) -> bool {
    match step {
        Step::Serving { nodes, .. } | Step::Stopped { nodes } | Step::Reachable { nodes, .. } => {
            nodes.contains(name)
        }
        _ => false,
    }
}

/// Ends an operation and forgets the oldest ended ones.
pub(crate) fn close(fleet: &mut Fleet, id: &OperationId, status: Status, now: Now, journal: &mut Journal) {
    fleet.queue.retain(|queued| queued != id);
    let text = match &status {
        Status::Aborted(why) => format!("aborted: {why}"),
        Status::RolledBack(why) => format!("rolled back: {why}"),
        other => other.word().to_owned(),
    };
    if let Some(operation) = fleet.operation_mut(id) {
        operation.exclusive_until = operation.exclusive_until.or(operation.granted.map(|_| now.time));
        operation.status = status;
        operation.ended = Some(now.time);
    }
    journal.operation(id, EventKind::Ended(text));
    let mut surplus = fleet
        .operations
        .iter()
        .filter(|operation| operation.status.ended())
        .count()
        .saturating_sub(HISTORY_MAX);
    fleet.operations.retain(|operation| {
        let drop = surplus > 0 && operation.status.ended();
        surplus -= usize::from(drop);
        !drop
    });
}
