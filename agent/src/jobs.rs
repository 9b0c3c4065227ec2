//! What the agent does beside its loop: everything that takes longer than a moment. A job touches the host and
//! reports its end; it decides nothing and writes no ledger.

use std::sync::Arc;
use std::time::Duration;

use soloist_core::assignment::{Proof, RunMode, Task, TaskKey, TaskPhase, TaskResult};
use soloist_core::evidence::Sessions;
use soloist_core::ids::{Generation, Launch, Version};
use soloist_core::preflight::NodeFacts;
use soloist_proto::v1;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::driver::{AppCommand, Driver, DriverError, LaunchPlan, ProcessDriver, StopOutcome};
use crate::ending::{self, Running};
use crate::evidence::boot_ms;
use crate::keeper::LogBounds;
use crate::preflight::Gatherer;
use crate::probe::{Health, Prober, Verdict};
use crate::profile::{Drift, Facts, Profile, Versions};
use crate::task::{LongTasks, Output, TaskEnd, TaskLimits, Tasks};
use crate::work::{Work, WorkLog};

/// Pause before a task that may still be under way is looked at again.
const RECOVER_EVERY: Duration = Duration::from_millis(500);
/// Pause before a proof that failed is tried again: an app lies for some tenths of a second around a reload.
const PROVE_AGAIN: Duration = Duration::from_millis(700);
/// Looks at a starting app within one round of the loop, and the pause between them: what comes to serve is seen soon.
const LOOKS: u32 = 5;
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Results that may wait for the loop.
pub const RESULTS_MAX: usize = 32;

/// The end of a job.
#[derive(Debug)]
pub enum Done {
    /// The app was executed, or was not.
    Launched(Result<(), DriverError>),
    /// The command to execute in this mode was made, or could not be; with the number of the code that it is for.
    Prepared(RunMode, Result<AppCommand, String>, u64),
    /// The app was stopped, or was not; and what that cut off, if something ran.
    Stopped(Result<StopOutcome, DriverError>, Option<Vec<String>>),
    /// What runs inside the app was looked for, in this round of looks.
    Inside(u64, Option<WorkLog>, Result<Vec<Work>, String>),
    /// Facts were read, of the code with this number.
    Facts(Facts, u64),
    /// The app was looked at.
    Looked(Prober, Health, Verdict),
    /// A task's check or run ended, with what it found or made.
    Task(TaskKey, TaskPhase, TaskResult, Output),
    /// How far a task is.
    Progress(String),
    /// A proof was brought, or why not.
    Proved(Proof, Result<(), String>),
    /// The plugins were listed.
    Listed(v1::Inventory),
    /// They could not be listed.
    NotListed,
    /// What the app has loaded was compared, of the process that has served since then; nothing if that could not be done.
    Compared(Option<Instant>, Option<Drift>),
    /// The database's sessions were looked at, at this time since boot.
    Sampled(u64, Result<Sessions, String>),
    /// Facts for preflight were gathered, for this number.
    Gathered(Box<NodeFacts>, u64),
}

/// Starts jobs.
#[derive(Debug, Clone)]
pub struct Jobs {
    profile: Arc<Profile>,
    driver: ProcessDriver,
    tasks: Arc<LongTasks>,
    gatherer: Arc<Gatherer>,
    done: mpsc::Sender<Done>,
}

impl Jobs {
    /// Jobs on this node's app; their ends come out of the receiver of `done`.
    pub fn new(
        profile: Arc<Profile>,
        driver: ProcessDriver,
        gatherer: Arc<Gatherer>,
        tasks: LongTasks,
        done: mpsc::Sender<Done>,
    ) -> Self {
        Self { profile, driver, gatherer, tasks: Arc::new(tasks), done }
    }

    fn spawn(&self, job: impl Future<Output = Done> + Send + 'static) {
        let done = self.done.clone();
        tokio::spawn(async move {
            let end = job.await;
            // Nobody listens once the agent goes down.
            let _ = done.send(end).await;
        });
    }

    /// Makes the command to execute; nothing is started. A switch to other code gives the code another number.
    pub fn prepare(&self, mode: RunMode, code: u64) {
        let this = self.clone();
        self.spawn(async move {
            let command = this.profile.command(mode).await.map_err(|error| error.to_string());
            Done::Prepared(mode, command, code)
        });
    }

    /// Executes the app; the ledger names the launch already. `grace` is for a keeper that is stopped by others than the agent; without
    /// one it is the usual one of the app.
    pub fn launch(
        &self,
        launch: Launch,
        command: AppCommand,
        generation: Generation,
        grace: Option<Duration>,
    ) {
        let this = self.clone();
        self.spawn(async move {
            let (log, grace) = (LogBounds::default(), this.grace(grace).await);
            let plan = LaunchPlan { launch, generation: Some(generation), command, grace, log };
            Done::Launched(this.driver.start(plan).await)
        });
    }

    /// Stops the app, with this time between SIGTERM and SIGKILL, or the usual one; the ledger has no ticket any more.
    pub fn stop(&self, may_kill: bool, grace: Option<Duration>, running: Option<Running>) {
        let this = self.clone();
        self.spawn(async move {
            let grace = this.grace(grace).await;
            let (outcome, cut) = ending::end(&this.profile, &this.driver, running, grace, may_kill).await;
            Done::Stopped(outcome, cut)
        });
    }

    async fn grace(&self, grace: Option<Duration>) -> Duration {
        match grace {
            Some(grace) => grace,
            None => ending::usual_grace(&self.profile).await,
        }
    }

    /// Looks what runs inside the app, with the log as far as it was read.
    pub fn look_inside(&self, round: u64, log: Option<WorkLog>, running: Running) {
        let this = self.clone();
        self.spawn(async move {
            let log = match log {
                Some(log) => log,
                None => ending::new_log(&this.profile, &this.driver, running.launch).await,
            };
            let (log, works) = ending::look_inside(&this.profile, log, running).await;
            Done::Inside(round, log, works)
        });
    }

    /// Reads the facts; `code` is the number of the code that they are of.
    pub fn read_facts(&self, code: u64) {
        let this = self.clone();
        self.spawn(async move { Done::Facts(this.profile.facts().await, code) });
    }

    /// Looks at the running app, and once more soon if it does not serve yet.
    pub fn look(&self, mut prober: Prober, code: Option<Version>) {
        let this = self.clone();
        self.spawn(async move {
            let mut looks = 1;
            loop {
                let (health, verdict) = this.profile.look(&mut prober, code.as_ref()).await;
                if looks == LOOKS || verdict == Verdict::Serving {
                    return Done::Looked(prober, health, verdict);
                }
                looks += 1;
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        });
    }

    /// Checks or runs a task, or finds out how it ended if it was begun before.
    pub fn task(&self, task: Task, begun_before: bool) {
        let this = self.clone();
        self.spawn(async move {
            if this.tasks.have(&task.name) {
                let done = this.done.clone();
                let tell = move |text| {
                    // A loop that is busy takes the next one.
                    let _ = done.try_send(Done::Progress(text));
                };
                let (result, output) = this.tasks.perform(&task, begun_before, tell).await;
                return Done::Task(task.key, task.phase, result, output);
            }
            let result = match this.plugin_tasks().await {
                Ok(tasks) => tasks_end(&tasks, &task, begun_before).await,
                Err(reason) => TaskResult::Failed(reason),
            };
            Done::Task(task.key, task.phase, result, Output::new())
        });
    }

    async fn plugin_tasks(&self) -> Result<Tasks, String> {
        let api = self.profile.api().await.map_err(|error| error.to_string())?;
        let api = api.ok_or("this node's app has no API: set api_url in its [app] table")?;
        Ok(Tasks::new(api, self.profile.proofs().clone(), TaskLimits::default()))
    }

    /// Tries to prove what is loaded; `since` says whether the process was launched after the change.
    pub fn prove(&self, proof: Proof, since: bool) {
        let this = self.clone();
        self.spawn(async move {
            let proven = match this.profile.api().await {
                Ok(Some(api)) => this.profile.proofs().prove(&api, &proof, since).await,
                Ok(None) => Err("this node's app has no API".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            if proven.is_err() {
                tokio::time::sleep(PROVE_AGAIN).await;
            }
            Done::Proved(proof, proven)
        });
    }

    /// Looks at the sessions in the app's database.
    pub fn sample(&self) {
        let this = self.clone();
        self.spawn(async move {
            let sessions = this.profile.connected().await;
            Done::Sampled(boot_ms(), sessions)
        });
    }

    /// Gathers facts for preflight, as an answer to this number.
    pub fn gather(&self, answers: u64) {
        let this = self.clone();
        self.spawn(
            async move { Done::Gathered(Box::new(this.gatherer.gather(&this.profile).await), answers) },
        );
    }

    /// Compares what the app has loaded with what it should have; `since` comes back with the answer.
    pub(crate) fn compare(&self, before: Option<Versions>, since: Option<Instant>) {
        let this = self.clone();
        self.spawn(async move {
            let drift = match this.profile.drift(before.as_ref()).await {
                Some(Ok(drift)) => Some(drift),
                Some(Err(why)) => {
                    tracing::debug!(%why, "what the app has loaded is not known");
                    None
                }
                None => None,
            };
            Done::Compared(since, drift)
        });
    }

    /// Lists the app's plugins.
    pub fn list(&self) {
        let this = self.clone();
        self.spawn(async move {
            let Ok(Some(api)) = this.profile.api().await else { return Done::NotListed };
            if !api.has_credential() {
                return Done::NotListed;
            }
            let Ok(plugins) = api.plugins().await else { return Done::NotListed };
            let plugins = plugins.into_iter().map(|plugin| v1::PluginInfo {
                name: crate::probe::short_name(&plugin).unwrap_or_default().to_owned(),
                package: plugin.package_name,
                enabled: plugin.enabled,
            });
            Done::Listed(v1::Inventory { plugins: plugins.collect() })
        });
    }
}

/// A result counts only once nothing of the task is under way any more.
async fn tasks_end(tasks: &Tasks, task: &Task, begun_before: bool) -> TaskResult {
    let mut end = if begun_before { tasks.recover(task).await } else { tasks.perform(task).await };
    loop {
        match end {
            TaskEnd::Ended(result) => return result,
            TaskEnd::UnderWay(why) => {
                tracing::info!(task = %task.name, %why, "task is still under way");
                tokio::time::sleep(RECOVER_EVERY).await;
                end = tasks.recover(task).await;
            }
        }
    }
}
