//! Enabling and disabling a plugin inside the running app.

use std::time::Duration;

use soloist_core::assignment::{Task, TaskResult};
use tokio::time::{Instant, sleep};

use super::{NAMES, TaskEnd, Tasks, params};
use crate::probe::{
    ApiError, Health, Loaded, Plugin, Prober, Verdict, encode, find_plugin, short_name, unprovable,
};

/// How often a busy app is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// An app is at rest when it was healthy over this time: between a request and its command lie milliseconds.
const REST: Duration = Duration::from_millis(500);
/// Most suggestions for a name that does not exist.
const SUGGESTIONS_MAX: usize = 3;

/// One plugin task.
pub(super) struct PluginTask<'a> {
    tasks: &'a Tasks,
    plugin: String,
    enable: bool,
}

impl<'a> PluginTask<'a> {
    /// Understands a task; the reason of an error is for people.
    pub(super) fn new(tasks: &'a Tasks, task: &Task) -> Result<Self, String> {
        let enable = match task.name.as_str() {
            "plugin-enable" => true,
            "plugin-disable" => false,
            other => return Err(format!("this agent has no task \"{other}\"; it has {}", NAMES.join(", "))),
        };
        Ok(Self { tasks, plugin: params::plugin(&task.params)?, enable })
    }

    /// Changes nothing. A change of which nobody could tell how it ended is refused here, before anything is stopped.
    pub(super) async fn check(&self) -> TaskResult {
        let (package, _) = match self.state().await {
            Ok(state) => state,
            Err(reason) => return TaskResult::Failed(reason),
        };
        match self.tasks.proofs.loaded(&self.tasks.api, &package).await {
            Ok(Loaded::Yes | Loaded::No | Loaded::Partly) => TaskResult::Done,
            Ok(Loaded::Unknown) => TaskResult::Failed(unprovable(&package)),
            Err(error) => TaskResult::Failed(error.to_string()),
        }
    }

    /// Does it, if it is not done already.
    pub(super) async fn run(&self) -> TaskEnd {
        let failed = |reason| TaskEnd::Ended(TaskResult::Failed(reason));
        // An agent that has lost its ledger does not know that it has begun this before.
        if let Err(end) = self.rest(Duration::ZERO).await {
            return end;
        }
        let (package, enabled) = match self.state().await {
            Ok(state) => state,
            Err(reason) => return failed(reason),
        };
        if enabled == self.enable && self.proven(&package).await.is_ok() {
            return TaskEnd::Ended(TaskResult::Done);
        }
        let action = if self.enable { "enable" } else { "disable" };
        let path = format!("pm:{action}?filterByTk={}&awaitResponse=true", encode(&package));
        let asked = self.tasks.api.post(&path, self.tasks.limits.request).await;
        if let Err(error) = &asked
            && !error.may_have_effect()
        {
            return failed(error.to_string());
        }
        // An awaited answer means that the command has ended; without one it may be under way unseen.
        let rest = if asked.is_ok() { Duration::ZERO } else { REST };
        if let Err(end) = self.rest(rest).await {
            return end;
        }
        // The answer to the request is not evidence in either direction; what the app has now is.
        match (self.done(&package).await, asked) {
            (Ok(()), _) => TaskEnd::Ended(TaskResult::Done),
            (Err(_), Err(ApiError::Status { message, .. })) => failed(message),
            (Err(reason), _) => failed(reason),
        }
    }

    /// Waits until nothing is under way, then looks.
    pub(super) async fn recover(&self) -> TaskEnd {
        if let Err(end) = self.rest(REST).await {
            return end;
        }
        TaskEnd::Ended(match self.state().await {
            Ok((package, enabled)) if enabled == self.enable && self.proven(&package).await.is_ok() => {
                TaskResult::Done
            }
            Ok(_) | Err(_) => TaskResult::Interrupted,
        })
    }

    /// The plugin's package name and whether the database says that it is enabled.
    async fn state(&self) -> Result<(String, bool), String> {
        let plugins = self.tasks.api.plugins().await.map_err(|error| error.to_string())?;
        match find_plugin(&plugins, &self.plugin) {
            Some(plugin) => Ok((plugin.package_name.clone(), plugin.enabled)),
            None => Err(self.unknown(&plugins)),
        }
    }

    fn unknown(&self, plugins: &[Plugin]) -> String {
        let mut close: Vec<(usize, &str)> = plugins
            .iter()
            .map(|plugin| {
                let names = [Some(plugin.package_name.as_str()), short_name(plugin)];
                let distance =
                    names.iter().flatten().map(|name| strsim::osa_distance(name, &self.plugin)).min();
                (distance.unwrap_or(usize::MAX), plugin.package_name.as_str())
            })
            .filter(|(distance, _)| *distance <= 2 + self.plugin.len() / 8)
            .collect();
        close.sort_unstable();
        let close: Vec<&str> = close.into_iter().take(SUGGESTIONS_MAX).map(|(_, name)| name).collect();
        let hint = match close.as_slice() {
            [] => "its package must be installed on this node first".to_owned(),
            names => format!("did you mean {}?", names.join(" or ")),
        };
        format!("this node has no plugin \"{}\"; {hint}", self.plugin)
    }

    /// Whether the list and the process say what is wanted.
    async fn done(&self, package: &str) -> Result<(), String> {
        let (_, enabled) = self.state().await?;
        if enabled != self.enable {
            let state = if enabled { "enabled" } else { "not enabled" };
            return Err(format!("the app says afterwards that {package} is {state}"));
        }
        self.proven(package).await
    }

    async fn proven(&self, package: &str) -> Result<(), String> {
        self.tasks.proofs.require(&self.tasks.api, package, self.enable).await
    }

    /// Waits until the app has been at rest for some time. A lasting error is rest, too: nothing is under way, and it is the result.
    async fn rest(&self, span: Duration) -> Result<(), TaskEnd> {
        let deadline = Instant::now() + self.tasks.limits.quiet;
        let mut prober = Prober::default();
        let mut healthy_since = None;
        loop {
            let health = self.tasks.api.health().await;
            let now = Instant::now();
            if health == Health::Ok {
                if now.duration_since(*healthy_since.get_or_insert(now)) >= span {
                    return Ok(());
                }
            } else {
                healthy_since = None;
                if let Verdict::Failed(why) = prober.judge(&health, None, None, now.into_std()) {
                    return Err(TaskEnd::Ended(TaskResult::Failed(why)));
                }
            }
            if now >= deadline {
                return Err(TaskEnd::UnderWay(health.text()));
            }
            sleep(ASK_AGAIN).await;
        }
    }
}
