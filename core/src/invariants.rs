//! What must hold after every entry. Each has its paragraph in docs/invariants.md.

use crate::assign::wanted;
use crate::assignment::Run;
use crate::ids::FleetId;
use crate::operation::{Request, Status};
use crate::policy::{BACKUPS_MAX, EVENTS_MAX, HISTORY_MAX, NODES_MAX, QUEUE_MAX, REMOVED_MAX};
use crate::state::{Fleet, Lock, State};

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fleet \"{fleet}\": invariant {name} is broken: {what}")]
pub struct Violation {
    /// The fleet.
    pub fleet: FleetId,
    /// Name of the invariant, as in docs/invariants.md.
    pub name: &'static str,
    /// What was found.
    pub what: String,
}

type Check = fn(&Fleet) -> Result<(), String>;

/// Every invariant with its name.
pub const INVARIANTS: [(&str, Check); 8] = [
    ("one-lock", one_lock),
    ("one-migrate", one_migrate),
    ("migrate-with-intent", migrate_with_intent),
    ("evidence-means-stop", evidence_means_stop),
    ("fenced-means-stop", fenced_means_stop),
    ("numbered-assignments", numbered_assignments),
    ("ended-stays-ended", ended_stays_ended),
    ("bounded", bounded),
];

/// Checks every fleet.
pub fn invariants(state: &State) -> Result<(), Violation> {
    state.fleets.iter().try_for_each(|(id, fleet)| invariants_of(id, fleet))
}

/// Checks one fleet.
pub fn invariants_of(id: &FleetId, fleet: &Fleet) -> Result<(), Violation> {
    for (name, check) in INVARIANTS {
        check(fleet).map_err(|what| Violation { fleet: id.clone(), name, what })?;
    }
    Ok(())
}

fn one_lock(fleet: &Fleet) -> Result<(), String> {
    let going = fleet
        .operations
        .iter()
        .filter(|operation| {
            matches!(operation.status, Status::Running | Status::Blocked(_) | Status::Aborting)
        })
        .map(|operation| &operation.id)
        .collect::<Vec<_>>();
    match (&fleet.lock, going.as_slice()) {
        (Lock::Free, []) => Ok(()),
        (Lock::Held { operation, .. }, [one]) if operation == *one => Ok(()),
        (lock, going) => Err(format!("the lock is {lock:?}, but these operations run: {going:?}")),
    }
}

fn one_migrate(fleet: &Fleet) -> Result<(), String> {
    let holders = fleet.nodes.iter().filter(|(_, node)| matches!(node.assignment.spec.run, Run::Migrate(_)));
    let names = holders.map(|(name, _)| name).collect::<Vec<_>>();
    if names.len() > 1 {
        return Err(format!("{names:?} hold a right to migrate"));
    }
    let running = fleet.nodes.iter().filter(|(_, node)| node.assignment.spec.run.plainly()).count();
    if !names.is_empty() && running > 0 {
        return Err(format!("{names:?} holds a right to migrate while {running} other nodes may run"));
    }
    Ok(())
}

fn migrate_with_intent(fleet: &Fleet) -> Result<(), String> {
    let migrates = fleet.nodes.values().any(|node| matches!(node.assignment.spec.run, Run::Migrate(_)));
    let asked = fleet.current().is_some_and(|operation| {
        operation.request.goes_back() || matches!(operation.request, Request::Start { install: true, .. })
    });
    if migrates && !asked {
        Err("a right to migrate exists, but no operation asked for it".into())
    } else {
        Ok(())
    }
}

fn evidence_means_stop(fleet: &Fleet) -> Result<(), String> {
    for (name, node) in &fleet.nodes {
        if node.stop_evidence.is_some() && node.assignment.spec.run != Run::Stop {
            return Err(format!("{name} counts as stopped but is assigned {}", node.assignment.spec.run));
        }
        if node.stop_since.is_some() != (node.assignment.spec.run == Run::Stop) {
            return Err(format!("{name}: stop_since does not match its assignment"));
        }
    }
    Ok(())
}

fn fenced_means_stop(fleet: &Fleet) -> Result<(), String> {
    for (name, node) in &fleet.nodes {
        if !node.fences.is_empty() && node.assignment.spec.run != Run::Stop {
            return Err(format!("{name} is fenced but is assigned {}", node.assignment.spec.run));
        }
        if let Some((covers, _)) = node.fences.iter().find(|(_, fence)| fence.holds && !fence.up) {
            return Err(format!("the fence of {name} from the {covers} is being lifted, and counts"));
        }
    }
    Ok(())
}

fn numbered_assignments(fleet: &Fleet) -> Result<(), String> {
    let specs = crate::assign::assign(fleet);
    for (name, node) in &fleet.nodes {
        if specs.get(name) != Some(&node.assignment.spec) {
            return Err(format!("the assignment of {name} is not what the state asks for"));
        }
        if node.assignment.generation < node.registered {
            return Err(format!("the assignment of {name} is older than its registration"));
        }
    }
    if let Some(operation) = fleet.current() {
        let runs = wanted(fleet, operation);
        if runs.len() != fleet.nodes.len() {
            return Err("not every node has an assignment".into());
        }
    }
    Ok(())
}

fn ended_stays_ended(fleet: &Fleet) -> Result<(), String> {
    for operation in &fleet.operations {
        if operation.status.ended() != operation.ended.is_some() {
            return Err(format!(
                "{} is {} but its end is {:?}",
                operation.id,
                operation.status.word(),
                operation.ended
            ));
        }
        let queued = fleet.queue.contains(&operation.id);
        let waits = matches!(operation.status, Status::Queued | Status::Confirming(_));
        if queued != waits {
            return Err(format!("{} is {} but queued is {queued}", operation.id, operation.status.word()));
        }
    }
    Ok(())
}

fn bounded(fleet: &Fleet) -> Result<(), String> {
    let ended = fleet.operations.iter().filter(|operation| operation.status.ended()).count();
    // Automatic starts are not refused by a full queue twice: one may stand beside the bound.
    if fleet.queue.len() > QUEUE_MAX
        || ended > HISTORY_MAX
        || fleet.events.len() > EVENTS_MAX
        || fleet.nodes.len() > NODES_MAX
        || fleet.backups.len() > BACKUPS_MAX
        || fleet.removed.len() > REMOVED_MAX
    {
        return Err("a list is longer than its bound".into());
    }
    Ok(())
}
