//! Tasks: named work that a coordinator may ask for. What a name means is decided here and nowhere else; a
//! coordinator never sends a command line.
//!
//! A result other than [`TaskEnd::UnderWay`] says that nothing of the task is still under way.

pub mod backup;
mod params;
mod plugin;

use std::time::Duration;

use soloist_core::assignment::{Task, TaskPhase, TaskResult};

use crate::probe::{ApiClient, Proofs};

/// Names of the tasks that this agent knows.
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
