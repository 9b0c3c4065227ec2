//! What one node says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::assignment::{DatabaseFacts, DbSession};
use crate::ids::{NodeId, Version};
use crate::time::Millis;

/// What one node says about itself. Holds no value of any setting.
///
/// What an app of its kind does not have is left out; what should be known and could not be found out stands in `failed`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeFacts {
    /// Version of the code on the node's disk.
    pub code: Option<Version>,
    /// Fingerprints of the app's settings by name; one that is unset or empty is left out, since NocoBase treats both alike.
    pub settings: Option<BTreeMap<String, String>>,
    /// The Node.js that runs the app.
    pub node: Option<Release>,
    /// The nonces on the storage.
    pub storage: Option<StorageFacts>,
    /// The database.
    pub database: Option<DatabaseFacts>,
    /// The database server.
    pub server: Option<Release>,
    /// The program that dumps the database.
    pub dump: Option<Release>,
    /// Whether programs of the operator's own make the backups, so that none of the database's is needed.
    pub own_backups: bool,
    /// Free space.
    pub spaces: Vec<Space>,
    /// Whether the storage says that the next start upgrades.
    pub upgrading: bool,
    /// Whether the host and the storage were searched for what only concerns NocoBase: supervisors, a license.
    pub searched: bool,
    /// How NocoBase's own launcher would come to fetch commercial plugins, in words.
    pub commercial: Vec<String>,
    /// How many sub-apps the multi-app manager has; `None` where that is not known, 0 where it is not enabled.
    pub sub_apps: Option<u64>,
    /// What else would start this app on this host, in words.
    pub supervisors: Vec<String>,
    /// How long ago somebody last asked the agent's `/ready`; `None` if nobody ever has.
    pub asked: Option<Millis>,
    /// While whoever asks `/ready` has long been told to send nobody: from which addresses connections to the app were opened all
    /// the same, in the two seconds in which that was watched.
    pub came: Option<Vec<String>>,
    /// Sessions in the database that belong to no node.
    pub sessions: Vec<DbSession>,
    /// What could not be found out and why, by [check](super::check).
    pub failed: BTreeMap<String, String>,
}

/// A program's or server's version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Release {
    /// What it is, for example `PostgreSQL` or `pg_dump`.
    pub product: String,
    /// The first number of its version.
    pub major: u32,
    /// Its whole version as it tells it.
    pub text: String,
}

/// What shows that nodes have one storage: each leaves a nonce there, and all open those of the others.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StorageFacts {
    /// The nonce that this node has left.
    pub nonce: String,
    /// The one before it.
    pub before: Option<String>,
    /// How long ago it was left.
    pub age: Millis,
    /// What stands there of each node, this one included: its nonce and the one before.
    pub seen: BTreeMap<NodeId, Vec<String>>,
}

/// A folder whose free space matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The app's storage, shared by all nodes.
    Storage,
    /// The app's installation.
    App,
    /// The agent's data folder.
    Data,
}

/// Free space in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Which folder.
    pub place: Place,
    /// Its path.
    pub path: String,
    /// What an ordinary user can still write there, in bytes.
    pub free: u64,
}

/// Facts on their way: when they came, and by whose clock.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Told {
    /// What the node said.
    pub facts: NodeFacts,
    /// How long ago it was gathered.
    pub age: Millis,
    /// The node's wall clock when it was sent, in milliseconds since 1970.
    pub sent_wall_ms: u64,
    /// The leader's wall clock at that moment, but for the time on the way.
    pub heard_wall_ms: u64,
}
