//! How long users had no node, and on what that time went; and how long the steps of a plan take in this fleet.

use crate::assignment::Run;
use crate::operation::{Operation, Step};
use crate::policy::Traffic;
use crate::state::Fleet;
use crate::time::{Millis, Time};
use crate::upgrade::holds;

/// Notes since when, and until when, no node is there for users. Called whenever the operation comes to another step.
pub(crate) fn note_outage(fleet: &mut Fleet, now: Time) {
    let Some(operation) = fleet.current() else { return };
    let there = is_there(fleet, operation);
    let stops = matches!(
        operation.step(),
        Some(Step::Stopped { nodes } | Step::Drained { nodes }) if nodes.len() == fleet.nodes.len()
    );
    let ran = fleet.nodes.values().any(|node| node.admitted);
    let Some(operation) = fleet.current_mut() else { return };
    if stops && ran {
        operation.down.get_or_insert(now);
        operation.up = None;
    } else if there && operation.down.is_some() {
        operation.up.get_or_insert(now);
    }
}

/// Whether some node serves and is given to users, as far as the plan has come.
pub(crate) fn is_there(fleet: &Fleet, operation: &Operation) -> bool {
    let at = usize::try_from(operation.cursor).unwrap_or(usize::MAX);
    let last_stop = operation
        .plan
        .iter()
        .take(at)
        .rposition(|step| matches!(step, Step::Stopped { nodes } if nodes.len() == fleet.nodes.len()));
    let wanted = crate::assign::wanted(fleet, operation);
    operation.plan.iter().take(at).skip(last_stop.unwrap_or(0)).any(|step| match step {
        Step::Serving { nodes, .. } => nodes.iter().any(|node| {
            let runs = wanted.get(node).is_some_and(|run| *run != Run::Stop);
            runs && (fleet.policy.traffic == Traffic::Direct || !holds(operation, node))
        }),
        _ => false,
    })
}

/// The steps of an operation that lay in the outage, each with its share; they add up to the outage.
pub(crate) fn parts(operation: &Operation, now: Time) -> Vec<(String, Millis)> {
    let Some(down) = operation.down else { return Vec::new() };
    let up = operation.up.or(operation.ended).unwrap_or(now);
    let records = operation.records.iter().map(|record| (record.step.clone(), record.began, record.ended));
    let current = operation.step().filter(|_| operation.ended.is_none());
    let current = current.map(|step| (step.to_string(), operation.entered, now));
    let share = |(step, began, ended): (String, Time, Time)| {
        let (began, ended) = (began.max(down), ended.min(up));
        (ended > began).then(|| (step, ended.since(began)))
    };
    records.chain(current).filter_map(share).collect()
}

/// Most records that an estimate is made from.
const SAMPLES_MAX: usize = 5;

/// How long a step of this kind took in this fleet, by the median of the last times.
pub(crate) fn expected(fleet: &Fleet, step: &Step) -> Option<Millis> {
    let kind = step.kind();
    let operations = fleet.operations.iter().rev();
    let records = operations.flat_map(|operation| operation.records.iter().rev());
    let alike = records.filter(|record| record.done && record.kind == kind);
    let mut took: Vec<Millis> =
        alike.take(SAMPLES_MAX).map(|record| record.ended.since(record.began)).collect();
    took.sort_unstable();
    took.get(took.len() / 2).copied()
}
