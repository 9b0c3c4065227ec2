//! What programs are given: the core's view types as they are, with what only the answer itself knows.

use std::collections::BTreeMap;

use serde::Serialize;
use soloist_core::{
    preflight::{Finding, Told},
    preview::PlannedStep,
    time::Millis,
    view::{FleetView, OperationView},
};
use soloist_proto::v1;

/// Who answered, and whether what it says is current.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Fresh {
    /// Whether it may be out of date.
    pub stale: bool,
    /// Why; empty unless stale.
    pub reason: String,
    /// The member that answered.
    pub member: u64,
    /// The leader that it knows of.
    pub leader: Option<u64>,
    /// Log index up to which the answer includes everything.
    pub applied: u64,
    /// How long ago that member heard a leader.
    pub last_contact_ms: Option<u64>,
}

impl From<v1::Freshness> for Fresh {
    fn from(freshness: v1::Freshness) -> Fresh {
        let v1::Freshness { stale, reason, member, leader, applied, last_contact_ms } = freshness;
        Fresh { stale, reason, member, leader, applied, last_contact_ms }
    }
}

/// A fleet with the freshness of the answer.
#[derive(Debug, Serialize)]
pub struct Status<'a> {
    /// The fleet.
    #[serde(flatten)]
    pub view: &'a FleetView,
    /// The answer.
    pub freshness: &'a Fresh,
}

/// A fleet in a list.
#[derive(Debug, Serialize)]
pub struct Fleet {
    /// Its name.
    pub fleet: String,
    /// Whether it was ever started.
    pub active: bool,
    /// How many nodes it has.
    pub nodes: u32,
    /// How many of them serve.
    pub serving: u32,
    /// The operation that holds its lock.
    pub operation: Option<String>,
}

/// The steps of a request.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// In order.
    pub steps: Vec<PlannedStep>,
    /// How long the steps take together of which that is known.
    pub known: Millis,
    /// The answer.
    pub freshness: Fresh,
}

/// Operations, newest first.
#[derive(Debug, Serialize)]
pub struct Operations {
    /// The operations.
    pub operations: Vec<OperationView>,
    /// The answer.
    pub freshness: Fresh,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Log index; several can share one.
    pub index: u64,
    /// By the state's time.
    pub time_ms: u64,
    /// By the leader's wall clock.
    pub wall_ms: u64,
    /// The operation concerned.
    pub operation: Option<String>,
    /// The node concerned.
    pub node: Option<String>,
    /// One word.
    pub kind: String,
    /// For people.
    pub text: String,
}

impl From<v1::Event> for Event {
    fn from(event: v1::Event) -> Event {
        let v1::Event { index, time_ms, wall_ms, operation, node, kind, text } = event;
        Event { index, time_ms, wall_ms, operation, node, kind, text }
    }
}

/// A plugin of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plugin {
    /// Its short name.
    pub name: String,
    /// Its package.
    pub package: String,
    /// Whether the node's database says that it is enabled.
    pub enabled: bool,
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backup {
    /// Its name.
    pub backup: String,
    /// The node whose agent has it.
    pub node: String,
    /// When it was done, milliseconds since 1970.
    pub wall_ms: u64,
    /// Version of the database at that time.
    pub version: Option<String>,
    /// What its agent says of it: size, checksum, duration and the like.
    pub facts: BTreeMap<String, String>,
}

impl From<v1::BackupInfo> for Backup {
    fn from(backup: v1::BackupInfo) -> Backup {
        let v1::BackupInfo { backup, node, wall_ms, version, facts } = backup;
        let facts = facts.into_iter().map(|v1::Parameter { name, value }| (name, value)).collect();
        Backup { backup, node, wall_ms, version, facts }
    }
}

/// The plugins of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodePlugins {
    /// The node.
    pub node: String,
    /// Its plugins; `None` if its agent has not listed them.
    pub plugins: Option<Vec<Plugin>>,
}

impl From<v1::NodePlugins> for NodePlugins {
    fn from(node: v1::NodePlugins) -> NodePlugins {
        let plugin = |v1::PluginInfo { name, package, enabled }| Plugin { name, package, enabled };
        let plugins = node.inventory.map(|found| found.plugins.into_iter().map(plugin).collect());
        NodePlugins { node: node.node, plugins }
    }
}

/// How the nodes of a fleet differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Preflight {
    /// The fleet.
    pub fleet: String,
    /// Problems, then warnings.
    pub findings: Vec<Finding>,
    /// The checks that could be made.
    pub checks: Vec<String>,
    /// What each node has said about itself.
    pub nodes: Vec<NodePreflight>,
    /// The answer.
    pub freshness: Fresh,
}

/// What a node has said about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodePreflight {
    /// The node.
    pub node: String,
    /// What it said, and when; `None` if nothing.
    pub told: Option<Told>,
}
