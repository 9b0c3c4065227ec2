//! Upgrades, the way back, and what belongs to them.
//!
//! ```text
//!  reach, check code on all and the backup ─► stop all ─► granted ─► backup ─► code of one ─► start it with the right ─► plain
//!     ─► verified ─► (approved) ─► code of the others ─► start them ─► verified
//!                      │ fails, is refused
//!                      ▼
//!  stop all ─► granted ─► restore, if the right was given ─► old code ─► start one ─► verified ─► start the others
//! ```
//!
//! Going back happens by itself only while no user can have written since the backup.

use std::collections::BTreeMap;

use crate::assignment::Needs;
use crate::ids::{BackupId, NodeId, Version};
use crate::operation::{Bring, Course, Operation, Request, Step, TaskCall};
use crate::packages;
use crate::policy::{Policy, Traffic};
use crate::state::{Desired, Fleet};
use crate::traffic::may_be_given;

/// Name of the task that makes a version of the code current on a node. Its check says whether that could be done.
pub const RELEASE: &str = "release";
/// Name of the task that fetches a version of the code; only its check is ever asked for.
pub const PREPARE: &str = "prepare";
/// Name of the task that verifies a node.
pub const VERIFY: &str = "verify";
/// What a node says of a version of the code that it has: nodes with different ones are not upgraded together.
pub const DIGEST: &str = "digest";

fn call(name: &str, needs: Needs, params: &[(&str, &str)]) -> TaskCall {
    let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let params = params.collect::<BTreeMap<_, _>>();
    TaskCall { name: name.to_owned(), needs, params, checks: Vec::new() }
}

fn release(version: &Version) -> TaskCall {
    call(RELEASE, Needs::Stopped, &[("version", &version.0)])
}

fn verification(policy: &Policy, version: Option<&Version>) -> TaskCall {
    let mut task = call(VERIFY, Needs::Serving, &[]);
    task.params.extend(version.map(|version| ("version".to_owned(), version.0.clone())));
    task.checks.clone_from(&policy.checks);
    task
}

/// The task that makes a backup with the operation's name.
pub(crate) fn backup(policy: &Policy, operation: &Operation) -> TaskCall {
    let keep = policy.keep_backups.max(1).to_string();
    let mut task = call("backup", Needs::Nothing, &[("backup", operation.id.as_str()), ("keep", &keep)]);
    task.params.extend(policy.uploads.map(|uploads| ("uploads".to_owned(), uploads.word().to_owned())));
    task
}

/// The plan of an upgrade.
pub(crate) fn steps(
    fleet: &Fleet,
    operation: &Operation,
    all: &[NodeId],
    solo: &NodeId,
    to: &Version,
    approve: bool,
) -> Vec<Step> {
    let policy = &fleet.policy;
    let others: Vec<NodeId> = all.iter().filter(|node| *node != solo).cloned().collect();
    let one = vec![solo.clone()];
    let backup = backup(policy, operation);
    let mut steps = vec![
        Step::Reachable { nodes: all.to_vec(), absent_ok: false },
        Step::Checked { nodes: all.to_vec(), task: release(to) },
        Step::Checked { nodes: one.clone(), task: backup.clone() },
        Step::Stopped { nodes: all.to_vec() },
        Step::Granted,
        Step::Task { nodes: one.clone(), task: backup },
        Step::Task { nodes: one.clone(), task: release(to) },
        Step::Serving { nodes: one.clone(), bring: Bring::Migrate },
        Step::Converted { node: solo.clone() },
        Step::Task { nodes: one, task: verification(policy, Some(to)) },
    ];
    if approve {
        steps.push(Step::Approved);
    }
    if !others.is_empty() {
        steps.push(Step::Task { nodes: others.clone(), task: release(to) });
        steps.extend(start(policy, &others, Some(to)));
    }
    steps
}

/// The plan that runs the migrations that are due, with the code as it is.
pub(crate) fn migrate(fleet: &Fleet, operation: &Operation, all: &[NodeId], solo: &NodeId) -> Vec<Step> {
    let (policy, from) = (&fleet.policy, operation.from.as_ref());
    let others: Vec<NodeId> = all.iter().filter(|node| *node != solo).cloned().collect();
    let one = vec![solo.clone()];
    let backup = backup(policy, operation);
    let mut steps = vec![
        Step::Reachable { nodes: all.to_vec(), absent_ok: false },
        Step::Checked { nodes: one.clone(), task: backup.clone() },
        Step::Stopped { nodes: all.to_vec() },
        Step::Granted,
        Step::Task { nodes: one.clone(), task: backup },
        Step::Serving { nodes: one.clone(), bring: Bring::Migrate },
        Step::Converted { node: solo.clone() },
        Step::Task { nodes: one, task: verification(policy, from) },
    ];
    steps.extend(start(policy, &others, from));
    steps
}

/// What is left to do for an upgrade whose database has the version already: nodes with other code catch up.
pub(crate) fn catch_up(fleet: &Fleet, to: &Version) -> Vec<Step> {
    let behind = |node: &NodeId| {
        let seen = fleet.nodes.get(node).and_then(|node| node.observed.as_ref());
        seen.is_none_or(|seen| seen.code.as_ref() != Some(to))
    };
    let nodes: Vec<NodeId> = fleet.nodes.keys().filter(|node| behind(node)).cloned().collect();
    if nodes.is_empty() {
        return Vec::new();
    }
    let mut steps = vec![
        Step::Reachable { nodes: nodes.clone(), absent_ok: false },
        Step::Checked { nodes: nodes.clone(), task: release(to) },
        Step::Stopped { nodes: nodes.clone() },
        Step::Task { nodes: nodes.clone(), task: release(to) },
    ];
    steps.extend(start(&fleet.policy, &nodes, Some(to)));
    steps
}

/// Starts nodes plainly, some at a time, and verifies each.
pub(crate) fn start(policy: &Policy, nodes: &[NodeId], version: Option<&Version>) -> Vec<Step> {
    let size = usize::try_from(policy.max_parallel.max(1)).unwrap_or(1);
    let task = verification(policy, version);
    let verifies = version.is_some() || !task.checks.is_empty();
    let each = nodes.chunks(size).flat_map(|nodes| {
        let serving = Step::Serving { nodes: nodes.to_vec(), bring: Bring::Plain };
        let verified = Step::Task { nodes: nodes.to_vec(), task: task.clone() };
        std::iter::once(serving).chain(verifies.then_some(verified))
    });
    each.collect()
}

/// The plan of a restore on `node`, which has the backup; with `code`, to the version that the backup is of.
pub(crate) fn restore(
    fleet: &Fleet,
    all: &[NodeId],
    node: &NodeId,
    backup: &BackupId,
    code: Option<&Version>,
) -> Vec<Step> {
    let one = vec![node.clone()];
    let mut task = call("restore", Needs::Stopped, &[("backup", backup.as_str())]);
    task.params.extend(code.map(|version| ("code".to_owned(), version.0.clone())));
    let mut steps = vec![Step::Reachable { nodes: all.to_vec(), absent_ok: false }];
    steps.extend(code.map(|version| Step::Checked { nodes: all.to_vec(), task: release(version) }));
    steps.extend([
        Step::Checked { nodes: one.clone(), task: task.clone() },
        Step::Stopped { nodes: all.to_vec() },
        Step::Granted,
        Step::Task { nodes: one.clone(), task },
    ]);
    let others: Vec<NodeId> = all.iter().filter(|other| *other != node).cloned().collect();
    for nodes in [one, others].into_iter().filter(|nodes| !nodes.is_empty()) {
        steps.extend(code.map(|version| Step::Task { nodes: nodes.clone(), task: release(version) }));
        if fleet.desired == Desired::Run {
            steps.extend(start(&fleet.policy, &nodes, code));
        }
    }
    steps
}

/// The plan that fetches a version on every node.
pub(crate) fn prepare(all: &[NodeId], to: &Version) -> Vec<Step> {
    let task = call(PREPARE, Needs::Nothing, &[("version", &to.0)]);
    vec![
        Step::Reachable { nodes: all.to_vec(), absent_ok: false },
        Step::Checked { nodes: all.to_vec(), task },
    ]
}

/// The plan that runs the fleet's checks on the nodes that should run; `None` if there is none.
pub(crate) fn verify(fleet: &Fleet) -> Option<Vec<Step>> {
    let admitted = fleet.nodes.iter().filter(|(_, node)| node.admitted);
    let nodes: Vec<NodeId> = admitted.map(|(name, _)| name.clone()).collect();
    let version = fleet.database.as_ref().and_then(|database| database.version.as_ref());
    let checked = Step::Checked { nodes: nodes.clone(), task: verification(&fleet.policy, version) };
    (!nodes.is_empty()).then(|| vec![Step::Reachable { nodes, absent_ok: false }, checked])
}

/// The way back of an upgrade: what it may have changed is undone.
pub(crate) fn back(fleet: &Fleet, operation: &Operation) -> Vec<Step> {
    let (Some(from), Some(solo)) = (&operation.from, &operation.solo) else { return Vec::new() };
    let upgrade = matches!(operation.request, Request::Upgrade { .. });
    let one = vec![solo.clone()];
    let mut steps = vec![Step::Stopped { nodes: fleet.nodes.keys().cloned().collect() }, Step::Granted];
    if operation.migrated {
        // Whoever had the right may have changed the database, also when nothing was heard of it.
        let mut restore = call("restore", Needs::Stopped, &[("backup", operation.id.as_str())]);
        restore.params.extend(upgrade.then(|| ("code".to_owned(), from.0.clone())));
        steps.push(Step::Task { nodes: one.clone(), task: restore });
    }
    if !upgrade {
        let all: Vec<NodeId> = fleet.nodes.keys().cloned().collect();
        steps.extend(packages::back(operation, &all, solo));
        steps.extend(start(&fleet.policy, &one, Some(from)));
        let others: Vec<NodeId> = all.into_iter().filter(|node| node != solo).collect();
        steps.extend(start(&fleet.policy, &others, Some(from)));
        return steps;
    }
    steps.push(Step::Task { nodes: one.clone(), task: release(from) });
    steps.extend(start(&fleet.policy, &one, Some(from)));
    let others: Vec<NodeId> = fleet.nodes.keys().filter(|node| *node != solo).cloned().collect();
    if !others.is_empty() {
        steps.push(Step::Task { nodes: others.clone(), task: release(from) });
        steps.extend(start(&fleet.policy, &others, Some(from)));
    }
    steps
}

/// Whether traffic must not be sent to a node: an operation has stopped it and not verified it yet, or waits for approval.
pub(crate) fn holds(operation: &Operation, node: &NodeId) -> bool {
    let at = usize::try_from(operation.cursor).unwrap_or(usize::MAX);
    let mut before = operation.plan.iter().take(at.saturating_add(1));
    if !before.any(|step| matches!(step, Step::Stopped { nodes } if nodes.contains(node))) {
        return false;
    }
    operation.plan.iter().skip(at).any(|step| match step {
        Step::Task { nodes, task } => task.name == VERIFY && nodes.contains(node),
        Step::Approved => operation.solo.as_ref() == Some(node),
        _ => false,
    })
}

/// Whether users can write to what the upgrade made, from this step on.
pub(crate) fn exposes(fleet: &Fleet, operation: &Operation) -> bool {
    let forward = operation.request.goes_back() && operation.course == Course::Forward && operation.migrated;
    let Some(solo) = operation.solo.as_ref().filter(|_| forward) else { return false };
    match fleet.policy.traffic {
        Traffic::Ready => !holds(operation, solo),
        // A load balancer that has lost what it was told, or was never heard, may send users there.
        Traffic::Balancer => !holds(operation, solo) || runs(fleet, solo) && may_be_given(fleet, solo),
        // Nobody keeps users from an app that serves, and it may have served before anything was heard of that.
        Traffic::Direct => true,
    }
}

/// Whether the node's app may be alive.
fn runs(fleet: &Fleet, node: &NodeId) -> bool {
    let seen = fleet.nodes.get(node).and_then(|node| node.observed.as_ref());
    seen.is_some_and(|seen| seen.app.may_run())
}
