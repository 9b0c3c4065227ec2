//! Verifying a node before users come back to it: it serves the wanted version, and the fleet's checks are good. Nothing is
//! changed by it, so check and run are the same, and what was cut off is begun anew.

mod http;
mod packages;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use soloist_core::assignment::{OUTPUT_MAX, Proof, Task, TaskResult};
use soloist_core::check::{Check, What};
use soloist_core::ids::{FleetId, NodeId, Version};
use soloist_core::upgrade::{DIGEST, VERIFY};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use self::http::Asker;
use super::Output;
use super::owner::Owner;
use crate::probe::{Prober, Verdict};
use crate::profile::Profile;

/// Names of the tasks in this file.
pub(super) const NAMES: [&str; 1] = [VERIFY];

/// Between two tries of one check.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is asked whether the app serves: it may pause for a moment.
const SERVING_TRIES: u32 = 5;
/// What the output says of all checks together.
const COUNT: &str = "checks";

/// Does the task of one node.
#[derive(Debug)]
pub struct VerifyTasks {
    profile: Arc<Profile>,
    commands: BTreeMap<String, Vec<String>>,
    owner: Owner,
}

impl VerifyTasks {
    /// Verifies a node; `commands` are the programs that checks may name.
    #[must_use]
    pub fn new(
        profile: Arc<Profile>,
        commands: BTreeMap<String, Vec<String>>,
        fleet: FleetId,
        node: NodeId,
    ) -> Self {
        Self { profile, commands, owner: Owner { fleet, node } }
    }

    /// Verifies the node, in either phase. A result means that nothing of it is still under way.
    pub async fn perform(&self, task: &Task, tell: &watch::Sender<String>) -> (TaskResult, Output) {
        let mut output = Output::new();
        let result = match self.try_perform(task, tell, &mut output).await {
            Ok(()) => TaskResult::Done,
            Err(why) => TaskResult::Failed(why),
        };
        output.insert(COUNT.into(), task.checks.len().to_string());
        (result, output)
    }

    /// Ends what an earlier run of the agent has begun. A check has no effects, so nothing is ever done.
    pub async fn recover(&self) -> (TaskResult, Output) {
        self.owner.interrupted().await
    }

    async fn try_perform(
        &self,
        task: &Task,
        tell: &watch::Sender<String>,
        output: &mut Output,
    ) -> Result<(), String> {
        self.owner.end_leftovers().await?;
        let version = task.params.get("version").map(|version| Version(version.clone()));
        tell.send_replace("looking whether the app serves".into());
        self.serves(version.as_ref()).await?;
        packages::verify(&self.profile, task).await?;
        for check in &task.checks {
            tell.send_replace(format!("check \"{}\"", check.name));
            let how = self.check(task, check).await;
            // One place is for their number.
            if output.len() + 1 < OUTPUT_MAX {
                // These two mean something else to the coordinators.
                let taken = [COUNT, DIGEST].contains(&check.name.as_str());
                let name = if taken { format!("check {}", check.name) } else { check.name.clone() };
                output.insert(name, how.clone().unwrap_or_else(|_| "failed".into()));
            }
            how?;
        }
        Ok(())
    }

    /// Whether the app serves, with this version if one is asked for.
    async fn serves(&self, version: Option<&Version>) -> Result<(), String> {
        let mut prober = Prober::default();
        let mut tries = 1;
        loop {
            let why = match self.try_serves(version, &mut prober).await {
                Ok(()) => return Ok(()),
                Err(why) => why,
            };
            if tries >= SERVING_TRIES {
                return Err(format!("the app does not serve as it should: {why}"));
            }
            tries += 1;
            sleep(AGAIN).await;
        }
    }

    async fn try_serves(&self, version: Option<&Version>, prober: &mut Prober) -> Result<(), String> {
        let facts = self.profile.facts().await;
        if let Some(wanted) = version {
            let code = facts.code.as_ref().ok_or_else(|| {
                facts.refusal.clone().unwrap_or_else(|| {
                    format!("version {wanted} is expected, and the version of the code cannot be read")
                })
            })?;
            if code != wanted {
                return Err(format!("version {wanted} is expected, and the code has version {code}"));
            }
            let database = facts.database.as_ref().ok_or_else(|| {
                facts
                    .database_error
                    .clone()
                    .unwrap_or_else(|| "the app tells nothing of its database".to_owned())
            })?;
            if database.version.as_ref() != Some(wanted) {
                let found = database.version.as_ref().map_or("none".to_owned(), ToString::to_string);
                return Err(format!("version {wanted} is expected, and the database has version {found}"));
            }
        }
        match self.profile.look(prober, facts.code.as_ref()).await.1 {
            Verdict::Serving => Ok(()),
            Verdict::NotYet(why) | Verdict::Failed(why) => Err(why),
        }
    }

    /// How a check was good: `ok, 12 ms, try 1`.
    async fn check(&self, task: &Task, check: &Check) -> Result<String, String> {
        let tries = check.tries.max(1);
        let prepared = self.prepare(check).await;
        let prepared = prepared.map_err(|why| format!("check \"{}\" cannot be made: {why}", check.name))?;
        let mut number = 1;
        loop {
            let began = Instant::now();
            let why = match self.try_check(task, check, &prepared).await {
                Ok(()) => return Ok(format!("ok, {} ms, try {number}", began.elapsed().as_millis())),
                Err(why) => why,
            };
            if number >= tries {
                let times = if tries == 1 { String::new() } else { format!(" after {tries} tries") };
                return Err(format!("check \"{}\" failed{times}: {why}", check.name));
            }
            number += 1;
            sleep(AGAIN).await;
        }
    }

    /// What no further try would change.
    async fn prepare(&self, check: &Check) -> Result<Prepared, String> {
        let origin = self.profile.origin().await;
        match &check.what {
            What::Http { .. } => Ok(Prepared { origin: origin?, argv: Vec::new() }),
            What::Command { command } => {
                let argv = self.commands.get(command).cloned().ok_or_else(|| {
                    let known: Vec<&str> = self.commands.keys().map(String::as_str).collect();
                    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                    format!(
                        "the command \"{command}\" is not configured on this node; add it to [checks] in its agent's \
                         configuration, which has {known}"
                    )
                })?;
                // A command may know by itself where the app listens.
                Ok(Prepared { origin: origin.unwrap_or_default(), argv })
            }
            What::Plugin { .. } => Ok(Prepared { origin: String::new(), argv: Vec::new() }),
        }
    }

    async fn try_check(&self, task: &Task, check: &Check, prepared: &Prepared) -> Result<(), String> {
        let limit = Duration::from_millis(check.timeout.0);
        let late = |_| Err(format!("no answer within {}", check.timeout));
        match &check.what {
            What::Http { path, status, header, json } => {
                let asker = Asker::new(&prepared.origin)?;
                let asked = asker.ask(path, *status, header.as_ref(), json.as_ref());
                timeout(limit, asked).await.unwrap_or_else(late)
            }
            What::Plugin { plugin } => timeout(limit, self.has_loaded(plugin)).await.unwrap_or_else(late),
            What::Command { .. } => {
                let more = [("SOLOIST_APP_URL", prepared.origin.clone())];
                let ended = self.owner.run(task, prepared.argv.clone(), &more, limit, |_| {}).await;
                ended.map(drop).map_err(|error| error.to_string())
            }
        }
    }

    async fn has_loaded(&self, plugin: &str) -> Result<(), String> {
        let api = self.profile.api().await.map_err(|error| error.to_string())?;
        let api = api.ok_or("this node's app has no API: set api_url in its [app] table")?;
        let proof = Proof { plugin: plugin.to_owned(), loaded: true, since: None };
        self.profile.proofs().prove(&api, &proof, false).await
    }
}

/// What the tries of a check have in common.
struct Prepared {
    /// Where the app listens, if that is known.
    origin: String,
    /// The program of a command.
    argv: Vec<String>,
}
