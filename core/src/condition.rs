//! Whether the condition of an operation's current step is true.

use crate::assign::{proof, task_key};
use crate::assignment::{AppState, Needs, Run, TaskPhase, TaskResult};
use crate::fence::{Covers, is_out};
use crate::ids::{Generation, NodeId};
use crate::lost;
use crate::operation::{Blocked, Bring, Operation, Request, Step};
use crate::quiet;
use crate::remember::output;
use crate::rule::Rule;
use crate::single;
use crate::state::{Fleet, Node};
use crate::traffic;
use crate::upgrade::DIGEST;

/// What the condition of a step says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It is true.
    Met,
    /// It is not true yet, and is expected to become true by itself; on whom and for what it waits.
    Wait(Vec<Wait>),
    /// It will not become true by itself.
    Stuck(Blocked),
    /// The task's agent died in the middle: another attempt may begin.
    Again,
    /// The operation cannot be done; nothing has been changed.
    Hopeless(String),
}

/// One thing that an operation waits for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Wait {
    /// On which node.
    pub node: Option<NodeId>,
    /// For what, in words.
    pub what: String,
}

fn wait(node: Option<&NodeId>, what: &str) -> Wait {
    Wait { node: node.cloned(), what: what.to_owned() }
}

/// What stands against an exclusive step at this moment: a node that must be stopped and is not proven so, a foreign
/// process, or a process of an earlier holder.
pub fn breach(fleet: &Fleet, operation: &Operation) -> Option<(NodeId, String)> {
    let wanted = crate::assign::wanted(fleet, operation);
    for (name, node) in &fleet.nodes {
        let must_stop = wanted.get(name) == Some(&Run::Stop);
        if !must_stop
            && Rule::ForeignBlocks.holds()
            && let Some(what) = foreign(node)
        {
            return Some((name.clone(), what));
        }
        if must_stop && !is_out(fleet, operation, node) && !being_stopped(operation, name) {
            let what = match node.observed.as_ref().map(|seen| &seen.app) {
                Some(app) if app.may_run() => {
                    let by = node.observed.as_ref().and_then(|seen| seen.by_hand.clone());
                    by.unwrap_or_else(|| "its app runs although it must be stopped".to_owned())
                }
                Some(AppState::Crashed(_)) => {
                    "its app ended by itself, which does not prove it stopped".to_owned()
                }
                _ if node.fences.values().any(|fence| fence.up && fence.holds) => {
                    "it is fenced from the database only, and the operation may change more".to_owned()
                }
                _ => "it is not known to be stopped".to_owned(),
            };
            return Some((name.clone(), foreign(node).unwrap_or(what)));
        }
        let own = |token| operation.token == Some(token);
        if let Some(token) =
            node.observed.iter().flat_map(|seen| seen.holders.iter().copied()).find(|token| !own(*token))
        {
            return Some((
                name.clone(),
                format!("a process of an earlier holder (token {token}) still runs"),
            ));
        }
    }
    None
}

/// Whether a node's agent has answered since the operation began, or has nothing to answer because its app is stopped.
pub(crate) fn answers(node: &Node, began: Generation) -> bool {
    let seen = node.observed.as_ref().is_some_and(|seen| seen.applied >= began);
    seen || node.stop_evidence.is_some() && node.assumed.is_none()
}

/// Whether the current step is what stops the node: it waits for the proof itself.
fn being_stopped(operation: &Operation, name: &NodeId) -> bool {
    matches!(operation.step(), Some(Step::Stopped { nodes }) if nodes.contains(name))
}

/// A node's foreign processes in words.
pub fn foreign(node: &Node) -> Option<String> {
    let found = node.observed.as_ref()?.foreign.first()?;
    Some(format!("foreign process {} of {} runs the app: {}", found.pid, found.owner, found.command))
}

/// Who runs the app or uses its database without being of the fleet, and which node saw it.
fn stranger(fleet: &Fleet) -> Option<(NodeId, String)> {
    first(fleet, foreign).filter(|_| Rule::ForeignBlocks.holds()).or_else(|| first(fleet, session))
}

fn first(fleet: &Fleet, what: fn(&Node) -> Option<String>) -> Option<(NodeId, String)> {
    fleet.nodes.iter().find_map(|(name, node)| Some((name.clone(), what(node)?)))
}

/// Sessions count until the grant only: from then on the holder's own tools have some.
fn session(node: &Node) -> Option<String> {
    let found = node.observed.as_ref()?.sessions.first().filter(|_| Rule::SessionBlocks.holds())?;
    Some(format!(
        "{found} is of no node of the fleet: end it, or name it under known_sessions in each node's agent configuration"
    ))
}

/// Whether everything outside the solo node is still as the exclusive part needs it.
pub fn standing(fleet: &Fleet, operation: &Operation) -> Option<(NodeId, String)> {
    if operation.exclusive() { breach(fleet, operation) } else { None }
}

/// The condition of the current step; `settled` says whether every node was heard since the last promotion.
pub fn condition(fleet: &Fleet, operation: &Operation, settled: bool) -> Condition {
    let Some(step) = operation.step() else { return Condition::Met };
    let left = |name: &&NodeId| operation.takes_part(name);
    match step {
        Step::Reachable { nodes, absent_ok } => {
            let began = operation.began.unwrap_or_default();
            let leaves = matches!(operation.request, Request::Remove { .. });
            let reached = |name: &NodeId| {
                fleet.agent(name).is_some_and(|node| {
                    let off = node.assumed.is_some() || leaves && is_out(fleet, operation, node);
                    answers(node, began) || off && !absent_ok
                })
            };
            let missing: Vec<&NodeId> = nodes.iter().filter(left).filter(|name| !reached(name)).collect();
            if missing.is_empty() && nodes.iter().any(|name| operation.takes_part(name)) {
                // Whoever would block the grant is named before anything is stopped for it.
                return match stranger(fleet).filter(|_| operation.plan.contains(&Step::Granted)) {
                    Some((node, what)) => Condition::Stuck(Blocked::Breach(node, what)),
                    None => Condition::Met,
                };
            }
            if missing.is_empty() {
                return Condition::Hopeless(
                    "every node that it needs is assumed to be stopped, or fenced".into(),
                );
            }
            waiting(operation, &missing, "its agent to answer", !absent_ok)
        }
        Step::Checked { nodes, .. } => checked(fleet, operation, nodes),
        Step::Drained { nodes } => traffic::is_drained(fleet, operation, nodes),
        Step::Quiet { nodes } => quiet::is_quiet(fleet, operation, nodes),
        Step::InService => traffic::is_in_service(fleet, operation),
        Step::Empty { node } => match fleet.nodes.get(node).and_then(|node| node.observed.as_ref()) {
            Some(seen) if seen.applied >= operation.began.unwrap_or_default() => match &seen.database {
                Some(database) if database.empty => Condition::Met,
                Some(database) => {
                    let version = database.version.as_ref().map_or("none".to_owned(), ToString::to_string);
                    Condition::Hopeless(format!(
                        "the database of {node} is not empty (version {version}): start it with soloist start"
                    ))
                }
                None => waiting(operation, &[node], "the database to answer", true),
            },
            _ => waiting(operation, &[node], "its agent to look at the database", true),
        },
        Step::Stopped { nodes } => {
            // Nobody would lift the fence of a node that has left.
            let leaves = matches!(operation.request, Request::Remove { .. });
            let shut = |node: &Node| leaves && node.fences.contains_key(&Covers::Database);
            let stopped = |name: &&NodeId| {
                fleet.nodes.get(*name).is_some_and(|node| is_out(fleet, operation, node) && !shut(node))
            };
            let missing: Vec<&NodeId> = nodes.iter().filter(left).filter(|name| !stopped(name)).collect();
            if missing.is_empty() {
                return Condition::Met;
            }
            for name in &missing {
                if let Some(what) = fleet.nodes.get(*name).and_then(foreign) {
                    return Condition::Stuck(Blocked::Breach((*name).clone(), what));
                }
            }
            waiting(operation, &missing, "the app to stop", true)
        }
        Step::Granted if let Some(why) = single::hinders(fleet, operation) => Condition::Hopeless(why),
        Step::Granted => match breach(fleet, operation).or_else(|| first(fleet, session)) {
            None => Condition::Met,
            Some((node, what)) => Condition::Stuck(Blocked::Breach(node, what)),
        },
        Step::Released => match &operation.holder {
            Some(holder) if holder.released.is_some() => Condition::Met,
            Some(holder) if holder.lost => Condition::Stuck(Blocked::HolderLost),
            Some(holder) if holder.accepted => Condition::Wait(vec![wait(None, "the holder's work to end")]),
            _ => Condition::Wait(vec![wait(None, "the holder to accept the grant")]),
        },
        Step::Task { nodes, .. } => task(fleet, operation, nodes),
        Step::Serving { nodes, bring } => serving(fleet, operation, nodes, *bring, settled),
        Step::Converted { node, .. } => {
            let found = fleet.nodes.get(node);
            if found.is_some_and(|node| node.acknowledged() && is_serving(node)) {
                return Condition::Met;
            }
            trouble(fleet, operation, node)
                .unwrap_or_else(|| waiting(operation, &[node], "its agent to take note", true))
        }
        Step::Proved { nodes, .. } => {
            let asked = proof(operation);
            let proved = |name: &&NodeId| {
                let seen = fleet.nodes.get(*name).and_then(|node| node.observed.as_ref());
                seen.is_some_and(|seen| seen.proved == asked && asked.is_some())
            };
            let missing: Vec<&NodeId> = nodes.iter().filter(left).filter(|name| !proved(name)).collect();
            if missing.is_empty() {
                return Condition::Met;
            }
            for name in &missing {
                if let Some(stuck) = trouble(fleet, operation, name) {
                    return stuck;
                }
            }
            waiting(operation, &missing, "a proof of what is loaded", true)
        }
        Step::Approved => match operation.approved {
            Some(true) => Condition::Met,
            // Refused: the operation turns back, see `advance`.
            Some(false) | None => Condition::Stuck(Blocked::Approval),
        },
        Step::HolderGone => lost::gone(fleet, operation),
    }
}

fn checked(fleet: &Fleet, operation: &Operation, nodes: &[NodeId]) -> Condition {
    let mut missing = Vec::new();
    for node in nodes.iter().filter(|node| operation.takes_part(node)) {
        match result(fleet, operation, node, TaskPhase::Check) {
            Some(TaskResult::Done) => {}
            Some(TaskResult::Failed(why)) if nodes.len() == 1 => return Condition::Hopeless(why),
            Some(TaskResult::Failed(why)) => return Condition::Hopeless(format!("{node}: {why}")),
            Some(TaskResult::Interrupted) | None => missing.push(node),
        }
    }
    if !missing.is_empty() {
        return waiting(operation, &missing, "the task's check", true);
    }
    differ(fleet, nodes).map_or(Condition::Met, Condition::Hopeless)
}

/// In which way what nodes say of the same version of the code differs.
fn differ(fleet: &Fleet, nodes: &[NodeId]) -> Option<String> {
    let found = nodes.iter().filter_map(|node| Some((node, output(fleet, node)?.get(DIGEST)?)));
    let found: Vec<(&NodeId, &String)> = found.collect();
    let (first, digest) = found.first()?;
    let (other, different) = found.iter().find(|(_, other)| other != digest)?;
    Some(format!(
        "{first} and {other} do not have the same files for that version ({digest}, {different}): fetch it anew on one of them"
    ))
}

/// A task of several nodes has ended when it has ended on each of them: only then is it known that nothing of it runs.
fn task(fleet: &Fleet, operation: &Operation, nodes: &[NodeId]) -> Condition {
    let (mut missing, mut failed, mut interrupted) = (Vec::new(), None, false);
    for node in nodes.iter().filter(|node| operation.takes_part(node)) {
        match result(fleet, operation, node, TaskPhase::Run) {
            Some(TaskResult::Done) => {}
            Some(TaskResult::Failed(why)) => failed = failed.or(Some((node, why))),
            Some(TaskResult::Interrupted) => interrupted = true,
            None => missing.push(node),
        }
    }
    match (missing.as_slice(), failed, interrupted) {
        ([], Some((node, why)), _) => Condition::Stuck(Blocked::TaskFailed(node.clone(), why)),
        // Where it must run inside an app that has failed, another attempt would never begin.
        ([], None, true) => broken(fleet, operation, nodes).map_or(Condition::Again, Condition::Stuck),
        ([], None, false) => Condition::Met,
        (missing, ..) => waiting(operation, missing, "the task", true),
    }
}

/// The node whose app has failed, if the current task runs inside the app.
fn broken(fleet: &Fleet, operation: &Operation, nodes: &[NodeId]) -> Option<Blocked> {
    let Some(Step::Task { task, .. }) = operation.step() else { return None };
    let inside = task.needs == Needs::Serving;
    let mut nodes = nodes.iter().filter(|node| inside && operation.takes_part(node));
    nodes.find_map(|node| match &fleet.nodes.get(node)?.observed.as_ref()?.app {
        AppState::Failed(why) => Some(Blocked::TaskFailed(node.clone(), why.clone())),
        _ => None,
    })
}

fn serving(fleet: &Fleet, operation: &Operation, nodes: &[NodeId], bring: Bring, settled: bool) -> Condition {
    let nodes: Vec<&NodeId> = nodes.iter().filter(|name| operation.takes_part(name)).collect();
    if bring == Bring::Migrate && operation.right.is_none() && !settled {
        return Condition::Wait(vec![wait(None, "every agent to be heard by the new leader")]);
    }
    if !operation.clearing.is_empty() {
        let clearing: Vec<&NodeId> = operation.clearing.iter().collect();
        return waiting(operation, &clearing, "the last attempt to end", true);
    }
    let ready = |name: &&NodeId| {
        fleet
            .nodes
            .get(*name)
            .is_some_and(|node| node.acknowledged() && (is_serving(node) || !Rule::FirstServes.holds()))
            && (bring != Bring::Migrate || upgraded(fleet, operation, name))
    };
    let missing: Vec<&NodeId> = nodes.into_iter().filter(|name| !ready(name)).collect();
    if missing.is_empty() {
        return Condition::Met;
    }
    for name in &missing {
        if let Some(stuck) = trouble(fleet, operation, name) {
            return stuck;
        }
    }
    waiting(operation, &missing, "the app to serve", true)
}

/// Whether a node that was to upgrade says that code and database have the wanted version.
fn upgraded(fleet: &Fleet, operation: &Operation, name: &NodeId) -> bool {
    let Request::Upgrade { to, .. } = &operation.request else { return true };
    let seen = fleet.nodes.get(name).and_then(|node| node.observed.as_ref());
    seen.is_some_and(|seen| {
        let database = seen.database.as_ref().and_then(|database| database.version.as_ref());
        seen.code.as_ref() == Some(to) && database == Some(to)
    })
}

fn is_serving(node: &Node) -> bool {
    node.observed.as_ref().is_some_and(|seen| seen.app == AppState::Serving)
}

/// What keeps a node from serving and does not pass by itself.
fn trouble(fleet: &Fleet, operation: &Operation, name: &NodeId) -> Option<Condition> {
    if operation.absent.contains(name) {
        return None;
    }
    let node = fleet.nodes.get(name).filter(|node| node.acknowledged())?;
    let blocked = match &node.observed.as_ref()?.app {
        AppState::Refused(why) => Blocked::Refused(name.clone(), why.clone()),
        AppState::Failed(why) => Blocked::Failed(name.clone(), why.clone()),
        AppState::Crashed(how) => Blocked::Crashed(name.clone(), how.clone()),
        AppState::Stopped | AppState::Starting | AppState::Serving | AppState::Stopping => return None,
    };
    Some(Condition::Stuck(blocked))
}

fn result(fleet: &Fleet, operation: &Operation, node: &NodeId, phase: TaskPhase) -> Option<TaskResult> {
    let (key, seen_phase, result) = fleet.nodes.get(node)?.observed.as_ref()?.task.as_ref()?;
    (*key == task_key(operation) && *seen_phase == phase).then(|| result.clone())
}

pub(crate) fn waiting(operation: &Operation, nodes: &[&NodeId], what: &str, needed: bool) -> Condition {
    let absent: Vec<NodeId> =
        nodes.iter().filter(|name| operation.absent.contains(name)).map(|name| (*name).clone()).collect();
    if needed && !absent.is_empty() {
        return Condition::Stuck(Blocked::Unreachable(absent));
    }
    if operation.overdue {
        return Condition::Stuck(Blocked::Overdue);
    }
    Condition::Wait(nodes.iter().map(|name| wait(Some(*name), what)).collect())
}
