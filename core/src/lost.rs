//! Holders whose lock was taken away: whether their work has ended, as far as the fleet's agents can see.
//!
//! A report from before that moment may be older than the work. So every agent is given a new number then, and what it acknowledges
//! with that it has seen since: an agent looks over its host between accepting a number and telling of it. A machine that a person
//! has said since is off, or that was switched off, runs nothing. What a holder does on a host without an agent of the fleet nobody can see:
//! that is the word of whoever takes the lock away.

use crate::advance::Now;
use crate::condition::{Condition, waiting};
use crate::fence::{Covers, around};
use crate::ids::{Generation, NodeId, OperationId};
use crate::operation::{Holder, Operation, Step};
use crate::state::{Fleet, Node};

/// Asks every agent to look for what a holder has left: one that had accepted its grant, and whose end no agent has seen for long.
pub(crate) fn seek(fleet: &mut Fleet, id: &OperationId, now: Now) {
    let (token, long) = (fleet.lock.token(), fleet.policy.restore_after);
    let Some(operation) = fleet.operation_mut(id) else { return };
    let ended = |holder: &Holder| holder.ended.is_some_and(|at| at + long <= now.time);
    let may_work = operation.holder.as_ref().is_some_and(|holder| holder.accepted && !ended(holder));
    if !may_work || operation.sought.is_some() {
        return;
    }
    operation.sought = Some(Generation(now.index));
    for node in fleet.nodes.values_mut() {
        node.assignment.generation = Generation(now.index);
        node.assignment.token = token;
    }
}

/// Whether the operation waits for word of this node: its agent has not looked since, or has found something.
pub(crate) fn awaits(operation: &Operation, node: &Node) -> bool {
    let Some(sought) = operation.sought.filter(|_| operation.step() == Some(&Step::HolderGone)) else {
        return false;
    };
    // A machine that was off before may have come back since, and the holder on it, before its agent was heard.
    let said_since = node.assumed.is_some() && node.stop_evidence.is_some_and(|at| at >= sought);
    let off = said_since || around(node, Covers::Machine).is_some();
    !off && (works(node) || node.observed.as_ref().is_none_or(|seen| seen.applied < sought))
}

/// Whether a holder's processes were seen there.
fn works(node: &Node) -> bool {
    node.observed.as_ref().is_some_and(|seen| !seen.holders.is_empty())
}

/// The condition of [`Step::HolderGone`].
pub(crate) fn gone(fleet: &Fleet, operation: &Operation) -> Condition {
    let of = |is: fn(&Operation, &Node) -> bool| {
        let found = fleet.nodes.iter().filter(move |(_, node)| is(operation, node));
        found.map(|(name, _)| name).collect::<Vec<&NodeId>>()
    };
    let running = of(|_, node| works(node));
    let unseen = of(|operation, node| awaits(operation, node) && !works(node));
    if running.is_empty() && unseen.is_empty() {
        return Condition::Met;
    }
    let running = waiting(operation, &running, "the lost holder's processes to end", true);
    match (waiting(operation, &unseen, "its agent to look for the lost holder's processes", true), running) {
        (Condition::Wait(mut waits), Condition::Wait(more)) => {
            waits.extend(more);
            Condition::Wait(waits)
        }
        (Condition::Wait(_), stuck) | (stuck, _) => stuck,
    }
}

/// What a person can do about a node on which a lost holder's work goes on, or may; nothing if it is about something else.
pub(crate) fn remedies(fleet: &Fleet, operation: &Operation, name: &NodeId) -> Option<Vec<String>> {
    let node = fleet.nodes.get(name).filter(|node| awaits(operation, node))?;
    let off =
        format!("if its machine is off and stays off: soloist node assume-stopped {name} --reason \"...\"");
    let tokens = node.observed.iter().flat_map(|seen| &seen.holders);
    let end = tokens.map(|token| {
        format!(
            "on {name}, end the processes with SOLOIST_FENCING_TOKEN={token} in their environment: the operation goes on by itself"
        )
    });
    Some(end.chain([off]).collect())
}
