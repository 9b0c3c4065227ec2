//! What a client asks for.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{BackupId, NodeId, Version};

/// Which nodes run while an external holder works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldMode {
    /// Exactly the solo node.
    Solo,
    /// None.
    AllStopped,
}

/// A change of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PluginChange {
    /// Enable it.
    Enable,
    /// Disable it.
    Disable,
}

impl PluginChange {
    /// Name of the agent's task that does it.
    pub fn task(self) -> &'static str {
        match self {
            PluginChange::Enable => "plugin-enable",
            PluginChange::Disable => "plugin-disable",
        }
    }

    /// Whether the plugin is to be loaded afterwards.
    pub fn loaded(self) -> bool {
        match self {
            PluginChange::Enable => true,
            PluginChange::Disable => false,
        }
    }
}

/// A change of a plugin as a package: of its files, on every node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackageChange {
    /// It is added, or takes the place of another version.
    Put {
        /// Its package name.
        plugin: String,
        /// Where it comes from: the absolute path of an archive on the nodes, or `npm`.
        source: String,
        /// Its version, where one is asked for.
        version: Option<Version>,
        /// The SHA-256 of the archive in hexadecimal digits, where it is known.
        sha256: Option<String>,
        /// Whether it is enabled in the same outage.
        enable: bool,
    },
    /// It is disabled and removed. What it has stored in the database stays.
    Remove {
        /// Its package name.
        plugin: String,
    },
}

impl PackageChange {
    /// Its package name.
    pub fn plugin(&self) -> &str {
        match self {
            PackageChange::Put { plugin, .. } | PackageChange::Remove { plugin } => plugin,
        }
    }

    /// The plugin that goes.
    pub fn goes(&self) -> Option<&str> {
        match self {
            PackageChange::Remove { plugin } => Some(plugin),
            PackageChange::Put { .. } => None,
        }
    }

    /// The plugin that is enabled.
    pub fn enables(&self) -> Option<&str> {
        match self {
            PackageChange::Put { plugin, enable: true, .. } => Some(plugin),
            PackageChange::Put { .. } | PackageChange::Remove { .. } => None,
        }
    }
}

impl fmt::Display for PackageChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PackageChange::Put { plugin, version: Some(version), .. } => write!(f, "{plugin}@{version}"),
            PackageChange::Put { plugin, version: None, .. } => f.write_str(plugin),
            PackageChange::Remove { plugin } => write!(f, "without {plugin}"),
        }
    }
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Start what should run.
    Start {
        /// Install an empty database first.
        install: bool,
        /// The fleet's complete list of nodes as the client knows it; must match if given.
        nodes: Option<Vec<NodeId>>,
    },
    /// Stop all nodes.
    Stop,
    /// Let an external holder work while one node or none runs.
    Hold {
        /// What may run meanwhile.
        mode: HoldMode,
        /// The solo node, or the node that starts first afterwards.
        on: Option<NodeId>,
    },
    /// Change a plugin on one node, then on all.
    Plugin {
        /// What to do.
        change: PluginChange,
        /// The plugin's package name.
        plugin: String,
        /// The node on which to do it.
        on: Option<NodeId>,
    },
    /// Add, update and remove plugins as packages: with everything stopped, backed up, on one node, then on all.
    Packages {
        /// What to do, all in one outage.
        changes: Vec<PackageChange>,
        /// The node that upgrades the database.
        on: Option<NodeId>,
    },
    /// Run the migrations that are due, by NocoBase's marker or by new code of plugins: with everything stopped, backed up, on one
    /// node, then start all.
    Migrate {
        /// The node that upgrades the database.
        on: Option<NodeId>,
    },
    /// Back the fleet up on one node, while only that one runs.
    Backup {
        /// The node.
        on: Option<NodeId>,
    },
    /// Bring the fleet back to a backup: with everything stopped, on the node that has it.
    Restore {
        /// The backup.
        backup: BackupId,
        /// Whether the code of every node goes back to the backup's version too: the way back after an upgrade.
        #[serde(default)]
        code: bool,
    },
    /// Delete a backup. Nothing is stopped for it.
    RemoveBackup {
        /// The backup.
        backup: BackupId,
    },
    /// Bring code and database to another version: with everything stopped, backed up, on one node, then on all.
    Upgrade {
        /// The version.
        to: Version,
        /// The node that upgrades the database.
        on: Option<NodeId>,
        /// Whether a person must approve before the other nodes start.
        approve: bool,
    },
    /// Fetch a version of the code on every node and compare what arrived. Nothing is stopped for it.
    Prepare {
        /// The version.
        to: Version,
    },
    /// Restart nodes that run, one after the other, each after its users have gone elsewhere.
    Restart {
        /// Which; all of them if none is named.
        nodes: Option<Vec<NodeId>>,
    },
    /// Restart the nodes whose app has not loaded what it should, one after the other.
    Heal,
    /// Stop a node, in order if it is there, and let it leave the fleet; or forget a load balancer that is gone.
    Remove {
        /// The node, or the load balancer's agent.
        node: NodeId,
    },
    /// Run the fleet's checks on every node that should run. Nothing is stopped for it.
    Verify,
    /// A person has made sure that the database is whole, although a restore has not ended.
    AcceptDatabase,
}

impl Request {
    /// Whether it changes code and database together, so that only both can go back together.
    pub fn goes_back(&self) -> bool {
        matches!(self, Request::Upgrade { .. } | Request::Packages { .. } | Request::Migrate { .. })
    }

    /// Whether it would run the app on the database as it is, so that a half-restored one must not be there.
    pub fn needs_whole_database(&self) -> bool {
        match self {
            Request::Start { .. }
            | Request::Plugin { .. }
            | Request::Backup { .. }
            | Request::Upgrade { .. }
            | Request::Packages { .. }
            | Request::Migrate { .. }
            | Request::Verify
            | Request::Restart { .. }
            | Request::Heal
            | Request::Hold { mode: HoldMode::Solo, .. } => true,
            Request::Stop
            | Request::Restore { .. }
            | Request::RemoveBackup { .. }
            | Request::AcceptDatabase
            | Request::Remove { .. }
            | Request::Prepare { .. }
            | Request::Hold { mode: HoldMode::AllStopped, .. } => false,
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Start { install: true, .. } => f.write_str("start --install"),
            Request::Start { install: false, .. } => f.write_str("start"),
            Request::Stop => f.write_str("stop"),
            Request::Hold { mode: HoldMode::Solo, .. } => f.write_str("run --solo"),
            Request::Hold { mode: HoldMode::AllStopped, .. } => f.write_str("run --all-stopped"),
            Request::Plugin { change: PluginChange::Enable, plugin, .. } => {
                write!(f, "plugin enable {plugin}")
            }
            Request::Plugin { change: PluginChange::Disable, plugin, .. } => {
                write!(f, "plugin disable {plugin}")
            }
            Request::Migrate { .. } => f.write_str("migrate"),
            Request::Backup { .. } => f.write_str("backup"),
            Request::Restore { backup, code: false } => write!(f, "restore {backup}"),
            Request::Restore { backup, code: true } => write!(f, "rollback {backup}"),
            Request::Prepare { to } => write!(f, "upgrade prepare {to}"),
            Request::Verify => f.write_str("verify"),
            Request::Heal => f.write_str("heal"),
            Request::Remove { node } => write!(f, "node remove {node}"),
            Request::Restart { nodes: None } => f.write_str("restart"),
            Request::Restart { nodes: Some(nodes) } => {
                let names = nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(",");
                write!(f, "restart --nodes {names}")
            }
            Request::RemoveBackup { backup } => write!(f, "backup remove {backup}"),
            Request::AcceptDatabase => f.write_str("restore --accept-database"),
            Request::Upgrade { to, .. } => write!(f, "upgrade --to {to}"),
            Request::Packages { changes, .. } => {
                f.write_str("plugin packages")?;
                changes.iter().try_for_each(|change| write!(f, " {change}"))
            }
        }
    }
}
