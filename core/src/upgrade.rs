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

use crate::assignment::Needs;
use crate::ids::{BackupId, NodeId, Version};
use crate::operation::{Bring, Course, Operation, Request, Step, TaskCall};
use crate::order::ordered;
use crate::packages;
use crate::policy::{Policy, Traffic};
use crate::rule::Rule;
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

fn release(version: &Version) -> TaskCall {
    TaskCall::new(RELEASE, Needs::Stopped, &[("version", &version.0)])
}

/// The task that verifies a node: that it serves, with this version if one is named, and that the fleet's checks are good.
pub(crate) fn verification(policy: &Policy, version: Option<&Version>) -> TaskCall {
    let mut task = TaskCall::new(VERIFY, Needs::Serving, &[]);
    task.params.extend(version.map(|version| ("version".to_owned(), version.0.clone())));
    task.checks.clone_from(&policy.checks);
    task
}

/// The task that makes a backup with the operation's name.
pub(crate) fn backup(policy: &Policy, operation: &Operation) -> TaskCall {
    let keep = policy.keep_backups.max(1).to_string();
    let params = [("backup", operation.id.as_str()), ("keep", &keep)];
    let mut task = TaskCall::new("backup", Needs::Nothing, &params);
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
    let verify = verification(policy, Some(to));
    let mut steps = vec![
        Step::Reachable { nodes: all.to_vec(), absent_ok: false },
        Step::Checked { nodes: all.to_vec(), task: release(to) },
    ];
    steps.extend(first(policy, operation, all, solo, Some(release(to))));
    steps.push(Step::Task { nodes: one, task: verify.clone() });
    if approve {
        steps.push(Step::Approved);
    }
    if !others.is_empty() {
        steps.push(Step::Task { nodes: others.clone(), task: release(to) });
        steps.extend(start(policy, &others, &verify));
    }
    steps
}

/// From a running fleet to one node whose database was upgraded, where there is another version of the code with that.
fn first(
    policy: &Policy,
    operation: &Operation,
    all: &[NodeId],
    solo: &NodeId,
    release: Option<TaskCall>,
) -> Vec<Step> {
    let one = vec![solo.clone()];
    let backup = backup(policy, operation);
    let commercial = || TaskCall::new(packages::COMMERCIAL, Needs::Stopped, &[]);
    let commercial = policy.commercial_plugins.then(commercial);
    let checked = |task| Step::Checked { nodes: one.clone(), task };
    let done = |task| Step::Task { nodes: one.clone(), task };
    let mut steps = vec![checked(backup.clone())];
    steps.extend(commercial.clone().map(checked));
    steps.extend([Step::Stopped { nodes: all.to_vec() }, Step::Granted, done(backup)]);
    // What is fetched fits the code that is current.
    steps.extend(release.into_iter().chain(commercial).map(done));
    steps.push(Step::Serving { nodes: one.clone(), bring: Bring::Migrate });
    steps.push(Step::Converted { node: solo.clone(), single: false });
    steps
}

/// The plan that runs the migrations that are due, with the code as it is.
pub(crate) fn migrate(fleet: &Fleet, operation: &Operation, all: &[NodeId], solo: &NodeId) -> Vec<Step> {
    let policy = &fleet.policy;
    let verify = verification(policy, operation.from.as_ref());
    let others: Vec<NodeId> = all.iter().filter(|node| *node != solo).cloned().collect();
    let mut steps = vec![Step::Reachable { nodes: all.to_vec(), absent_ok: false }];
    steps.extend(first(policy, operation, all, solo, None));
    steps.push(Step::Task { nodes: vec![solo.clone()], task: verify.clone() });
    steps.extend(start(policy, &others, &verify));
    steps
}

/// Why migrations cannot be run with the code as it is, where that is known: an upgrade has not ended. A backup of what it has left
/// would take the place of the one from before.
pub(crate) fn misfit(fleet: &Fleet) -> Option<String> {
    let database = fleet.database.as_ref()?.version.as_ref()?;
    let code = |node: &NodeId| fleet.nodes.get(node)?.observed.as_ref()?.code.clone();
    let other = |node: &NodeId| Some((node.clone(), code(node).filter(|code| code != database)?));
    let (node, code) = ordered(fleet).iter().find_map(other)?;
    Some(format!(
        "{node} has code of version {code}, and the database has {database}: an upgrade has not ended; do it again with \
         soloist upgrade, or go back with soloist rollback"
    ))
}

/// What is left to do for an upgrade whose database has the version already: nodes with other code catch up.
pub(crate) fn catch_up(fleet: &Fleet, to: &Version) -> Vec<Step> {
    let behind = |node: &NodeId| {
        let seen = fleet.nodes.get(node).and_then(|node| node.observed.as_ref());
        seen.is_none_or(|seen| seen.code.as_ref() != Some(to))
    };
    let mut nodes = ordered(fleet);
    nodes.retain(|node| behind(node));
    if nodes.is_empty() {
        return Vec::new();
    }
    let mut steps = vec![
        Step::Reachable { nodes: nodes.clone(), absent_ok: false },
        Step::Checked { nodes: nodes.clone(), task: release(to) },
        Step::Stopped { nodes: nodes.clone() },
        Step::Task { nodes: nodes.clone(), task: release(to) },
    ];
    steps.extend(start(&fleet.policy, &nodes, &verification(&fleet.policy, Some(to))));
    steps
}

/// Starts nodes plainly, some at a time, and verifies each where there is more to verify than that it serves.
pub(crate) fn start(policy: &Policy, nodes: &[NodeId], verify: &TaskCall) -> Vec<Step> {
    let size = usize::try_from(policy.max_parallel.max(1)).unwrap_or(1);
    let verifies = !verify.params.is_empty() || !verify.checks.is_empty();
    let each = nodes.chunks(size).flat_map(|nodes| {
        let serving = Step::Serving { nodes: nodes.to_vec(), bring: Bring::Plain };
        let verified = Step::Task { nodes: nodes.to_vec(), task: verify.clone() };
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
    let mut task = TaskCall::new("restore", Needs::Stopped, &[("backup", backup.as_str())]);
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
    let verify = verification(&fleet.policy, code);
    for nodes in [one, others].into_iter().filter(|nodes| !nodes.is_empty()) {
        steps.extend(code.map(|version| Step::Task { nodes: nodes.clone(), task: release(version) }));
        if fleet.desired == Desired::Run {
            steps.extend(start(&fleet.policy, &nodes, &verify));
        }
    }
    steps
}

/// The plan that fetches a version on every node.
pub(crate) fn prepare(all: &[NodeId], to: &Version) -> Vec<Step> {
    let task = TaskCall::new(PREPARE, Needs::Nothing, &[("version", &to.0)]);
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

/// The way back of what changed code and database together: what it may have changed is undone.
pub(crate) fn back(fleet: &Fleet, operation: &Operation) -> Vec<Step> {
    let Some(solo) = &operation.solo else { return Vec::new() };
    // It is not known where the app tells nothing of its version; packages go back all the same.
    let from = operation.from.as_ref();
    let upgrade = matches!(operation.request, Request::Upgrade { .. });
    // Whatever else goes back leaves the code of the app itself as it is.
    let code = from.filter(|_| upgrade);
    let all = ordered(fleet);
    let one = vec![solo.clone()];
    let others: Vec<NodeId> = all.iter().filter(|node| *node != solo).cloned().collect();
    let mut steps = vec![Step::Stopped { nodes: all.clone() }, Step::Granted];
    if operation.migrated || has_fetched(operation) {
        // Whoever had the right may have changed the database, also when nothing was heard of it.
        let mut restore = TaskCall::new("restore", Needs::Stopped, &[("backup", operation.id.as_str())]);
        restore.params.extend(code.map(|version| ("code".to_owned(), version.0.clone())));
        steps.push(Step::Task { nodes: one.clone(), task: restore });
    }
    if matches!(operation.request, Request::Packages { .. }) && Rule::PackagesGoBack.holds() {
        // On every node before any of them starts: an app loads what lies there, once.
        steps.extend(packages::back(operation, &all, solo));
    }
    steps.extend(without_marker(operation, solo));
    let verify = verification(&fleet.policy, from);
    for nodes in [one, others].into_iter().filter(|nodes| !nodes.is_empty()) {
        steps.extend(code.map(|version| Step::Task { nodes: nodes.clone(), task: release(version) }));
        steps.extend(start(&fleet.policy, &nodes, &verify));
    }
    steps
}

/// Whether commercial plugins may have taken the place of those that the backup has.
fn has_fetched(operation: &Operation) -> bool {
    reached(operation)
        .any(|step| matches!(step, Step::Task { task, .. } if task.name == packages::COMMERCIAL))
}

/// The steps that were begun.
fn reached(operation: &Operation) -> impl Iterator<Item = &Step> {
    let count = usize::try_from(operation.cursor).unwrap_or(usize::MAX).saturating_add(1);
    operation.plan.iter().take(count)
}

/// What lets the nodes start again after migrations that were not done, once something was stopped for them.
pub(crate) fn without_marker(operation: &Operation, solo: &NodeId) -> Option<Step> {
    let stopped = reached(operation).any(|step| matches!(step, Step::Stopped { .. }));
    let due = stopped && matches!(operation.request, Request::Migrate { .. });
    let task = TaskCall::new(packages::MARKER_OFF, Needs::Stopped, &[]);
    due.then(|| Step::Task { nodes: vec![solo.clone()], task })
}

/// Whether traffic must not be sent to a node: an operation has stopped it and not verified it yet, or waits for approval.
pub(crate) fn holds(operation: &Operation, node: &NodeId) -> bool {
    let at = usize::try_from(operation.cursor).unwrap_or(usize::MAX);
    if !reached(operation).any(|step| matches!(step, Step::Stopped { nodes } if nodes.contains(node))) {
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
