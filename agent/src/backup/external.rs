//! Backups by programs of the operator's own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use soloist_core::ids::{BackupId, FleetId, NodeId};
use tokio::sync::watch;
use tokio::time::timeout;

use super::config::ExternalConfig;
use super::error::BackupError;
use super::program::{Call, Input, Outcome, Sink, Tools, run};
use super::progress::{Meter, Progress, Stage};

/// Calls the configured programs.
#[derive(Debug, Clone)]
pub struct External {
    config: ExternalConfig,
    tools: Tools,
    fleet: FleetId,
    node: NodeId,
    deadline: Duration,
}

impl External {
    /// For a node.
    #[must_use]
    pub fn new(
        config: ExternalConfig,
        tools: Tools,
        fleet: FleetId,
        node: NodeId,
        deadline: Duration,
    ) -> Self {
        Self { config, tools, fleet, node, deadline }
    }

    /// Whether backups can be restored.
    #[must_use]
    pub fn restores(&self) -> bool {
        !self.config.restore.is_empty()
    }

    /// Makes a backup.
    ///
    /// # Errors
    /// When the program fails, with the end of what it said.
    pub async fn create(&self, id: &BackupId, to: &watch::Sender<Progress>) -> Result<(), BackupError> {
        self.call("the backup", &self.config.create, id, Stage::Dump, to).await
    }

    /// Checks a backup.
    ///
    /// # Errors
    /// When the program fails: then the backup does not count.
    pub async fn check(&self, id: &BackupId, to: &watch::Sender<Progress>) -> Result<(), BackupError> {
        self.call("the check", &self.config.check, id, Stage::Reading, to).await
    }

    /// Restores a backup.
    ///
    /// # Errors
    /// When the program fails: then the app's state may be half restored.
    pub async fn restore(&self, id: &BackupId, to: &watch::Sender<Progress>) -> Result<(), BackupError> {
        self.call("the restore", &self.config.restore, id, Stage::Load, to).await
    }

    /// Removes a backup, or only forgets it when there is no program for that.
    ///
    /// # Errors
    /// When the program fails.
    pub async fn remove(&self, id: &BackupId, to: &watch::Sender<Progress>) -> Result<(), BackupError> {
        if self.config.remove.is_empty() {
            return Ok(());
        }
        self.call("the removal", &self.config.remove, id, Stage::Clearing, to).await
    }

    async fn call(
        &self,
        what: &'static str,
        command: &[String],
        id: &BackupId,
        stage: Stage,
        to: &watch::Sender<Progress>,
    ) -> Result<(), BackupError> {
        let meter = Meter::new(to);
        meter.stage(stage);
        let missing =
            || BackupError::Setting(format!("no program is configured for {what}: see [backup.external]"));
        let (program, args) = command.split_first().ok_or_else(missing)?;
        let program = match PathBuf::from(program) {
            path if path.is_absolute() => path,
            _ => self.tools.find(&[program], "that has it")?,
        };
        let env = BTreeMap::from([
            ("SOLOIST_BACKUP".to_owned(), id.to_string()),
            ("SOLOIST_FLEET".to_owned(), self.fleet.to_string()),
            ("SOLOIST_NODE_NAME".to_owned(), self.node.to_string()),
        ]);
        let call =
            Call { program: &program, args: args.to_vec(), env, input: Input::Nothing, sink: Sink::Text };
        let secs = self.deadline.as_secs();
        let ended = timeout(self.deadline, run(&self.tools, call, &meter)).await;
        match ended.map_err(|_| BackupError::Deadline { what, secs })?? {
            Outcome::Failed(why) => {
                Err(BackupError::Program { what, program: program.display().to_string(), why })
            }
            Outcome::Text(_) | Outcome::File(_) => Ok(()),
        }
    }
}
