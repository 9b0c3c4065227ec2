//! Machines that are gone: what a person says of one that nobody hears, and nodes that leave the fleet.

use std::collections::BTreeMap;

use crate::advance::Now;
use crate::apply::Reply;
use crate::apply::operation::clip;
use crate::apply::sign::words;
use crate::assign::renumber;
use crate::assignment::Run;
use crate::command::Registration;
use crate::event::EventKind;
use crate::fence::why_out;
use crate::ids::{FleetId, Generation, NodeId};
use crate::journal::Journal;
use crate::lost::awaits;
use crate::operation::{Course, Operation, Request};
use crate::policy::REMOVED_MAX;
use crate::reject::Rejection;
use crate::state::{Assumed, Fleet, Node, Tombstone};

/// Takes a person's word for it that nothing of a node's app runs, or that a load balancer sends nobody, and cannot come back by
/// itself: its machine is off.
pub(super) fn assume_stopped(
    id: &FleetId,
    fleet: &mut Fleet,
    name: &NodeId,
    heard: bool,
    (by, reason): (&str, &str),
    now: Now,
    journal: &mut Journal,
) -> Result<Reply, Rejection> {
    let Some(node) = fleet.agent(name) else {
        let known = fleet.agents().map(|(name, _)| name.clone()).collect();
        return Err(Rejection::UnknownNode { fleet: id.clone(), node: name.clone(), known });
    };
    if reason.trim().is_empty() {
        return Err(Rejection::NoReason);
    }
    if heard {
        return Err(Rejection::StillHeard { fleet: id.clone(), node: name.clone() });
    }
    let awaited = fleet.current().is_some_and(|operation| awaits(operation, node));
    let stopped = node.stop_evidence.is_some() && fleet.nodes.contains_key(name);
    if (node.assumed.is_some() || stopped) && !awaited {
        return Ok(Reply::Unchanged);
    }
    let needed = |operation: &Operation| {
        let (fleet, node, operation) = (id.clone(), name.clone(), operation.id.clone());
        Err(Rejection::NeededBy { fleet, node, operation })
    };
    let runs_on =
        |operation: &&Operation| operation.course == Course::Forward && operation.solo.as_ref() == Some(name);
    if let Some(operation) = fleet.current().filter(runs_on) {
        return needed(operation);
    }
    let before = fleet.clone();
    if let Some(node) = fleet.agent_mut(name) {
        node.assumed = Some(Assumed { by: clip(by), reason: clip(reason), wall_ms: now.wall_ms });
        node.admitted = false;
        // What was seen last ran on a machine that is off.
        node.observed = None;
        node.stale_wall_ms = None;
    }
    // The way back waits for a machine that may run a lost holder, and must not need it afterwards.
    if let Some(operation) = fleet.current_mut().filter(|_| awaited) {
        operation.left_out.insert(name.clone(), why(by, reason));
    }
    // It is told to stay stopped, whenever it is heard again.
    renumber(fleet, now.index);
    if let Some(node) = fleet.nodes.get_mut(name) {
        if node.assignment.spec.run != Run::Stop {
            *fleet = before;
            return fleet.current().map_or(Ok(Reply::Unchanged), needed);
        }
        node.stop_evidence = Some(Generation(now.index));
    }
    let lock = fleet.lock.holder().cloned();
    // A start leaves out whoever does not answer by itself; a way back leaves nobody out.
    if let Some(operation) = fleet.current_mut()
        && operation.course == Course::Forward
        && !matches!(operation.request, Request::Start { .. } | Request::Remove { .. })
    {
        operation.left_out.insert(name.clone(), why(by, reason));
    }
    journal.node(lock.as_ref(), name, EventKind::Assumed(format!("stopped{}", words(by, reason))));
    Ok(Reply::Done)
}

/// Who is left out of an operation before its first step: whoever is assumed to be stopped, or fenced from what it changes. A start leaves out
/// whoever is fenced in any way.
pub(crate) fn left_out(fleet: &Fleet, operation: &Operation) -> BTreeMap<NodeId, String> {
    let assumed = |node: &Node| node.assumed.as_ref().map(|assumed| why(&assumed.by, &assumed.reason));
    let reason = |node: &Node| match operation.request {
        Request::Remove { .. } => None,
        Request::Start { .. } => (!node.fences.is_empty()).then(|| "fenced".to_owned()),
        _ => {
            assumed(node).or_else(|| why_out(fleet, operation, node).filter(|_| node.stop_evidence.is_none()))
        }
    };
    fleet.nodes.iter().filter_map(|(name, node)| Some((name.clone(), reason(node)?))).collect()
}

/// Why a node cannot be the one that an operation runs on.
pub(crate) fn unfit(fleet: &Fleet, solo: &NodeId, left_out: &BTreeMap<NodeId, String>) -> Option<String> {
    let fenced = fleet.nodes.get(solo).is_some_and(|node| !node.fences.is_empty());
    let why = left_out.get(solo).cloned().or_else(|| fenced.then(|| "fenced".to_owned()))?;
    Some(format!("{solo} is {why}; choose another node"))
}

fn why(by: &str, reason: &str) -> String {
    format!("assumed to be stopped{}", words(by, reason))
}

/// An agent is heard: what a person said while it was not counts no longer.
pub(super) fn speaks_again(fleet: &mut Fleet, name: &NodeId, journal: &mut Journal) {
    let lock = fleet.lock.holder().cloned();
    let Some(node) = fleet.agent_mut(name) else { return };
    if node.assumed.take().is_some() {
        node.stop_evidence = None;
        journal.node(lock.as_ref(), name, EventKind::Assumed("stopped no longer: its agent is heard".into()));
    }
}

/// Whether an agent may register under a name that a node had which was removed.
pub(super) fn may_come(
    id: &FleetId,
    fleet: &mut Fleet,
    name: &NodeId,
    registration: &Registration,
) -> Result<(), Rejection> {
    let Some(tombstone) = fleet.removed.get(name) else { return Ok(()) };
    if registration.lineage.contains(&tombstone.incarnation) {
        let (fleet, node, by) = (id.clone(), name.clone(), tombstone.by.clone());
        return Err(Rejection::Removed { fleet, node, by });
    }
    // A new installation under the old name.
    fleet.removed.remove(name);
    Ok(())
}

/// The node leaves the fleet; the agent that ran it does not come back by itself.
pub(crate) fn remove(fleet: &mut Fleet, name: &NodeId, by: &str, wall_ms: u64, journal: &mut Journal) {
    let Some(node) = fleet.nodes.remove(name).or_else(|| fleet.balancers.remove(name)) else { return };
    let tombstone = Tombstone { incarnation: node.incarnation, by: clip(by), wall_ms };
    fleet.removed.insert(name.clone(), tombstone);
    while fleet.removed.len() > REMOVED_MAX {
        let oldest = fleet.removed.iter().min_by_key(|(_, tombstone)| tombstone.wall_ms);
        let Some(oldest) = oldest.map(|(name, _)| name.clone()) else { break };
        fleet.removed.remove(&oldest);
    }
    if fleet.last_solo.as_ref() == Some(name) {
        fleet.last_solo = None;
    }
    journal.node(None, name, EventKind::Removed(clip(by)));
}
