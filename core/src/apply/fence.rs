//! Fences: put up for a person or by the fleet itself, carried out by agents, and lifted when the node has stopped.

use crate::advance::Now;
use crate::apply::Reply;
use crate::apply::operation::clip;
use crate::apply::sign::words;
use crate::assign::renumber;
use crate::assignment::{Observed, Run};
use crate::event::EventKind;
use crate::fence::{Covers, Fence, FenceSeen, choose, needed, why_out};
use crate::ids::{FleetId, Generation, NodeId};
use crate::journal::Journal;
use crate::lost::awaits;
use crate::operation::{Course, Operation, Request};
use crate::reject::Rejection;
use crate::rule::Rule;
use crate::state::{Fleet, Node};

/// Puts up a fence around a node: the gentlest one that keeps it from all that the operation which has the lock may change, or the one that
/// was asked for. `heard` names the agents that could carry it out now.
#[expect(clippy::too_many_arguments, reason = "one argument per field of the command")]
pub(super) fn fence(
    id: &FleetId,
    fleet: &mut Fleet,
    name: &NodeId,
    covers: Option<Covers>,
    heard: &[NodeId],
    (by, reason): (&str, &str),
    now: Now,
    journal: &mut Journal,
) -> Result<Reply, Rejection> {
    if !fleet.nodes.contains_key(name) {
        let known = fleet.nodes.keys().cloned().collect();
        return Err(Rejection::UnknownNode { fleet: id.clone(), node: name.clone(), known });
    }
    if reason.trim().is_empty() {
        return Err(Rejection::NoReason);
    }
    let at_least = fleet.current().map_or(Covers::Database, |operation| needed(fleet, operation));
    let chosen = match covers {
        Some(covers) => choose(fleet, name, covers, heard).filter(|(found, _)| *found == covers),
        None => choose(fleet, name, at_least, heard),
    };
    let Some((covers, carrier)) = chosen else {
        let offers = fleet.agents().filter_map(|(_, agent)| agent.observed.as_ref());
        let offers = offers.flat_map(|seen| &seen.fences).filter(|offer| offer.node == *name);
        let unarmed =
            offers.filter_map(|offer| Some(format!("{}: {}", offer.covers, offer.unarmed.as_ref()?)));
        let (fleet, node, unarmed) = (id.clone(), name.clone(), unarmed.collect());
        return Err(Rejection::NoFence { fleet, node, covers: covers.unwrap_or(at_least), unarmed });
    };
    let awaited = |node: &Node| fleet.current().is_some_and(|operation| awaits(operation, node));
    let awaited = covers == Covers::Machine && fleet.nodes.get(name).is_some_and(awaited);
    let enough = |node: &Node| {
        node.stop_evidence.is_some() && !awaited || node.fences.get(&covers).is_some_and(|fence| fence.up)
    };
    if fleet.nodes.get(name).is_some_and(enough) {
        return Ok(Reply::Unchanged);
    }
    let counts_on =
        |operation: &&Operation| operation.course == Course::Forward && operation.solo.as_ref() == Some(name);
    if let Some(operation) = fleet.current().filter(counts_on) {
        let (fleet, node, operation) = (id.clone(), name.clone(), operation.id.clone());
        return Err(Rejection::NeededBy { fleet, node, operation });
    }
    let before = fleet.clone();
    if let Some(node) = fleet.nodes.get_mut(name) {
        node.admitted = false;
        // What it does from now on is known when it is heard again.
        node.observed = None;
    }
    // The way back waits for a machine that may run a lost holder, and must not need it afterwards.
    if let Some(operation) = fleet.current_mut().filter(|_| awaited) {
        operation
            .left_out
            .insert(name.clone(), format!("fenced from the {covers} by {}: {}", clip(by), clip(reason)));
    }
    renumber(fleet, now.index);
    if fleet.nodes.get(name).is_some_and(|node| node.assignment.spec.run != Run::Stop) {
        *fleet = before;
        return match fleet.current() {
            Some(operation) => {
                let (fleet, node, operation) = (id.clone(), name.clone(), operation.id.clone());
                Err(Rejection::NeededBy { fleet, node, operation })
            }
            None => Ok(Reply::Unchanged),
        };
    }
    let fence = Fence {
        generation: Generation(now.index),
        up: true,
        carrier: carrier.clone(),
        holds: false,
        trouble: None,
        by: clip(by),
        reason: clip(reason),
        wall_ms: now.wall_ms,
    };
    if let Some(node) = fleet.nodes.get_mut(name) {
        node.fences.insert(covers, fence);
    }
    let lock = fleet.lock.holder().cloned();
    let what = format!("to be put up around the {covers} by {carrier}, asked for{}", words(by, reason));
    journal.node(lock.as_ref(), name, EventKind::Fence(what));
    Ok(Reply::Done)
}

/// Gives a fence whose carrier is not heard to another agent, with a new number.
pub(super) fn carry(fleet: &mut Fleet, name: &NodeId, covers: Covers, heard: &[NodeId], now: Now) -> Reply {
    let chosen = choose(fleet, name, covers, heard).filter(|(found, _)| *found == covers);
    let Some((_, carrier)) = chosen else { return Reply::Unchanged };
    let fence = fleet.nodes.get_mut(name).and_then(|node| node.fences.get_mut(&covers));
    let Some(fence) = fence.filter(|fence| fence.carrier != carrier && !heard.contains(&fence.carrier))
    else {
        return Reply::Unchanged;
    };
    fence.carrier = carrier;
    fence.generation = Generation(now.index);
    fence.trouble = None;
    Reply::Done
}

/// Lifts a fence because a person asks, rather than by itself a moment later: only when the node is proven to be stopped.
pub(super) fn unfence(
    id: &FleetId,
    fleet: &mut Fleet,
    name: &NodeId,
    heard: &[NodeId],
    by: &str,
    now: Now,
    journal: &mut Journal,
) -> Result<Reply, Rejection> {
    let Some(node) = fleet.nodes.get(name) else {
        let known = fleet.nodes.keys().cloned().collect();
        return Err(Rejection::UnknownNode { fleet: id.clone(), node: name.clone(), known });
    };
    if node.fences.is_empty() {
        return Ok(Reply::Unchanged);
    }
    if node.stop_evidence.is_none() {
        return Err(Rejection::NotStopped { fleet: id.clone(), node: name.clone() });
    }
    let kinds: Vec<Covers> = node.fences.keys().copied().collect();
    for covers in kinds {
        lift(fleet, name, covers, now, journal, by);
        let _ = carry(fleet, name, covers, heard, now);
    }
    Ok(Reply::Done)
}

fn lift(fleet: &mut Fleet, name: &NodeId, covers: Covers, now: Now, journal: &mut Journal, by: &str) {
    let lock = fleet.lock.holder().cloned();
    let Some(node) = fleet.nodes.get_mut(name) else { return };
    match covers {
        // Its power is a person's business; it has been off, and is not kept off.
        Covers::Machine => {
            node.fences.remove(&covers);
            node.returned |= !node.admitted;
        }
        Covers::Database => {
            let Some(fence) = node.fences.get_mut(&covers).filter(|fence| fence.up) else { return };
            fence.up = false;
            fence.holds = false;
            fence.trouble = None;
            fence.generation = Generation(now.index);
        }
    }
    journal.node(lock.as_ref(), name, EventKind::Fence(format!("of the {covers} to be lifted by {by}")));
}

/// What follows from the state: a node with a fence that holds is left out of the operation, and a fence is lifted when its node is
/// proven to be stopped and nobody counts on the fence.
pub(super) fn settle(fleet: &mut Fleet, now: Now, journal: &mut Journal) {
    if fleet.nodes.values().all(|node| node.fences.is_empty()) {
        return;
    }
    let lock = fleet.lock.holder().cloned();
    // A node that leaves is waited for until nothing is left of it, its fence included.
    let leaves_out = |operation: &&Operation| {
        operation.course == Course::Forward && !matches!(operation.request, Request::Remove { .. })
    };
    if let Some(operation) = fleet.current().filter(leaves_out) {
        let out = fleet
            .nodes
            .iter()
            .filter(|(name, node)| operation.takes_part(name) && node.stop_evidence.is_none());
        let out: Vec<(NodeId, String)> =
            out.filter_map(|(name, node)| Some((name.clone(), why_out(fleet, operation, node)?))).collect();
        if let Some(operation) = fleet.current_mut() {
            for (name, why) in out {
                journal.node(lock.as_ref(), &name, EventKind::LeftOut(why.clone()));
                operation.left_out.insert(name, why);
            }
        }
    }
    let counted_on = |name: &NodeId| fleet.current().is_some_and(|operation| !operation.takes_part(name));
    let liftable = fleet.nodes.iter().filter(|(name, node)| {
        let off = node.fences.get(&Covers::Machine).is_some_and(|fence| fence.up && fence.holds);
        let stopped = (node.stop_evidence.is_some() || off) && !counted_on(name);
        stopped || !Rule::FencedUntilStopped.holds() && node.observed.is_some()
    });
    let up = liftable.flat_map(|(name, node)| {
        // A machine's ends when it is heard.
        let up = node.fences.iter().filter(|(covers, fence)| fence.up && **covers == Covers::Database);
        up.map(|(covers, _)| (name.clone(), *covers))
    });
    for (name, covers) in up.collect::<Vec<_>>() {
        lift(fleet, &name, covers, now, journal, "itself: the node has stopped");
    }
}

/// Takes what an agent says of the fences that it carries.
pub(super) fn carried(fleet: &mut Fleet, carrier: &NodeId, observed: &Observed, journal: &mut Journal) {
    let lock = fleet.lock.holder().cloned();
    for (name, node) in &mut fleet.nodes {
        let mut lifted = Vec::new();
        for (covers, fence) in node.fences.iter_mut().filter(|(_, fence)| fence.carrier == *carrier) {
            let about = |seen: &&FenceSeen| {
                (&seen.node, seen.covers, seen.generation) == (name, *covers, fence.generation)
            };
            let Some(seen) = observed.fenced.iter().find(about) else { continue };
            if seen.trouble != fence.trouble
                && let Some(why) = &seen.trouble
            {
                journal.node(lock.as_ref(), name, EventKind::Fence(format!("of the {covers}: {why}")));
            }
            fence.trouble.clone_from(&seen.trouble);
            if !fence.up && seen.done {
                lifted.push(*covers);
            } else if fence.up && seen.done != fence.holds {
                fence.holds = seen.done;
                let what = if seen.done { "holds" } else { "holds no longer" };
                journal.node(lock.as_ref(), name, EventKind::Fence(format!("around the {covers} {what}")));
            }
        }
        for covers in lifted {
            node.fences.remove(&covers);
            node.returned |= !node.admitted;
            journal.node(lock.as_ref(), name, EventKind::Fence(format!("of the {covers} is lifted")));
        }
    }
}

/// The node's agent is heard: whatever its machine was said to be, it is not off.
pub(super) fn speaks_again(fleet: &mut Fleet, name: &NodeId, journal: &mut Journal) {
    let lock = fleet.lock.holder().cloned();
    let Some(node) = fleet.nodes.get_mut(name) else { return };
    if node.fences.remove(&Covers::Machine).is_some() {
        node.returned |= !node.admitted;
        let what = "of the machine is over: its agent is heard".to_owned();
        journal.node(lock.as_ref(), name, EventKind::Fence(what));
    }
}
