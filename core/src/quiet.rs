//! Whether what runs inside a node's app by itself (workflows, imports, exports) has ended before the app is stopped.
//!
//! ```text
//!  drained ─► quiet: asked, and looked at again and again ─► stopped ─► what was cut off is told
//!                      │ quiet_timeout passes
//!                      └──────────────────────────────────────►
//! ```
//!
//! The deadline is no block: whoever wants to wait longer says so in the policy. Ways back do not wait: there speed counts.

use std::collections::BTreeMap;

use crate::assignment::Observed;
use crate::condition::{Condition, Wait, waiting};
use crate::ids::NodeId;
use crate::operation::{Operation, Step};
use crate::policy::TEXT_MAX;
use crate::rule::Rule;
use crate::state::{Desired, Fleet, Node};
use crate::time::Millis;

/// Most things that a report names as under way, or as cut off.
pub const WORK_MAX: usize = 16;
/// Longest name of such a thing, in characters.
pub const WORK_TEXT_MAX: usize = 200;
/// How many of them a wait names.
const NAMED_MAX: usize = 3;

/// A plan that waits for what is under way on nodes that run before it stops them.
pub(crate) fn with_quiet(fleet: &Fleet, steps: Vec<Step>) -> Vec<Step> {
    if fleet.policy.quiet_timeout == Millis(0) {
        return steps;
    }
    let runs = |name: &&NodeId| {
        fleet.desired == Desired::Run && fleet.nodes.get(*name).is_some_and(|node| node.admitted)
    };
    let mut planned = Vec::new();
    for step in steps {
        if let Step::Stopped { nodes } = &step {
            let nodes: Vec<NodeId> = nodes.iter().filter(runs).cloned().collect();
            if !nodes.is_empty() {
                planned.push(Step::Quiet { nodes });
            }
        }
        planned.push(step);
    }
    planned
}

/// Whether nothing is known to be under way on these nodes, or they were given the time for it.
pub(crate) fn is_quiet(fleet: &Fleet, operation: &Operation, nodes: &[NodeId]) -> Condition {
    if operation.overdue || !Rule::QuietIsAwaited.holds() {
        return Condition::Met;
    }
    let busy = |name: &NodeId| {
        let node = fleet.nodes.get(name).filter(|_| operation.takes_part(name))?;
        let what = under_way(node)?;
        Some(Wait { node: Some(name.clone()), what })
    };
    let waits: Vec<Wait> = nodes.iter().filter_map(busy).collect();
    if waits.is_empty() {
        return Condition::Met;
    }
    let names: Vec<&NodeId> = waits.iter().filter_map(|wait| wait.node.as_ref()).collect();
    match waiting(operation, &names, "", false) {
        Condition::Wait(_) => Condition::Wait(waits),
        other => other,
    }
}

/// What a node is waited for, in words; `None` if it is quiet.
fn under_way(node: &Node) -> Option<String> {
    let Some(seen) = node.observed.as_ref().filter(|_| node.acknowledged()) else {
        return Some("its agent to look what is under way".into());
    };
    if !seen.app.may_run() {
        return None;
    }
    let Some(works) = &seen.under_way else { return Some("its agent to say what is under way".into()) };
    let more = works.len().saturating_sub(NAMED_MAX);
    let named = works.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match (works.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(format!("{named} to end")),
        (false, more) => Some(format!("{named} and {more} more to end")),
    }
}

/// What is told of each node when a step has ended that waited for quiet, or that stopped it.
pub(crate) fn found(fleet: &Fleet, operation: &Operation, step: &Step) -> BTreeMap<NodeId, String> {
    let text = |what: &str, works: &[String]| {
        let text: String = format!("{what}: {}", works.join("; ")).chars().take(TEXT_MAX).collect();
        (!works.is_empty()).then_some(text)
    };
    let of = |name: &NodeId| {
        let node = fleet.nodes.get(name)?;
        let seen = node.observed.as_ref()?;
        let text = match step {
            Step::Quiet { .. } => text("still under way", seen.under_way.as_deref().unwrap_or_default()),
            // What an earlier operation has cut off was told then.
            Step::Stopped { .. } if node.stop_since >= operation.began => text("cut off", &seen.cut),
            _ => None,
        };
        Some((name.clone(), text?))
    };
    match step {
        Step::Quiet { nodes } | Step::Stopped { nodes } => nodes.iter().filter_map(of).collect(),
        _ => BTreeMap::new(),
    }
}

/// What the last stop of a node has cut off, if this report is the first to say so.
pub(crate) fn newly_cut(before: Option<&Observed>, now: &Observed) -> Option<String> {
    let known = before.is_some_and(|before| before.cut == now.cut);
    let text: String = now.cut.join("; ").chars().take(TEXT_MAX).collect();
    (!known && !now.cut.is_empty()).then_some(text)
}

/// Names within the bounds of a report.
pub fn bounded(works: impl IntoIterator<Item = String>) -> Vec<String> {
    let clip = |text: String| text.chars().take(WORK_TEXT_MAX).collect();
    works.into_iter().take(WORK_MAX).map(clip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded() {
        let many = bounded((0..100).map(|_| "ä".repeat(1000)));
        assert_eq!((many.len(), many[0].chars().count()), (WORK_MAX, WORK_TEXT_MAX));
    }
}
