//! What preflight needs of a profile to look at a node by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use soloist_core::preflight::Release;

/// Where to look.
pub(crate) struct Premises {
    /// The app's folder.
    pub(crate) app_folder: PathBuf,
    /// How NocoBase is launched here; `None` for another app.
    pub(crate) launcher: Option<Launcher>,
}

/// How NocoBase is launched on a node. Holds passwords, so it cannot be printed.
pub(crate) struct Launcher {
    /// The app's environment, or why it cannot be computed.
    pub(crate) environment: Result<BTreeMap<String, String>, String>,
    /// Which variables people have set, in `.env` or in the agent's configuration.
    pub(crate) set: BTreeSet<String>,
    /// Whether NocoBase's own launcher would look for commercial plugins at its start.
    pub(crate) downloads: bool,
    /// The `node` program, or why there is none.
    pub(crate) node: Result<String, String>,
    /// Where programs are looked for.
    pub(crate) path: String,
}

/// What the database tells beside the facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Survey {
    /// The server.
    pub(crate) server: Release,
    /// How many sub-apps the multi-app manager has; 0 where it is not enabled.
    pub(crate) sub_apps: u64,
}
