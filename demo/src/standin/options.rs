//! The stand-in's command line.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

/// The name of the marker on the shared storage that turns the next plain start into an upgrade.
const UPGRADING_MARKER: &str = ".upgrading";

/// What the stand-in reads about its world without running: enough for the facts.
#[derive(Debug, Clone, Args)]
pub struct StandinFiles {
    /// The JSON file that plays the fleet's database; all nodes name the same one.
    #[arg(long, env = "STANDIN_DATABASE")]
    pub database: PathBuf,
    /// The folder that plays the fleet's shared storage.
    #[arg(long, env = "STANDIN_STORAGE")]
    pub storage: PathBuf,
    /// The version of this node's code.
    #[arg(long, env = "STANDIN_CODE_VERSION", default_value = "1.0.0")]
    pub code_version: String,
    /// A file whose first line is the version of this node's code; wins over --code-version. An update task writes it.
    #[arg(long, env = "STANDIN_CODE_FILE")]
    pub code_file: Option<PathBuf>,
}

/// Everything the stand-in can be told.
#[derive(Debug, Clone, Args)]
pub struct StandinOptions {
    /// The database, the storage and the code.
    #[command(flatten)]
    pub files: StandinFiles,
    /// The port on 127.0.0.1.
    #[arg(long, env = "APP_PORT", default_value_t = 13000)]
    pub port: u16,
    /// The name under which this process registers on the database.
    #[arg(long, env = "SOLOIST_NODE", default_value = "stand-in")]
    pub node: String,
    /// From the start of the process to health 200, in milliseconds; the port opens after a quarter of it.
    #[arg(long, env = "STANDIN_START_DELAY_MS", default_value_t = 1500)]
    pub start_delay_ms: u64,
    /// How long enabling or disabling a plugin takes, in milliseconds.
    #[arg(long, env = "STANDIN_TASK_DELAY_MS", default_value_t = 800)]
    pub task_delay_ms: u64,
    /// How long an install or an upgrade takes on top of the start, in milliseconds.
    #[arg(long, env = "STANDIN_MIGRATE_DELAY_MS", default_value_t = 2000)]
    pub migrate_delay_ms: u64,
    /// How long the process goes on answering 503 after it was told to stop, in milliseconds.
    #[arg(long, env = "STANDIN_DRAIN_MS", default_value_t = 200)]
    pub drain_ms: u64,
    /// Install an empty database, or upgrade it: on every start, even at the same version.
    #[arg(long)]
    pub quickstart: bool,
    /// With --quickstart: leave a database that is at the code's version alone.
    #[arg(long, env = "SKIP_SAME_VERSION_UPGRADE")]
    pub skip_same_version_upgrade: bool,
    /// Never become healthy: end the start at 503 APP_ERROR with this message.
    #[arg(long, env = "STANDIN_FAIL_START")]
    pub fail_start: Option<String>,
    /// Code of this version is broken: its migration fails half-way, and leaves half its traces.
    #[arg(long, env = "STANDIN_BROKEN_VERSION")]
    pub broken_version: Option<String>,
}

impl StandinFiles {
    /// The version of the code that lies on this node's disk now.
    ///
    /// # Errors
    /// When the code file cannot be read or is empty.
    pub fn code(&self) -> anyhow::Result<String> {
        let Some(file) = &self.code_file else { return Ok(self.code_version.clone()) };
        let text = fs::read_to_string(file)
            .with_context(|| format!("cannot read the code file {}", file.display()))?;
        match text.lines().next().map(str::trim) {
            Some(version) if !version.is_empty() => Ok(version.to_owned()),
            _ => anyhow::bail!("the code file {} names no version", file.display()),
        }
    }

    /// Whether the marker lies on the storage that turns a plain start into an upgrade.
    #[must_use]
    pub fn upgrading(&self) -> bool {
        marker(&self.storage).exists()
    }

    /// Removes the marker, as a finished upgrade does.
    pub(super) fn clear_upgrading(&self) {
        // It may never have been there.
        let _ = fs::remove_file(marker(&self.storage));
    }
}

fn marker(storage: &Path) -> PathBuf {
    storage.join(UPGRADING_MARKER)
}

#[cfg(test)]
impl StandinOptions {
    /// Quick settings for unit tests, with everything in one folder.
    pub(super) fn for_test(folder: &Path, node: &str) -> Self {
        Self {
            files: StandinFiles {
                database: folder.join("database.json"),
                storage: folder.to_owned(),
                code_version: "1.0.0".to_owned(),
                code_file: None,
            },
            port: 0,
            node: node.to_owned(),
            start_delay_ms: 40,
            task_delay_ms: 40,
            migrate_delay_ms: 100,
            drain_ms: 10,
            quickstart: false,
            skip_same_version_upgrade: false,
            fail_start: None,
            broken_version: None,
        }
    }
}
