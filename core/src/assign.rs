//! What every node must be, as a function of the state.

use std::collections::BTreeMap;

use crate::assignment::{Assignment, Proof, Run, Spec, Task, TaskKey, TaskPhase};
use crate::ids::{Generation, NodeId};
use crate::operation::{Bring, Operation, Request, Step};
use crate::rule::Rule;
use crate::single;
use crate::state::{Desired, Fleet};
use crate::traffic::{drained, servers};
use crate::upgrade::holds;

/// How every node is to run while `operation` has the lock: the state before it, changed by each of its steps up to
/// and including the current one.
pub fn wanted(fleet: &Fleet, operation: &Operation) -> BTreeMap<NodeId, Run> {
    let mut wanted = at_rest(fleet);
    let end = usize::try_from(operation.cursor).unwrap_or(usize::MAX);
    for (at, step) in operation.plan.iter().enumerate().take_while(|(at, _)| *at <= end) {
        let current = at == end;
        match step {
            Step::Stopped { nodes } => set(&mut wanted, nodes, Run::Stop),
            Step::Serving { nodes, bring: Bring::Plain } => {
                set(&mut wanted, nodes, Run::Plain);
                if current {
                    set(&mut wanted, &operation.clearing, Run::Stop);
                }
            }
            Step::Serving { nodes, bring: Bring::Migrate } => {
                let run = operation.right.map_or(Run::Stop, Run::Migrate);
                if Rule::OneMigrate.holds() {
                    set(&mut wanted, nodes, run);
                } else {
                    wanted.values_mut().for_each(|value| *value = run);
                }
                if current {
                    set(&mut wanted, &operation.clearing, Run::Stop);
                }
            }
            Step::Serving { nodes, bring: Bring::Single } => set(&mut wanted, nodes, Run::Single),
            Step::Converted { node, single } => {
                let run = if *single { Run::Single } else { Run::Plain };
                set(&mut wanted, std::slice::from_ref(node), run);
            }
            Step::Reachable { .. }
            | Step::Checked { .. }
            | Step::Empty { .. }
            | Step::Drained { .. }
            | Step::Quiet { .. }
            | Step::Granted
            | Step::Released
            | Step::Task { .. }
            | Step::Proved { .. }
            | Step::Approved
            | Step::InService
            | Step::HolderGone => {}
        }
    }
    if let Some(run) = operation.solo.as_ref().and_then(|solo| wanted.get_mut(solo))
        && *run == Run::Plain
        && single::is_needed(operation)
    {
        // Also after a crash, whatever its settings have become.
        *run = Run::Single;
    }
    let left_out: Vec<NodeId> = operation.left_out.keys().cloned().collect();
    set(&mut wanted, &left_out, Run::Stop);
    set(&mut wanted, &fenced(fleet), Run::Stop);
    wanted
}

fn at_rest(fleet: &Fleet) -> BTreeMap<NodeId, Run> {
    let run = |admitted| if admitted && fleet.desired == Desired::Run { Run::Plain } else { Run::Stop };
    fleet.nodes.iter().map(|(name, node)| (name.clone(), run(node.admitted))).collect()
}

/// Nodes with a fence, also while it is being lifted: their apps would not reach what they need.
fn fenced(fleet: &Fleet) -> Vec<NodeId> {
    let fenced = fleet.nodes.iter().filter(|(_, node)| !node.fences.is_empty());
    fenced.map(|(name, _)| name.clone()).collect()
}

fn set(wanted: &mut BTreeMap<NodeId, Run>, nodes: &[NodeId], run: Run) {
    for node in nodes {
        if let Some(value) = wanted.get_mut(node) {
            *value = run;
        }
    }
}

/// What every agent must make true: those of nodes, and those of load balancers.
pub fn assign(fleet: &Fleet) -> BTreeMap<NodeId, Spec> {
    let mut specs = of_nodes(fleet);
    let spec = Spec { traffic: Some(servers(fleet, &specs)), ..Spec::default() };
    specs.extend(fleet.balancers.keys().map(|name| (name.clone(), spec.clone())));
    for (carrier, orders) in crate::fence::orders(fleet) {
        if let Some(spec) = specs.get_mut(&carrier) {
            spec.fences = orders;
        }
    }
    specs
}

fn of_nodes(fleet: &Fleet) -> BTreeMap<NodeId, Spec> {
    let by_hand = |name: &NodeId| fleet.nodes.get(name).is_some_and(|node| node.drained);
    let Some(operation) = fleet.current() else {
        let specs = at_rest(fleet).into_iter().map(|(name, run)| {
            let hold = by_hand(&name);
            (name, Spec { run, hold, grace: fleet.policy.grace, ..Spec::default() })
        });
        return specs.collect();
    };
    let drained = drained(operation);
    let mut specs: BTreeMap<NodeId, Spec> = wanted(fleet, operation)
        .into_iter()
        .map(|(name, run)| {
            let target = match (&operation.request, run) {
                (Request::Upgrade { to, .. }, Run::Migrate(_)) => Some(to.clone()),
                // The code of the app itself stays as it is.
                (Request::Packages { .. } | Request::Migrate { .. }, Run::Migrate(_)) => {
                    operation.from.clone()
                }
                _ => None,
            };
            let hold = holds(operation, &name) || drained.contains(&name) || by_hand(&name);
            (name, Spec { run, target, hold, grace: fleet.policy.grace, ..Spec::default() })
        })
        .collect();
    match operation.step() {
        Some(Step::Checked { nodes, task }) => {
            for node in nodes.iter().filter(|node| operation.takes_part(node)) {
                ask(&mut specs, node, operation, task.clone(), TaskPhase::Check);
            }
        }
        Some(Step::Task { nodes, task }) => {
            for node in nodes.iter().filter(|node| operation.takes_part(node)) {
                ask(&mut specs, node, operation, task.clone(), TaskPhase::Run);
            }
        }
        Some(Step::Proved { nodes, .. }) => {
            for (name, spec) in &mut specs {
                if nodes.contains(name) && operation.takes_part(name) {
                    spec.proof = proof(operation);
                }
            }
        }
        Some(Step::Quiet { nodes }) => {
            for (name, spec) in &mut specs {
                spec.quiet = nodes.contains(name) && operation.takes_part(name);
            }
        }
        Some(
            Step::Reachable { .. }
            | Step::Empty { .. }
            | Step::Drained { .. }
            | Step::Stopped { .. }
            | Step::Granted
            | Step::Released
            | Step::Serving { .. }
            | Step::Converted { .. }
            | Step::Approved
            | Step::InService
            | Step::HolderGone,
        )
        | None => {}
    }
    specs
}

fn ask(
    specs: &mut BTreeMap<NodeId, Spec>,
    node: &NodeId,
    operation: &Operation,
    call: crate::operation::TaskCall,
    phase: TaskPhase,
) {
    let Some(spec) = specs.get_mut(node) else { return };
    spec.task = Some(Task {
        key: task_key(operation),
        phase,
        needs: call.needs,
        name: call.name,
        params: call.params,
        checks: call.checks,
    });
}

/// Name of the current attempt of the current step.
pub fn task_key(operation: &Operation) -> TaskKey {
    TaskKey { operation: operation.id.clone(), step: operation.cursor, attempt: operation.attempt }
}

/// The proof that the current step asks for.
pub fn proof(operation: &Operation) -> Option<Proof> {
    let Some(Step::Proved { plugin, loaded, restarted, .. }) = operation.step() else { return None };
    let since = if *restarted { operation.changed } else { None };
    Some(Proof { plugin: plugin.clone(), loaded: *loaded, since })
}

/// Numbers what changed: every node whose spec differs from its assignment gets a new one.
pub fn renumber(fleet: &mut Fleet, index: u64) {
    let token = fleet.lock.token();
    let specs = assign(fleet);
    for (name, spec) in specs {
        let Some(node) = fleet.agent_mut(&name) else { continue };
        if node.assignment.spec == spec {
            continue;
        }
        if spec.run == Run::Stop {
            node.stop_since.get_or_insert(Generation(index));
        } else {
            node.stop_since = None;
            node.stop_evidence = None;
        }
        node.assignment = Assignment { generation: Generation(index), token, spec };
    }
}
