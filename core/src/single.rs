//! Nodes whose app runs in several processes, as the solo node of an operation.
//!
//! ```text
//!  reached ─► stop the solo node ─► start it as one process ─► stop the others ─► granted ─► … ─► start the others
//!     ─► stop the solo node ─► start it in several
//! ```
//!
//! What is changed inside an app is changed in the process that answers; its siblings would go on with what they have loaded. A
//! run with the right to install or upgrade is one process by itself, and goes back in the same way.

use crate::assign::wanted;
use crate::assignment::Run;
use crate::ids::{NodeId, OperationId};
use crate::operation::{Bring, Course, Operation, Step};
use crate::plan::plan;
use crate::rule::Rule;
use crate::state::{Desired, Fleet};

/// Whether a node's app is known to run in several processes.
fn several(fleet: &Fleet, node: &NodeId) -> bool {
    let seen = fleet.nodes.get(node).and_then(|node| node.observed.as_ref());
    seen.and_then(|seen| seen.processes).is_some_and(|processes| processes > 1)
}

/// A plan in which the solo node runs as one process while it is alone, where it would run in several.
pub(crate) fn with_single(fleet: &Fleet, solo: Option<&NodeId>, steps: Vec<Step>) -> Vec<Step> {
    let Some(solo) = solo.filter(|solo| several(fleet, solo) && Rule::OneProcess.holds()) else {
        return steps;
    };
    let takes_down = |step: &Step| matches!(step, Step::Stopped { .. } | Step::Granted);
    let stops_it = |step: &Step| matches!(step, Step::Stopped { nodes } if nodes.contains(solo));
    let alone = steps.contains(&Step::Granted);
    let first = steps.iter().position(takes_down).filter(|at| alone && !steps.get(*at).is_some_and(stops_it));
    let mut planned = Vec::new();
    let mut single = false;
    for (at, step) in steps.into_iter().enumerate() {
        if first == Some(at) {
            planned.push(Step::Stopped { nodes: vec![solo.clone()] });
            planned.push(Step::Serving { nodes: vec![solo.clone()], bring: Bring::Single });
            single = true;
        }
        planned.push(stays(step, solo, &mut single));
    }
    if single { end(fleet, solo, planned) } else { planned }
}

/// The steps that end an operation early, where the solo node runs as one process for it.
pub(crate) fn back_to_several(fleet: &Fleet, operation: &Operation, steps: Vec<Step>) -> Vec<Step> {
    let runs = wanted(fleet, operation);
    let is_single = |solo: &&NodeId| runs.get(*solo) == Some(&Run::Single) && goes_back(operation);
    let Some(solo) = operation.solo.as_ref().filter(is_single) else { return steps };
    let mut single = true;
    let steps: Vec<Step> = steps.into_iter().map(|step| stays(step, solo, &mut single)).collect();
    if single { end(fleet, solo, steps) } else { steps }
}

/// A step in which the solo node stays one process, where it is one.
fn stays(step: Step, solo: &NodeId, single: &mut bool) -> Step {
    match step {
        Step::Stopped { nodes } => {
            *single &= !nodes.contains(solo);
            Step::Stopped { nodes }
        }
        Step::Serving { nodes, bring: Bring::Migrate } => {
            *single |= nodes.contains(solo);
            Step::Serving { nodes, bring: Bring::Migrate }
        }
        Step::Serving { nodes, bring: Bring::Plain } if *single && nodes.contains(solo) => {
            Step::Serving { nodes, bring: Bring::Single }
        }
        Step::Converted { node, .. } => Step::Converted { single: *single && node == *solo, node },
        step => step,
    }
}

/// Brings the solo node back to several processes, when the others serve, and proves of it what they have proved.
fn end(fleet: &Fleet, solo: &NodeId, mut steps: Vec<Step>) -> Vec<Step> {
    if fleet.desired == Desired::Stop && !steps.iter().any(|step| matches!(step, Step::Serving { .. })) {
        return steps;
    }
    let one = vec![solo.clone()];
    let proof = steps.iter().rev().find_map(|step| match step {
        Step::Proved { plugin, loaded, .. } => Some((plugin.clone(), *loaded)),
        _ => None,
    });
    steps.push(Step::Stopped { nodes: one.clone() });
    steps.push(Step::Serving { nodes: one.clone(), bring: Bring::Plain });
    steps.extend(proof.map(|(plugin, loaded)| Step::Proved { nodes: one, plugin, loaded, restarted: true }));
    steps
}

/// Plans anew what an operation has only now learned: that its solo node runs in several processes.
pub(crate) fn learn(fleet: &mut Fleet, id: &OperationId) {
    let Some(operation) = fleet.operation(id).filter(|operation| operation.cursor == 0) else { return };
    let known = |step: &Step| matches!(step, Step::Serving { bring: Bring::Single, .. });
    let solo = operation.solo.clone().filter(|solo| several(fleet, solo));
    if solo.is_none() || operation.plan.iter().any(known) {
        return;
    }
    // Nothing was done yet, and what else it depends on has not changed.
    if let Ok((steps, again)) = plan(fleet, operation)
        && again == solo
        && let Some(operation) = fleet.operation_mut(id)
    {
        operation.plan = steps;
    }
}

/// Whether whatever runs on the solo node now must be one process.
pub(crate) fn is_needed(operation: &Operation) -> bool {
    operation.exclusive() && operation.course == Course::Forward && Rule::OneProcess.holds()
}

/// Why nothing may be changed inside the app of the solo node: it has come to several processes since that was looked at.
pub(crate) fn hinders(fleet: &Fleet, operation: &Operation) -> Option<String> {
    let runs = wanted(fleet, operation);
    let solo = operation.solo.as_ref().filter(|solo| runs.get(*solo) == Some(&Run::Plain))?;
    let several = several(fleet, solo) && Rule::OneProcess.holds();
    several.then(|| format!("{solo} was set to several processes meanwhile: try again"))
}

/// Whether the operation has made the solo node one process, or begins to, and it would have been several.
pub(crate) fn goes_back(operation: &Operation) -> bool {
    let at = usize::try_from(operation.cursor).unwrap_or(usize::MAX);
    let single = |step: &Step| match step {
        Step::Serving { bring: Bring::Single, .. } => true,
        Step::Converted { single, .. } => *single,
        _ => false,
    };
    operation.plan.iter().take(at.saturating_add(1)).any(single)
}
