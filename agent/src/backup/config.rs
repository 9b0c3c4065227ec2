//! The `[backup]` table of the agent's configuration.

use std::path::PathBuf;

use serde::Deserialize;

/// How a node's app is backed up.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackupConfig {
    /// Where the backups lie; `backups` in the agent's data folder unless given.
    pub folder: Option<PathBuf>,
    /// What is done with uploaded files; as the fleet's policy says unless given.
    pub uploads: Option<UploadsPolicy>,
    /// Whether a backup is restored into a scratch database before it counts as checked.
    pub verify_restore: bool,
    /// How long one backup or restore may take, in seconds.
    pub deadline_secs: u64,
    /// Programs of one's own instead of what the agent does itself.
    pub external: Option<ExternalConfig>,
}

impl Default for BackupConfig {
    fn default() -> Self {
        Self {
            folder: None,
            uploads: None,
            verify_restore: false,
            // A fleet's database has some gigabytes at most, dumped in minutes; three hours is a hang.
            deadline_secs: 3 * 3600,
            external: None,
        }
    }
}

/// What a backup does with uploaded files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UploadsPolicy {
    /// Leaves them out: they are backed up otherwise.
    Skip,
    /// Copies all of them before the other nodes are stopped, and what changed since in the outage.
    Presync,
    /// Copies all of them in the outage.
    Include,
}

/// Programs that make, check, restore and remove backups. Each is a program with arguments; it finds the backup's name in
/// `SOLOIST_BACKUP`, and the fleet and node in `SOLOIST_FLEET` and `SOLOIST_NODE_NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalConfig {
    /// Makes a backup; called again for the same name after it was interrupted.
    pub create: Vec<String>,
    /// Reads a backup back; succeeds only if it is complete.
    pub check: Vec<String>,
    /// Restores a backup, with everything stopped; without it, nothing can be restored.
    #[serde(default)]
    pub restore: Vec<String>,
    /// Removes a backup; without it, it is only forgotten.
    #[serde(default)]
    pub remove: Vec<String>,
}
