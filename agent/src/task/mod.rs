//! Tasks: named work that a coordinator may ask for. What a name means is decided here and nowhere else; a
//! coordinator never sends a command line.
//!
//! A result other than [`TaskEnd::UnderWay`] says that nothing of the task is still under way.

pub mod backup;
pub mod commercial;
mod owner;
pub mod packages;
mod params;
mod plugin;
pub mod release;
pub mod verify;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use soloist_core::assignment::{OUTPUT_MAX, OUTPUT_TEXT_MAX, Task, TaskPhase, TaskResult};
use soloist_core::ids::{FleetId, NodeId};
use tokio::sync::watch;

use self::backup::BackupTasks;
use self::commercial::CommercialTasks;
use self::owner::Owner;
use self::packages::PackageTasks;
use self::release::ReleaseTasks;
use self::verify::VerifyTasks;
use crate::backup::Progress;
use crate::probe::{ApiClient, Proofs};

/// What a task found or made, by name.
pub type Output = BTreeMap<String, String>;

/// Names of the tasks that work inside the running app.
pub const NAMES: [&str; 2] = ["plugin-enable", "plugin-disable"];

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskEnd {
    /// It has a result.
    Ended(TaskResult),
    /// It may still have effects: call [`Tasks::recover`] until it has ended. The reason is for people.
    UnderWay(String),
}

/// Time limits of tasks.
#[derive(Debug, Clone, Copy)]
pub struct TaskLimits {
    /// How long the app may take for the request itself.
    pub request: Duration,
    /// How long it is waited afterwards until the app is at rest.
    pub quiet: Duration,
}

impl Default for TaskLimits {
    fn default() -> Self {
        // Enabling a plugin takes 4 s on an idle host; one with large migrations takes minutes.
        Self { request: Duration::from_secs(300), quiet: Duration::from_secs(120) }
    }
}

/// Ends what an agent that was killed has left of programs that switch the code or check it, before anything else is done; the
/// reason of an error is for people.
///
/// # Errors
/// When some of it cannot be ended.
pub async fn end_leftovers(fleet: &FleetId, node: &NodeId) -> Result<(), String> {
    Owner { fleet: fleet.clone(), node: node.clone() }.end_leftovers().await
}

/// Does tasks on the node's running app.
#[derive(Debug, Clone)]
pub struct Tasks {
    api: ApiClient,
    proofs: Proofs,
    limits: TaskLimits,
}

impl Tasks {
    /// Tasks on this app.
    pub fn new(api: ApiClient, proofs: Proofs, limits: TaskLimits) -> Self {
        Self { api, proofs, limits }
    }

    /// Looks whether a task could be done, or does it, as its phase says. Doing twice is doing once.
    pub async fn perform(&self, task: &Task) -> TaskEnd {
        let work = match plugin::PluginTask::new(self, task) {
            Ok(work) => work,
            Err(reason) => return TaskEnd::Ended(TaskResult::Failed(reason)),
        };
        match task.phase {
            TaskPhase::Check => TaskEnd::Ended(work.check().await),
            TaskPhase::Run => work.run().await,
        }
    }

    /// Ends a task of which only the beginning is known: waits until the app is at rest, then says whether the
    /// work is done. Starts nothing.
    pub async fn recover(&self, task: &Task) -> TaskEnd {
        match (plugin::PluginTask::new(self, task), task.phase) {
            // A check has no effects, and an unknown task has none either.
            (Err(_), _) | (_, TaskPhase::Check) => TaskEnd::Ended(TaskResult::Interrupted),
            (Ok(work), TaskPhase::Run) => work.recover().await,
        }
    }
}

/// Tasks that take long, tell how far they are, and have an output.
#[derive(Debug)]
pub struct LongTasks {
    /// Backups.
    pub backups: BackupTasks,
    /// Versions of the code.
    pub releases: ReleaseTasks,
    /// Plugins as packages.
    pub packages: PackageTasks,
    /// Commercial plugins.
    pub commercial: CommercialTasks,
    /// Verifications.
    pub verifications: VerifyTasks,
}

impl LongTasks {
    /// Whether a task is one of these.
    #[must_use]
    pub fn have(&self, name: &str) -> bool {
        backup::NAMES.contains(&name)
            || commercial::NAMES.contains(&name)
            || packages::NAMES.contains(&name)
            || release::NAMES.contains(&name)
            || verify::NAMES.contains(&name)
    }

    /// Checks or runs a task, or finds out how it ended if an earlier run of the agent has begun it. `tell` hears how far it is.
    pub async fn perform(
        &self,
        task: &Task,
        begun_before: bool,
        tell: impl Fn(String) + Send + 'static,
    ) -> (TaskResult, Output) {
        let (result, output) = match task.name.as_str() {
            name if release::NAMES.contains(&name) && begun_before => self.releases.recover(task).await,
            name if release::NAMES.contains(&name) => {
                told(String::new(), tell, async |to| self.releases.perform(task, to).await).await
            }
            name if packages::NAMES.contains(&name) && begun_before => self.packages.recover().await,
            name if packages::NAMES.contains(&name) => {
                told(String::new(), tell, async |to| self.packages.perform(task, to).await).await
            }
            name if commercial::NAMES.contains(&name) && begun_before => self.commercial.recover().await,
            name if commercial::NAMES.contains(&name) => self.commercial.perform(task).await,
            name if verify::NAMES.contains(&name) && begun_before => self.verifications.recover().await,
            name if verify::NAMES.contains(&name) => {
                told(String::new(), tell, async |to| self.verifications.perform(task, to).await).await
            }
            _ if begun_before => self.backups.recover(task).await,
            _ => told(Progress::default(), tell, async |to| self.backups.perform(task, to).await).await,
        };
        (result, bounded(output))
    }
}

/// Passes on what a task says of its progress, until its end.
async fn told<P: Display + Send + Sync + 'static, R>(
    first: P,
    tell: impl Fn(String) + Send + 'static,
    work: impl AsyncFnOnce(&watch::Sender<P>) -> R,
) -> R {
    let (to, mut told) = watch::channel(first);
    let teller = tokio::spawn(async move {
        while told.changed().await.is_ok() {
            let text = told.borrow_and_update().to_string();
            tell(text);
        }
    });
    let end = work(&to).await;
    drop(to);
    // It ends with its channel.
    let _ = teller.await;
    end
}

/// What is reported of an output.
fn bounded(output: Output) -> Output {
    let clip = |text: String| text.chars().take(OUTPUT_TEXT_MAX).collect::<String>();
    output.into_iter().take(OUTPUT_MAX).map(|(name, value)| (clip(name), clip(value))).collect()
}
