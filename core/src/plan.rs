//! From what was asked for to steps.

use crate::assignment::{AppState, Needs};
use crate::ids::NodeId;
use crate::operation::{Bring, Course, HoldMode, Operation, PluginChange, Request, Step, TaskCall};
use crate::order::{best, choose_solo, ordered};
use crate::packages;
use crate::quiet;
use crate::rule::Rule;
use crate::single;
use crate::state::{Backup, Desired, Fleet};
use crate::traffic;
use crate::upgrade;

/// The steps of an operation that is about to take the lock, with its solo node; or why it cannot begin.
pub fn plan(fleet: &Fleet, operation: &Operation) -> Result<(Vec<Step>, Option<NodeId>), String> {
    let (steps, solo) = work(fleet, operation)?;
    let steps = single::with_single(fleet, solo.as_ref(), steps);
    Ok((quiet::with_quiet(fleet, traffic::with_traffic(fleet, steps)?), solo))
}

/// The same without what makes one process of several, what keeps users away meanwhile, and what waits before a stop.
fn work(fleet: &Fleet, operation: &Operation) -> Result<(Vec<Step>, Option<NodeId>), String> {
    let all = ordered(fleet);
    if all.is_empty() {
        return Err("the fleet has no node: start an agent on each node first".into());
    }
    let needs_run = matches!(
        operation.request,
        Request::Hold { mode: HoldMode::Solo, .. }
            | Request::Plugin { .. }
            | Request::Backup { .. }
            | Request::Upgrade { .. }
            | Request::Packages { .. }
            | Request::Migrate { .. }
            | Request::Verify
            | Request::Restart { .. }
            | Request::Heal
    );
    if needs_run && fleet.desired == Desired::Stop {
        return Err(
            "the fleet was stopped while the operation waited: start it first with soloist start".into()
        );
    }
    if let Some(backup) = fleet.half_restored.as_ref().filter(|_| operation.request.needs_whole_database()) {
        return Err(format!("the restore of {backup} has not ended: the database may be half"));
    }
    let with_this_code = matches!(operation.request, Request::Packages { .. } | Request::Migrate { .. });
    if let Some(why) = upgrade::misfit(fleet).filter(|_| with_this_code) {
        return Err(why);
    }
    let parallel = fleet.policy.max_parallel;
    let host = operation.host_node.as_ref();
    match &operation.request {
        Request::Start { install: true, .. } => {
            let first = choose_solo(fleet, None, host).ok_or("the fleet has no node")?;
            let mut steps = vec![
                Step::Reachable { nodes: all.clone(), absent_ok: false },
                Step::Stopped { nodes: all.clone() },
                Step::Empty { node: first.clone() },
                Step::Granted,
                Step::Serving { nodes: vec![first.clone()], bring: Bring::Migrate },
                Step::Converted { node: first.clone(), single: false },
            ];
            steps.extend(bring_others(&all, &first, parallel));
            Ok((steps, Some(first)))
        }
        Request::Start { install: false, .. } => {
            let mut steps = vec![Step::Reachable { nodes: all.clone(), absent_ok: true }];
            // Who starts first is known only when it is known who is there: see `order_start`.
            steps.push(Step::Serving { nodes: all, bring: Bring::Plain });
            Ok((steps, None))
        }
        Request::Stop => Ok((vec![Step::Stopped { nodes: all }], None)),
        Request::Hold { mode: HoldMode::Solo, on } => {
            let solo = choose_solo(fleet, on.as_ref(), host).ok_or("the fleet has no node")?;
            let mut steps = take_down(&all, &solo, None);
            steps.push(Step::Released);
            steps.push(Step::Serving { nodes: vec![solo.clone()], bring: Bring::Plain });
            steps.extend(bring_others(&all, &solo, parallel));
            Ok((steps, Some(solo)))
        }
        Request::Hold { mode: HoldMode::AllStopped, on } => {
            let solo = choose_solo(fleet, on.as_ref(), host).ok_or("the fleet has no node")?;
            let mut steps = vec![
                Step::Reachable { nodes: all.clone(), absent_ok: false },
                Step::Stopped { nodes: all.clone() },
                Step::Granted,
                Step::Released,
            ];
            if fleet.desired == Desired::Run {
                steps.push(Step::Serving { nodes: vec![solo.clone()], bring: Bring::Plain });
                steps.extend(bring_others(&all, &solo, parallel));
            }
            Ok((steps, Some(solo)))
        }
        Request::Backup { on } => {
            let solo = choose_solo(fleet, on.as_ref(), host).ok_or("the fleet has no node")?;
            let task = upgrade::backup(&fleet.policy, operation);
            let mut steps = take_down(&all, &solo, Some(task.clone()));
            steps.push(Step::Task { nodes: vec![solo.clone()], task });
            steps.push(Step::Serving { nodes: vec![solo.clone()], bring: Bring::Plain });
            steps.extend(bring_others(&all, &solo, parallel));
            Ok((steps, Some(solo)))
        }
        Request::Restore { backup, code } => {
            let known = fleet.backups.get(backup).ok_or("the backup does not exist any more")?;
            let version = known.version.as_ref().filter(|_| *code);
            let node = holder(fleet, known)?;
            Ok((upgrade::restore(fleet, &all, &node, backup, version), Some(node)))
        }
        Request::RemoveBackup { backup } if fleet.half_restored.as_ref() == Some(backup) => {
            Err(format!("the restore of {backup} has not ended: it is still needed"))
        }
        Request::RemoveBackup { backup } => {
            let known = fleet.backups.get(backup);
            let node = holder(fleet, known.ok_or("the backup does not exist any more")?)?;
            let task = TaskCall::new("backup-remove", Needs::Nothing, &[("backup", backup.as_str())]);
            let steps = vec![
                Step::Reachable { nodes: vec![node.clone()], absent_ok: false },
                Step::Task { nodes: vec![node], task },
            ];
            Ok((steps, None))
        }
        Request::AcceptDatabase => Ok((Vec::new(), None)),
        Request::Upgrade { to, on, approve, .. } => {
            let solo = choose_solo(fleet, on.as_ref(), host).ok_or("the fleet has no node")?;
            let version = fleet.database.as_ref().and_then(|database| database.version.as_ref());
            if version == Some(to) {
                return Ok((upgrade::catch_up(fleet, to), None));
            }
            Ok((upgrade::steps(fleet, operation, &all, &solo, to, *approve), Some(solo)))
        }
        Request::Packages { changes, on } => {
            let solo = choose_solo(fleet, on.as_ref(), host).ok_or("the fleet has no node")?;
            Ok((packages::steps(fleet, operation, &all, &solo, changes), Some(solo)))
        }
        Request::Migrate { on } => {
            let solo = choose_solo(fleet, on.as_ref(), host).ok_or("the fleet has no node")?;
            Ok((upgrade::migrate(fleet, operation, &all, &solo), Some(solo)))
        }
        Request::Prepare { to } => Ok((upgrade::prepare(&all, to), None)),
        Request::Restart { nodes } => Ok((restart(fleet, nodes.as_deref())?, None)),
        Request::Heal => {
            let stale = fleet.nodes.iter().filter(|(_, node)| node.admitted && !node.stale().is_empty());
            let stale: Vec<NodeId> = stale.map(|(name, _)| name.clone()).collect();
            // Somebody may have mended it meanwhile: then there is nothing to do, and that is well.
            let steps = if stale.is_empty() { Vec::new() } else { restart(fleet, Some(&stale))? };
            Ok((steps, None))
        }
        Request::Remove { node } => Ok((remove(fleet, node)?, None)),
        Request::Verify => {
            let steps = upgrade::verify(fleet).ok_or("no node of the fleet should run at this moment")?;
            Ok((steps, None))
        }
        Request::Plugin { change, plugin, on } => {
            let solo = choose_solo(fleet, on.as_ref(), host).ok_or("the fleet has no node")?;
            Ok((plugin_steps(&all, &solo, *change, plugin, parallel), Some(solo)))
        }
    }
}

/// One running node after the other; the next one only when the last serves again, and is verified where there are checks.
fn restart(fleet: &Fleet, asked: Option<&[NodeId]>) -> Result<Vec<Step>, String> {
    let admitted = |name: &NodeId| fleet.nodes.get(name).is_some_and(|node| node.admitted);
    let mut nodes = ordered(fleet);
    nodes.retain(|name| admitted(name) && asked.is_none_or(|asked| asked.contains(name)));
    if nodes.is_empty() {
        return Err("none of these nodes runs at this moment: start the fleet with soloist start".into());
    }
    let verify = upgrade::verification(&fleet.policy, None);
    let mut steps = vec![Step::Reachable { nodes: nodes.clone(), absent_ok: false }];
    for node in nodes {
        steps.push(Step::Stopped { nodes: vec![node.clone()] });
        steps.extend(upgrade::start(&fleet.policy, &[node], &verify));
    }
    Ok(steps)
}

/// The node that has a backup.
fn holder(fleet: &Fleet, backup: &Backup) -> Result<NodeId, String> {
    let node = fleet.nodes.contains_key(&backup.node).then(|| backup.node.clone());
    node.ok_or_else(|| format!("the backup is on {}, which was removed from the fleet", backup.node))
}

/// A node is stopped in order before it leaves; of a load balancer somebody must have said that it sends nobody any more.
fn remove(fleet: &Fleet, node: &NodeId) -> Result<Vec<Step>, String> {
    match fleet.balancers.get(node) {
        None => {
            let one = vec![node.clone()];
            Ok(vec![Step::Reachable { nodes: one.clone(), absent_ok: false }, Step::Stopped { nodes: one }])
        }
        Some(balancer) if balancer.assumed.is_some() => Ok(Vec::new()),
        Some(_) => Err(format!(
            "{node} is a load balancer: take users from it and stop its agent; when that has been away for {}, say so with soloist node \
             assume-stopped {node}, and remove it then",
            fleet.policy.contact_timeout
        )),
    }
}

fn plugin_steps(
    all: &[NodeId],
    solo: &NodeId,
    change: PluginChange,
    plugin: &str,
    parallel: u32,
) -> Vec<Step> {
    let task = packages::switch(change, plugin);
    let proved = |nodes: Vec<NodeId>, restarted| Step::Proved {
        nodes,
        plugin: plugin.to_owned(),
        loaded: change.loaded(),
        restarted,
    };
    let mut steps = take_down(all, solo, Some(task.clone()));
    steps.push(Step::Task { nodes: vec![solo.clone()], task });
    steps.push(Step::Serving { nodes: vec![solo.clone()], bring: Bring::Plain });
    steps.push(proved(vec![solo.clone()], false));
    steps.extend(bring_others(all, solo, parallel));
    let others: Vec<NodeId> = all.iter().filter(|node| *node != solo).cloned().collect();
    if !others.is_empty() {
        steps.push(proved(others, true));
    }
    steps
}

/// Down to the solo node. Nothing is stopped before it is known that every node can be reached, that the solo node
/// serves, and that the task could be done.
fn take_down(all: &[NodeId], solo: &NodeId, task: Option<TaskCall>) -> Vec<Step> {
    let others: Vec<NodeId> = all.iter().filter(|node| *node != solo).cloned().collect();
    let mut steps = vec![
        Step::Reachable { nodes: all.to_vec(), absent_ok: false },
        Step::Serving { nodes: vec![solo.clone()], bring: Bring::Plain },
    ];
    steps.extend(task.map(|task| Step::Checked { nodes: vec![solo.clone()], task }));
    if !others.is_empty() {
        steps.push(Step::Stopped { nodes: others });
    }
    steps.push(Step::Granted);
    steps
}

fn bring_others(all: &[NodeId], first: &NodeId, parallel: u32) -> Vec<Step> {
    let others: Vec<NodeId> = all.iter().filter(|node| *node != first).cloned().collect();
    bring_all(&others, parallel)
}

fn bring_all(nodes: &[NodeId], parallel: u32) -> Vec<Step> {
    let size = usize::try_from(parallel.max(1)).unwrap_or(1);
    nodes.chunks(size).map(|nodes| Step::Serving { nodes: nodes.to_vec(), bring: Bring::Plain }).collect()
}

/// The rest of a plain start once it is known who is there: running nodes first, then one parked node that must
/// serve before the others start. Planned anew when a node turns out to be absent, so that there is always a first.
pub fn order_start(fleet: &Fleet, operation: &Operation) -> Vec<Step> {
    let bring = if Rule::MigrateNeedsIntent.holds() { Bring::Plain } else { Bring::Migrate };
    let done = usize::try_from(operation.cursor).unwrap_or(usize::MAX);
    let started = |name: &NodeId| {
        operation
            .plan
            .iter()
            .take(done)
            .any(|step| matches!(step, Step::Serving { nodes, .. } if nodes.contains(name)))
    };
    let runs = |name: &&NodeId| started(name) || fleet.nodes.get(*name).is_some_and(|node| node.admitted);
    let mut there = ordered(fleet);
    there.retain(|node| operation.takes_part(node));
    let running: Vec<NodeId> = there.iter().filter(runs).cloned().collect();
    let parked: Vec<NodeId> = there.iter().filter(|name| !runs(name)).cloned().collect();
    let mut steps = Vec::new();
    if !running.is_empty() {
        steps.push(Step::Serving { nodes: running, bring: Bring::Plain });
        steps.extend(bring_all(&parked, fleet.policy.max_parallel));
        traffic::close_traffic(fleet, &mut steps);
        return steps;
    }
    if let Some(first) = best(fleet, &parked) {
        steps.push(Step::Serving { nodes: vec![first.clone()], bring });
        steps.extend(bring_others(&parked, &first, fleet.policy.max_parallel));
    }
    traffic::close_traffic(fleet, &mut steps);
    steps
}

/// The steps that end an operation early on the given course; `harm` says that a lost holder's work must be made
/// harmless first.
pub fn ending(fleet: &Fleet, operation: &Operation, course: Course, harm: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    if harm {
        steps.push(Step::HolderGone);
    }
    match course {
        Course::Forward => {}
        Course::Rollback => match (&operation.request, &operation.solo) {
            (Request::Plugin { plugin, .. }, Some(solo)) => {
                steps.extend(packages::off(solo, plugin));
                let down = fleet.nodes.iter().filter(|(_, node)| node.admitted).map(|(name, _)| name.clone());
                steps.extend(bring_others(&down.collect::<Vec<_>>(), solo, fleet.policy.max_parallel));
            }
            _ => steps.extend(upgrade::back(fleet, operation)),
        },
        Course::Settle => steps.push(Step::Stopped { nodes: unsettled(fleet, operation) }),
        Course::Restore => {
            let solo = operation.solo.clone();
            if harm {
                // What the holder had begun inside the app ends with the app's process.
                steps.extend(solo.clone().map(|solo| Step::Stopped { nodes: vec![solo] }));
            }
            steps.extend(solo.iter().filter_map(|solo| upgrade::without_marker(operation, solo)));
            if fleet.desired == Desired::Run {
                let down: Vec<NodeId> = fleet
                    .nodes
                    .iter()
                    .filter(|(_, node)| node.admitted)
                    .map(|(name, _)| name.clone())
                    .collect();
                let first = solo.filter(|solo| down.contains(solo)).or_else(|| down.first().cloned());
                if let Some(first) = first {
                    steps.push(Step::Serving { nodes: vec![first.clone()], bring: Bring::Plain });
                    steps.extend(bring_others(&down, &first, fleet.policy.max_parallel));
                }
            }
        }
    }
    if course == Course::Settle { steps } else { single::back_to_several(fleet, operation, steps) }
}

/// Nodes that do not plainly serve: what settling an operation must stop.
fn unsettled(fleet: &Fleet, operation: &Operation) -> Vec<NodeId> {
    let wanted = crate::assign::wanted(fleet, operation);
    let plainly_serves = |name: &NodeId| {
        wanted.get(name).is_some_and(|run| run.plainly())
            && fleet.nodes.get(name).is_some_and(|node| {
                node.acknowledged() && matches!(&node.observed, Some(seen) if seen.app == AppState::Serving)
            })
    };
    fleet.nodes.keys().filter(|name| !plainly_serves(name)).cloned().collect()
}
