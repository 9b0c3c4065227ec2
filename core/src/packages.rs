//! Adding, updating and removing plugins as packages.
//!
//! ```text
//!  reach, check the packages and the backup ─► (others stopped, granted, plugins that go are disabled) ─► stop all ─► granted
//!     ─► backup ─► packages on one, on the others ─► start it with the right ─► plain ─► (enable) ─► verified
//!     ─► start the others ─► verified
//!                      │ fails
//!                      ▼
//!  stop all ─► granted ─► restore ─► packages of before ─► start one ─► verified ─► start the others
//! ```
//!
//! The packages are exchanged by the agents while nothing runs, because an app loads code once, and NocoBase's own ways of doing it
//! run no migrations or hide their errors. The first start has the right to upgrade: that runs the plugins' migrations.

use crate::assignment::Needs;
use crate::ids::{NodeId, Version};
use crate::operation::{Bring, Operation, PackageChange, PluginChange, Step, TaskCall};
use crate::state::Fleet;
use crate::upgrade::{backup, start, verification};

/// Name of the task that exchanges packages on a node. Its check fetches them and looks into them.
pub const PACKAGES: &str = "packages";
/// Name of the task that takes an exchange back.
pub const PACKAGES_BACK: &str = "packages-back";
/// Name of the task that notes in the database that a plugin is not enabled, while nothing runs: for one that keeps the app from
/// running at all.
pub const PLUGIN_OFF: &str = "plugin-off";
/// Name of the task that removes NocoBase's marker `.upgrading`, with which no node could start plainly: for migrations that failed.
pub const MARKER_OFF: &str = "marker-off";
/// Name of the task that fetches the app's commercial plugins as they fit its code. Its check looks whether that can be done.
pub const COMMERCIAL: &str = "commercial-plugins";
/// Before a package's name in a task's parameters: where it comes from.
pub const PUT: &str = "put ";
/// The same: its version, where one is asked for.
pub const VERSION: &str = "version ";
/// The same: the SHA-256 of its file in hexadecimal digits, where that is known.
pub const SHA256: &str = "sha256 ";
/// The same: it goes.
pub const REMOVE: &str = "remove ";
/// In the parameters of a task that goes back or verifies: the operation that exchanged the packages.
pub const OPERATION: &str = "operation";

/// Most packages of one operation.
pub const PACKAGES_MAX: usize = 8;

fn task(name: &str, operation: &Operation, changes: &[PackageChange]) -> TaskCall {
    let mut task = TaskCall::new(name, Needs::Stopped, &[(OPERATION, operation.id.as_str())]);
    let params = &mut task.params;
    for change in changes {
        match change {
            PackageChange::Put { plugin, source, version, sha256, .. } => {
                params.insert(format!("{PUT}{plugin}"), source.clone());
                params
                    .extend(version.iter().map(|Version(text)| (format!("{VERSION}{plugin}"), text.clone())));
                params.extend(sha256.iter().map(|text| (format!("{SHA256}{plugin}"), text.clone())));
            }
            PackageChange::Remove { plugin } => {
                params.insert(format!("{REMOVE}{plugin}"), String::new());
            }
        }
    }
    task
}

/// The task that changes a plugin inside the running app.
pub(crate) fn switch(change: PluginChange, plugin: &str) -> TaskCall {
    TaskCall::new(change.task(), Needs::Serving, &[("plugin", plugin)])
}

/// The way back from a plugin that broke the app of the solo node when it was enabled. What users have written since stays.
pub(crate) fn off(solo: &NodeId, plugin: &str) -> Vec<Step> {
    let task = TaskCall::new(PLUGIN_OFF, Needs::Stopped, &[("plugin", plugin)]);
    let one = vec![solo.clone()];
    vec![
        Step::Stopped { nodes: one.clone() },
        Step::Task { nodes: one.clone(), task },
        Step::Serving { nodes: one, bring: Bring::Plain },
    ]
}

/// The plan of an exchange.
pub(crate) fn steps(
    fleet: &Fleet,
    operation: &Operation,
    all: &[NodeId],
    solo: &NodeId,
    changes: &[PackageChange],
) -> Vec<Step> {
    let policy = &fleet.policy;
    let others: Vec<NodeId> = all.iter().filter(|node| *node != solo).cloned().collect();
    let one = vec![solo.clone()];
    let on_one = |task: TaskCall| Step::Task { nodes: one.clone(), task };
    let exchange = task(PACKAGES, operation, changes);
    let backup = backup(policy, operation);
    let mut steps = vec![
        Step::Reachable { nodes: all.to_vec(), absent_ok: false },
        Step::Checked { nodes: one.clone(), task: exchange.clone() },
    ];
    if !others.is_empty() {
        // Where the storage is shared they find what the first has fetched.
        steps.push(Step::Checked { nodes: others.clone(), task: exchange.clone() });
    }
    steps.push(Step::Checked { nodes: one.clone(), task: backup.clone() });
    let going: Vec<&str> = changes.iter().filter_map(PackageChange::goes).collect();
    if !going.is_empty() {
        steps.push(Step::Serving { nodes: one.clone(), bring: Bring::Plain });
        steps.extend((!others.is_empty()).then(|| Step::Stopped { nodes: others.clone() }));
        steps.push(Step::Granted);
        steps.extend(going.into_iter().map(|plugin| on_one(switch(PluginChange::Disable, plugin))));
    }
    steps.extend([
        Step::Stopped { nodes: all.to_vec() },
        Step::Granted,
        on_one(backup),
        on_one(exchange.clone()),
    ]);
    if !others.is_empty() {
        steps.push(Step::Task { nodes: others.clone(), task: exchange.clone() });
    }
    steps.extend([
        Step::Serving { nodes: one.clone(), bring: Bring::Migrate },
        Step::Converted { node: solo.clone(), single: false },
    ]);
    let enabled = changes.iter().filter_map(PackageChange::enables);
    steps.extend(enabled.map(|plugin| on_one(switch(PluginChange::Enable, plugin))));
    // A plugin that was enabled may have made the app load itself anew.
    steps.push(Step::Serving { nodes: one.clone(), bring: Bring::Plain });
    // Beside what the checks say, it has what was exchanged.
    let verify = TaskCall { params: exchange.params, ..verification(policy, None) };
    steps.push(on_one(verify.clone()));
    steps.extend(start(policy, &others, &verify));
    steps
}

/// What takes the packages back on a way back, first on the solo node, then on the others.
pub(crate) fn back(operation: &Operation, all: &[NodeId], solo: &NodeId) -> Vec<Step> {
    let others: Vec<NodeId> = all.iter().filter(|node| *node != solo).cloned().collect();
    let groups = [vec![solo.clone()], others].into_iter().filter(|nodes| !nodes.is_empty());
    groups.map(|nodes| Step::Task { nodes, task: task(PACKAGES_BACK, operation, &[]) }).collect()
}
