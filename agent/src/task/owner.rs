//! Whose work a program of the operator's own does: what it finds in its environment, and the mark that it carries.

use std::collections::BTreeMap;
use std::time::Duration;

use soloist_core::assignment::{Task, TaskResult};
use soloist_core::ids::{FleetId, NodeId};

use super::Output;
use crate::host::child::{ChildError, Program};
use crate::host::leftover;
use crate::profile::base_env;

/// A node, as the programs of its tasks are told of it.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) fleet: FleetId,
    pub(super) node: NodeId,
}

impl Owner {
    /// Runs a program for a task. Beside `PATH` and the like it has `SOLOIST_FLEET`, `SOLOIST_NODE_NAME`, `SOLOIST_OPERATION`,
    /// `SOLOIST_VERSION` (empty if the task has none) and `more`.
    pub(super) async fn run(
        &self,
        task: &Task,
        argv: Vec<String>,
        more: &[(&str, String)],
        deadline: Duration,
        tell: impl FnMut(&str),
    ) -> Result<String, ChildError> {
        let mut env: BTreeMap<String, String> = base_env();
        let own = [
            ("SOLOIST_FLEET", self.fleet.to_string()),
            // A name alone: with the fleet before it, the variable would mark a process of the app.
            ("SOLOIST_NODE_NAME", self.node.to_string()),
            ("SOLOIST_OPERATION", task.key.operation.to_string()),
            ("SOLOIST_VERSION", task.params.get("version").cloned().unwrap_or_default()),
        ];
        env.extend(own.iter().chain(more).map(|(name, value)| ((*name).to_owned(), value.clone())));
        Program { argv, env, mark: self.mark(), deadline }.run(tell).await
    }

    /// Ends what an agent that was killed has left of such programs; the reason of an error is for people.
    pub(super) async fn end_leftovers(&self) -> Result<(), String> {
        let mark = self.mark();
        let ended = tokio::task::spawn_blocking(move || leftover::end(leftover::TASK, &mark)).await;
        ended.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// The end of a task that an earlier run of the agent has begun, and that another attempt simply does again.
    pub(super) async fn interrupted(&self) -> (TaskResult, Output) {
        let result = match self.end_leftovers().await {
            Ok(()) => TaskResult::Interrupted,
            Err(why) => TaskResult::Failed(why),
        };
        (result, Output::new())
    }

    fn mark(&self) -> String {
        format!("{}/{}", self.fleet, self.node)
    }
}
