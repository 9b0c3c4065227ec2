//! Preflight: whether the nodes of a fleet are as alike as NocoBase needs them to be.
//!
//! Each agent gathers [`NodeFacts`]; [`compare`] names every difference with its nodes and a remedy. Values of settings never
//! leave a node: what is compared are fingerprints.
//!
//! ```text
//!   agents ──NodeFacts──► the leader's memory ──Told──► compare ──► findings
//! ```

mod alike;
mod facts;
mod own;
mod settings;
mod storage;
mod traffic;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::operation::Request;
use crate::policy::Traffic;
use crate::state::Fleet;
use crate::time::Millis;

pub use facts::{NodeFacts, Place, Release, Space, StorageFacts, Told};
pub use settings::{Demand, demand};

/// Facts that are older than this say nothing about now: agents gather them every minute.
pub const FACTS_OLD: Millis = Millis::from_secs(180);

/// The checks by name, in the order in which they are told. Programs may rely on these words.
pub mod check {
    /// A node that has told nothing, or nothing lately.
    pub const CONTACT: &str = "contact";
    /// The version of the code.
    pub const CODE: &str = "code";
    /// The app's settings.
    pub const SETTINGS: &str = "settings";
    /// The major version of Node.js.
    pub const NODE_VERSION: &str = "node_version";
    /// That the storage is one.
    pub const STORAGE: &str = "storage";
    /// That all reach one database.
    pub const DATABASE: &str = "database";
    /// A program that can dump the database.
    pub const DUMP_CLIENT: &str = "dump_client";
    /// Free space.
    pub const SPACE: &str = "space";
    /// The clocks.
    pub const CLOCK: &str = "clock";
    /// NocoBase's marker `.upgrading`.
    pub const UPGRADING: &str = "upgrading";
    /// Commercial plugins that NocoBase's own launcher would fetch.
    pub const COMMERCIAL_PLUGINS: &str = "commercial_plugins";
    /// Sub-apps of the multi-app manager.
    pub const SUB_APPS: &str = "sub_apps";
    /// Something else that would start the app.
    pub const SUPERVISOR: &str = "supervisor";
    /// Database sessions that belong to no node.
    pub const SESSIONS: &str = "sessions";
    /// That users really are kept away from a node in the declared way.
    pub const TRAFFIC: &str = "traffic";
    /// All of them.
    pub const ALL: [&str; 15] = [
        CONTACT,
        CODE,
        SETTINGS,
        NODE_VERSION,
        STORAGE,
        DATABASE,
        DUMP_CLIENT,
        SPACE,
        CLOCK,
        UPGRADING,
        COMMERCIAL_PLUGINS,
        SUB_APPS,
        SUPERVISOR,
        SESSIONS,
        TRAFFIC,
    ];
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Changing the fleet as it is would do harm, or cannot be judged.
    Problem,
    /// A person should know it.
    Warning,
}

/// A difference between nodes, or something about one of them, that should not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// Which check found it: one of the words in [`check`].
    pub check: String,
    /// The nodes where something is to be done: those that differ from most, or all if there is no majority.
    pub nodes: Vec<NodeId>,
    /// What is the matter, for people.
    pub text: String,
    /// What to do about it, for people.
    pub remedy: String,
}

impl Finding {
    fn problem(check: &str, nodes: Vec<NodeId>, text: String, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Problem, check: check.to_owned(), nodes, text, remedy: remedy.into() }
    }

    fn warning(check: &str, nodes: Vec<NodeId>, text: String, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::problem(check, nodes, text, remedy) }
    }
}

/// The nodes of a fleet, with what each has told; `None` for one that has told nothing.
pub type Nodes = BTreeMap<NodeId, Option<Told>>;

/// The nodes that have told something.
type Known<'a> = BTreeMap<&'a NodeId, &'a Told>;

fn known(nodes: &Nodes) -> Known<'_> {
    nodes.iter().filter_map(|(node, told)| Some((node, told.as_ref()?))).collect()
}

/// Looks at a fleet and compares its nodes: problems first, then warnings, each in the order of the checks.
pub fn examine(fleet: &Fleet, nodes: &Nodes) -> Vec<Finding> {
    let mut findings = compare(nodes);
    findings.extend(traffic::declared(fleet, nodes));
    // Operations look after them then.
    findings.retain(|found| found.check != check::COMMERCIAL_PLUGINS || !fleet.policy.commercial_plugins);
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// The checks that could be made, in order: what "all agree" speaks of.
pub fn examined(fleet: &Fleet, nodes: &Nodes) -> Vec<&'static str> {
    let declared = (fleet.policy.traffic != Traffic::Direct).then_some(check::TRAFFIC);
    checks(nodes).into_iter().chain(declared).collect()
}

/// Compares the nodes of a fleet: problems first, then warnings, each in the order of the checks. What an app of its kind
/// cannot tell is not compared.
fn compare(nodes: &Nodes) -> Vec<Finding> {
    let known = known(nodes);
    let mut findings = contact(nodes);
    findings.extend(alike::code(&known));
    findings.extend(alike::settings(&known));
    findings.extend(alike::node_version(&known));
    findings.extend(storage::one(&known));
    findings.extend(alike::database(&known));
    findings.extend(own::dump_client(&known));
    findings.extend(own::space(&known));
    findings.extend(alike::clock(&known));
    findings.extend(own::upgrading(&known));
    findings.extend(own::commercial(&known));
    findings.extend(own::sub_apps(&known));
    findings.extend(own::supervisors(&known));
    findings.extend(own::sessions(&known));
    // Stable: within a severity the order of the checks stays.
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// The checks that could be made with what the nodes have told, in order.
fn checks(nodes: &Nodes) -> Vec<&'static str> {
    let known = known(nodes);
    let any = |has: fn(&NodeFacts) -> bool| known.values().any(|told| has(&told.facts));
    let failed = |check: &str| known.values().any(|told| told.facts.failed.contains_key(check));
    let looked = |facts: &NodeFacts| facts.searched;
    let list = [
        (check::CONTACT, !nodes.is_empty()),
        (check::CODE, any(|facts| facts.code.is_some())),
        (check::SETTINGS, any(|facts| facts.settings.is_some())),
        (check::NODE_VERSION, any(|facts| facts.node.is_some())),
        (check::STORAGE, any(|facts| facts.storage.is_some())),
        (check::DATABASE, any(|facts| facts.database.is_some())),
        (check::DUMP_CLIENT, any(|facts| facts.server.is_some())),
        (check::SPACE, any(|facts| !facts.spaces.is_empty())),
        (check::CLOCK, !known.is_empty()),
        (check::UPGRADING, !known.is_empty()),
        (check::COMMERCIAL_PLUGINS, any(looked)),
        (check::SUB_APPS, any(|facts| facts.sub_apps.is_some())),
        (check::SUPERVISOR, any(looked)),
        (check::SESSIONS, any(|facts| facts.server.is_some())),
    ];
    list.into_iter().filter(|(check, can)| *can || failed(check)).map(|(check, _)| check).collect()
}

/// The finding that stands in the way of an operation, if there is one: the first problem of a check that matters to it. Warnings
/// never do.
pub fn blocking<'a>(findings: &'a [Finding], request: &Request) -> Option<&'a Finding> {
    findings.iter().find(|finding| finding.severity == Severity::Problem && matters(&finding.check, request))
}

/// Whether any check stands in the way of such an operation.
pub fn concerns(request: &Request) -> bool {
    check::ALL.iter().any(|check| matters(check, request))
}

/// Whether a problem that this check finds stands in the way of an operation.
///
/// Whether nodes answer, whether strangers use the database, and whether the node that makes the backup can make one, an
/// operation finds out by itself. What ends, undoes or
/// prepares something is never stopped by a difference between nodes, and neither is a start: users wait for it.
fn matters(check: &str, request: &Request) -> bool {
    let alike = [
        check::CODE,
        check::SETTINGS,
        check::NODE_VERSION,
        check::STORAGE,
        check::DATABASE,
        check::UPGRADING,
        check::SUB_APPS,
        check::SUPERVISOR,
        check::TRAFFIC,
    ];
    match request {
        Request::Start { install: true, .. } => {
            alike.contains(&check) && ![check::UPGRADING, check::SUB_APPS, check::TRAFFIC].contains(&check)
        }
        Request::Packages { .. } => alike.contains(&check) || check == check::SPACE,
        // The marker is what it is for.
        Request::Migrate { .. } => {
            check != check::UPGRADING && alike.contains(&check) || check == check::SPACE
        }
        Request::Plugin { .. } | Request::Hold { .. } => alike.contains(&check),
        Request::Backup { .. } => alike.contains(&check) || check == check::SPACE,
        Request::Upgrade { .. } => {
            // Nodes whose code was left behind are what another upgrade to the same version mends.
            check != check::CODE && alike.contains(&check)
                || [check::SPACE, check::COMMERCIAL_PLUGINS].contains(&check)
        }
        Request::Restore { .. } => [check::STORAGE, check::DATABASE, check::SUPERVISOR].contains(&check),
        Request::Start { install: false, .. }
        | Request::Stop
        | Request::RemoveBackup { .. }
        | Request::Prepare { .. }
        | Request::Verify
        | Request::Restart { .. }
        | Request::Heal
        | Request::Remove { .. }
        | Request::AcceptDatabase => false,
    }
}

fn contact(nodes: &Nodes) -> Vec<Finding> {
    const REMEDY: &str = "see that its agent runs and reaches a coordinator (soloist status), and that it is not older than the \
                          coordinators; then ask again";
    let silent = nodes.iter().filter_map(|(node, told)| {
        let text = match told {
            None => format!("{node} has told nothing about itself"),
            Some(told) if told.age > FACTS_OLD => {
                format!("what {node} has told about itself is {} s old", told.age.0 / 1000)
            }
            Some(_) => return None,
        };
        Some(Finding::problem(check::CONTACT, vec![node.clone()], text, REMEDY))
    });
    silent.collect()
}

/// Names in a row, for people.
fn names<'a>(nodes: impl IntoIterator<Item = &'a NodeId>) -> String {
    nodes.into_iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ")
}

/// What a node could not find out, as a problem of a check.
fn failures<'a>(
    known: &'a Known<'_>,
    check: &'static str,
    remedy: &'static str,
) -> impl Iterator<Item = Finding> + 'a {
    known.iter().filter_map(move |(node, told)| {
        let why = told.facts.failed.get(check)?;
        Some(Finding::problem(check, vec![(*node).clone()], format!("{node}: {why}"), remedy))
    })
}

#[cfg(test)]
mod tests;
