//! The agent's loop: observe → reconcile → execute → report.
//!
//! One task owns the ledger and decides; whatever takes longer than a moment is a [job](crate::jobs). What to do and what
//! to report is decided by `soloist_core::agent`; this file only carries it out.

use std::sync::Arc;
use std::time::Duration;

use soloist_core::agent::{
    Action, AppSeen as CoreApp, Facts as CoreFacts, Health as CoreHealth, Ledger, Seen, accept, observe,
    reconcile, restart_delay,
};
use soloist_core::assignment::{Proof, Run, RunMode, Task, TaskKey, TaskPhase, TaskResult};
use soloist_core::command::Registration;
use soloist_core::ids::{BootId, Generation, Incarnation, Launch, MachineId, Version};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::driver::{AppCommand, AppSeen, Driver, DriverError, ProcessDriver};
use crate::host::{Scan, ScanQuery, scan};
use crate::jobs::{Done, Jobs};
use crate::ledger::LedgerFile;
use crate::probe::{Prober, Verdict};
use crate::profile::{Facts, Profile};
use crate::session::{News, Outgoing};
use crate::status::Status;

/// Pause between rounds while something is under way.
const ROUND_BUSY: Duration = Duration::from_millis(100);
/// Pause between rounds while nothing is: the longest time until a foreign process is seen.
const ROUND_IDLE: Duration = Duration::from_millis(1000);
/// Facts older than this do not allow a launch.
const FACTS_FRESH: Duration = Duration::from_secs(2);
/// How often facts are read while nothing runs.
const FACTS_EVERY: Duration = Duration::from_secs(3);
/// How often facts are read while the app serves.
const FACTS_SERVING: Duration = Duration::from_secs(30);
/// How often a serving app is looked at.
const LOOK_SERVING: Duration = Duration::from_secs(2);
/// How often plugins are listed.
const LIST_EVERY: Duration = Duration::from_secs(20);
/// An app that has served for so long starts counting its restarts anew.
const STABLE_AFTER: Duration = Duration::from_secs(600);
/// A run that never registered and is refused for so long gives up: people must settle who is who.
const REFUSED_MAX: Duration = Duration::from_secs(20);

/// The loop could not go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The ledger cannot be written.
    #[error(transparent)]
    Ledger(#[from] crate::ledger::LedgerError),
    /// The host does not tell who it is.
    #[error(transparent)]
    Identity(#[from] crate::host::IdentityError),
    /// The exec lock cannot be taken.
    #[error("cannot take the node's exec lock: {0}")]
    ExecLock(std::io::Error),
    /// The coordinators refuse this agent.
    #[error("the coordinators refuse this agent: {0}")]
    Refused(String),
}

/// What the loop needs.
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// The ledger.
    pub ledger: LedgerFile,
    /// The app's profile.
    pub profile: Arc<Profile>,
    /// The driver.
    pub driver: ProcessDriver,
    /// The machine.
    pub machine: MachineId,
    /// The boot.
    pub boot: BootId,
    /// From the session.
    pub news: mpsc::Receiver<News>,
    /// To the session.
    pub outgoing: watch::Sender<Outgoing>,
    /// For the session's next greeting.
    pub registration: watch::Sender<Registration>,
    /// For HTTP.
    pub status: watch::Sender<Status>,
    /// Starts jobs.
    pub jobs: Jobs,
    /// Ends of jobs.
    pub done: mpsc::Receiver<Done>,
}

/// Who this run of the agent is; the ledger is written before anyone is told.
pub fn introduce(
    config: &Config,
    ledger: &mut LedgerFile,
    machine: &MachineId,
    boot: &BootId,
) -> Result<Registration, crate::ledger::LedgerError> {
    let incarnation = Incarnation(rand::random());
    ledger.store(ledger.ledger().begin_run(incarnation))?;
    Ok(registration(config, ledger.ledger(), incarnation, machine, boot))
}

fn registration(
    config: &Config,
    ledger: &Ledger,
    incarnation: Incarnation,
    machine: &MachineId,
    boot: &BootId,
) -> Registration {
    Registration {
        incarnation,
        lineage: ledger.lineage.clone(),
        fresh: ledger.fresh(),
        machine: machine.clone(),
        boot: boot.clone(),
        address: config.shown_address(),
    }
}

/// The loop's memory. Nothing of it must survive: what must is in the ledger.
struct Agent {
    parts: Parts,
    registered: bool,
    ever_registered: bool,
    member: Option<u64>,
    lost: String,
    refused_since: Option<Instant>,
    app: AppSeen,
    scan: Scan,
    launching: bool,
    stopping: bool,
    /// The command of the next launch: made before a right is spent on it.
    prepared: Option<(RunMode, AppCommand, Instant)>,
    preparing: bool,
    /// Why the last launch came to nothing.
    launch_error: Option<(String, Instant)>,
    facts: Option<(Facts, Instant)>,
    facts_wanted: bool,
    facts_reading: bool,
    prober: Option<Prober>,
    looked: Instant,
    health: CoreHealth,
    progress: String,
    serving_since: Option<Instant>,
    restarts: u32,
    restart_at: Option<Instant>,
    busy: Option<Task>,
    checked: Option<(TaskKey, TaskResult)>,
    proving: bool,
    proved: Option<Proof>,
    unproved: Option<String>,
    listed: Option<Instant>,
    listing: bool,
    acked: u64,
}

/// Runs until told to stop, or until it must not go on. The app is left alone either way.
pub async fn run(parts: Parts, stop: CancellationToken) -> Result<(), AgentError> {
    let mut agent = Agent {
        parts,
        registered: false,
        ever_registered: false,
        member: None,
        lost: String::new(),
        refused_since: None,
        app: AppSeen::NotRunning { last_exit: None },
        scan: Scan::default(),
        launching: false,
        stopping: false,
        prepared: None,
        preparing: false,
        launch_error: None,
        facts: None,
        facts_wanted: true,
        facts_reading: false,
        prober: Some(Prober::default()),
        looked: Instant::now(),
        health: CoreHealth::Starting,
        progress: String::new(),
        serving_since: None,
        restarts: 0,
        restart_at: None,
        busy: None,
        checked: None,
        proving: false,
        proved: None,
        unproved: None,
        listed: None,
        listing: false,
        acked: 0,
    };
    loop {
        agent.look().await;
        agent.act()?;
        agent.report();
        let round = Instant::now() + agent.pause();
        let driver = agent.parts.driver.clone();
        let seen = agent.app.clone();
        // Cancel-safe: channels lose nothing, and the driver's notice is level-triggered.
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(news) = agent.parts.news.recv() => agent.hear(news)?,
            Some(done) = agent.parts.done.recv() => agent.finish(done)?,
            () = driver.changed(&seen) => {}
            () = sleep_until(round) => {}
        }
        // Whatever else has come is taken in the same round.
        while let Ok(news) = agent.parts.news.try_recv() {
            agent.hear(news)?;
        }
        while let Ok(done) = agent.parts.done.try_recv() {
            agent.finish(done)?;
        }
    }
}

impl Agent {
    fn ledger(&self) -> &Ledger {
        self.parts.ledger.ledger()
    }

    fn generation(&self) -> Generation {
        self.ledger().assignment.as_ref().map_or(Generation(0), |assignment| assignment.generation)
    }

    fn wanted(&self) -> Run {
        let current = self.ledger().assignment.as_ref().filter(|_| self.ledger().boot == self.parts.boot);
        current.map_or(Run::Stop, |assignment| assignment.spec.run)
    }

    fn pause(&self) -> Duration {
        let steady = !self.launching
            && !self.stopping
            && self.busy.is_none()
            && !self.proving
            && self.wanted() != Run::Stop
            && self.health == CoreHealth::Serving;
        let at_rest = self.wanted() == Run::Stop && !self.app.runs() && !self.stopping;
        if steady || at_rest { ROUND_IDLE } else { ROUND_BUSY }
    }

    // ---- observe ----

    async fn look(&mut self) {
        match self.parts.driver.observe().await {
            Ok(app) => {
                let same = launch_of(&app) == launch_of(&self.app);
                if !same || !app.runs() {
                    self.prober.get_or_insert_default().reset();
                    self.health = CoreHealth::Starting;
                    self.serving_since = None;
                    self.proved = None;
                    self.unproved = None;
                    self.listed = None;
                }
                self.app = app;
            }
            Err(error) => tracing::warn!(%error, "the app's processes cannot be seen"),
        }
        let pattern = self.parts.profile.pattern().await;
        let query = ScanQuery {
            fleet: self.parts.config.fleet.clone(),
            marker: self.parts.driver.marker().clone(),
            app: pattern,
        };
        match tokio::task::spawn_blocking(move || scan(&query)).await {
            Ok(Ok(found)) => self.scan = found,
            Ok(Err(error)) => tracing::warn!(%error, "the process table cannot be read"),
            Err(error) => tracing::warn!(%error, "the look at the process table ended early"),
        }
        self.look_closer();
    }

    /// Starts the looks that take longer.
    fn look_closer(&mut self) {
        let every = if self.health == CoreHealth::Serving { LOOK_SERVING } else { ROUND_BUSY };
        if self.app.runs()
            && !self.stopping
            && self.looked.elapsed() >= every
            && let Some(prober) = self.prober.take()
        {
            self.looked = Instant::now();
            self.parts.jobs.look(prober, self.code());
        }
        let every = if self.health == CoreHealth::Serving { FACTS_SERVING } else { FACTS_EVERY };
        let old = self.facts.as_ref().is_none_or(|(_, read)| read.elapsed() >= every);
        if (old || self.facts_wanted) && !self.facts_reading {
            self.facts_reading = true;
            self.facts_wanted = false;
            self.parts.jobs.read_facts();
        }
        let list = self.listed.is_none_or(|at| at.elapsed() >= LIST_EVERY);
        if self.health == CoreHealth::Serving && list && !self.listing && self.busy.is_none() {
            self.listing = true;
            self.parts.jobs.list();
        }
        if self.serving_since.is_some_and(|since| since.elapsed() >= STABLE_AFTER) {
            self.restarts = 0;
        }
    }

    fn code(&self) -> Option<Version> {
        self.facts.as_ref().and_then(|(facts, _)| facts.code.clone())
    }

    fn seen(&mut self) -> Seen {
        let app = self.core_app();
        if matches!(app, CoreApp::Ended(_)) && self.restart_at.is_none() && self.wanted() != Run::Stop {
            let jitter = u64::from(rand::random::<u16>()) % 1001;
            self.restart_at = restart_delay(self.restarts, jitter)
                .map(|pause| Instant::now() + Duration::from_millis(pause.0));
            self.restarts = self.restarts.saturating_add(1);
        }
        Seen {
            boot: self.parts.boot.clone(),
            may_restart: self.restart_at.is_some_and(|at| at <= Instant::now()),
            app,
            facts: self.facts.as_ref().map(|(facts, _)| CoreFacts {
                code: facts.code.clone(),
                database: facts.database.clone(),
                upgrading: facts.upgrading,
                problem: facts
                    .refusal
                    .clone()
                    .or_else(|| facts.database_error.clone().filter(|_| facts.database.is_none()))
                    .or_else(|| self.launch_error.as_ref().map(|(why, _)| why.clone())),
            }),
            foreign: self.scan.foreign.clone(),
            holders: self.scan.holders.clone(),
            busy: self.busy.clone(),
            checked: self.checked.clone(),
            proved: self.proved.clone(),
            unproved: self.unproved.clone(),
        }
    }

    fn core_app(&self) -> CoreApp {
        if self.stopping {
            return CoreApp::Stopping;
        }
        match &self.app {
            AppSeen::Running { generation, .. } => {
                CoreApp::Running { launched: *generation, health: self.health.clone() }
            }
            AppSeen::NotRunning { .. } if self.launching => CoreApp::Launching,
            AppSeen::NotRunning { last_exit } => {
                let ticket = self.ledger().launch.as_ref();
                let ended = last_exit.as_ref().filter(|exit| {
                    !exit.asked
                        && ticket.is_some_and(|ticket| ticket.launch == exit.launch)
                        && exit.boot == self.parts.boot
                });
                ended.map_or(CoreApp::Gone, |exit| CoreApp::Ended(exit.how.to_string()))
            }
        }
    }

    // ---- execute ----

    fn act(&mut self) -> Result<(), AgentError> {
        let seen = self.seen();
        for action in reconcile(self.ledger(), &seen) {
            match action {
                Action::Stop { may_kill } => self.stop(may_kill)?,
                Action::Launch { mode, generation } => self.launch(mode, generation)?,
                Action::Check(task) => {
                    self.busy = Some(task.clone());
                    self.parts.jobs.task(task, false);
                }
                Action::RunTask(task) => {
                    let next = self.ledger().with_task(task.key.clone(), None);
                    self.parts.ledger.store(next)?;
                    tracing::info!(task = %task.name, operation = %task.key.operation, attempt = task.key.attempt, "task begins");
                    self.busy = Some(task.clone());
                    self.parts.jobs.task(task, false);
                }
                Action::RecoverTask(task) => {
                    tracing::info!(task = %task.name, operation = %task.key.operation, "task of an earlier run is looked at");
                    self.busy = Some(task.clone());
                    self.parts.jobs.task(task, true);
                }
                Action::Prove(proof) => {
                    if !self.proving {
                        self.proving = true;
                        // `reconcile` asks for it only of a process that was launched late enough.
                        self.parts.jobs.prove(proof, true);
                    }
                }
            }
        }
        Ok(())
    }

    /// Launches once facts and command are fresh; asks for them until then. Nothing is spent before both are there.
    fn launch(&mut self, mode: RunMode, generation: Generation) -> Result<(), AgentError> {
        let fresh = self.facts.as_ref().is_some_and(|(_, read)| read.elapsed() < FACTS_FRESH);
        let prepared =
            self.prepared.take_if(|(made, _, at)| *made == mode && at.elapsed() < FACTS_FRESH && fresh);
        let Some((_, command, _)) = prepared else {
            self.facts_wanted |= !fresh;
            let old = self
                .prepared
                .as_ref()
                .is_none_or(|(made, _, at)| *made != mode || at.elapsed() >= FACTS_FRESH);
            if old && !self.preparing {
                self.preparing = true;
                self.parts.jobs.prepare(mode);
            }
            self.look_closer();
            return Ok(());
        };
        let launch = Launch(rand::random());
        let next = self.ledger().with_launch(launch, mode, &self.parts.boot);
        self.store_under_exec_lock(next)?;
        tracing::info!(?mode, %generation, %launch, "app is launched");
        self.launching = true;
        self.restart_at = None;
        self.parts.jobs.launch(launch, command, generation);
        Ok(())
    }

    fn stop(&mut self, may_kill: bool) -> Result<(), AgentError> {
        let next = self.ledger().without_launch();
        self.store_under_exec_lock(next)?;
        tracing::info!("app is stopped");
        self.stopping = true;
        self.restarts = 0;
        self.restart_at = None;
        self.launch_error = None;
        self.parts.jobs.stop(may_kill);
        Ok(())
    }

    fn store_under_exec_lock(&mut self, next: Ledger) -> Result<(), AgentError> {
        let ledger = &mut self.parts.ledger;
        self.parts.driver.with_exec_lock(|| ledger.store(next)).map_err(AgentError::ExecLock)??;
        Ok(())
    }

    // ---- news ----

    fn hear(&mut self, news: News) -> Result<(), AgentError> {
        match news {
            News::Registered { floor, member } => {
                let incarnation = self.parts.registration.borrow().incarnation;
                let next = self.ledger().confirmed(incarnation, floor);
                if next != *self.ledger() {
                    self.parts.ledger.store(next)?;
                }
                if !self.ever_registered {
                    tracing::info!(%member, %floor, "registered");
                }
                self.registered = true;
                self.ever_registered = true;
                self.refused_since = None;
                self.member = Some(member);
                self.lost.clear();
                let (config, parts) = (&self.parts.config, &self.parts);
                let next =
                    registration(config, parts.ledger.ledger(), incarnation, &parts.machine, &parts.boot);
                self.parts.registration.send_replace(next);
            }
            News::Assigned(assignment) => {
                match accept(self.ledger(), &assignment, &self.parts.boot, self.registered) {
                    Ok(Some(next)) => {
                        let before = self.wanted();
                        self.parts.ledger.store(next)?;
                        if before != self.wanted() {
                            tracing::info!(generation = %assignment.generation, run = %assignment.spec.run, "assigned");
                            self.facts_wanted = true;
                            self.launch_error = None;
                            self.restarts = 0;
                        }
                        if self.checked.as_ref().is_some_and(|(key, _)| {
                            assignment.spec.task.as_ref().is_none_or(|task| task.key != *key)
                        }) {
                            self.checked = None;
                        }
                    }
                    Ok(None) => {}
                    Err(stale) => tracing::debug!(%stale, "assignment refused"),
                }
            }
            News::Acked(sequence) => self.acked = self.acked.max(sequence),
            News::Refused { reason, text } => {
                self.registered = false;
                self.member = None;
                let since = *self.refused_since.get_or_insert_with(Instant::now);
                if self.lost != text {
                    tracing::error!(%reason, "{text}");
                }
                self.lost.clone_from(&text);
                let lasting = matches!(reason.as_str(), "other_agent" | "other_machine" | "rival" | "full");
                if lasting && !self.ever_registered && since.elapsed() >= REFUSED_MAX {
                    return Err(AgentError::Refused(text));
                }
            }
            News::Lost(why) => {
                self.member = None;
                if self.refused_since.is_none() {
                    self.lost = format!("no coordinator: {why}");
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self, done: Done) -> Result<(), AgentError> {
        match done {
            Done::Launched(Ok(())) => self.launching = false,
            Done::Launched(Err(error)) => {
                tracing::error!(%error, "the app was not launched");
                self.launching = false;
                if let DriverError::Slow(_) = error {
                    // Nobody knows whether it will start yet: nothing else is launched before that is settled.
                    self.stop(true)?;
                }
                self.launch_failed(error.to_string());
            }
            Done::Prepared(mode, Ok(command)) => {
                self.preparing = false;
                self.launch_error = None;
                self.prepared = Some((mode, command, Instant::now()));
            }
            Done::Prepared(_, Err(why)) => {
                tracing::error!(%why, "the app cannot be launched");
                self.preparing = false;
                self.launch_failed(why);
            }
            Done::Stopped(result) => {
                self.stopping = false;
                match result {
                    Ok(outcome) => tracing::info!(?outcome, "stop ended"),
                    Err(error) => tracing::error!(%error, "the app could not be stopped"),
                }
            }
            Done::Facts(facts) => {
                self.facts_reading = false;
                self.facts = Some((facts, Instant::now()));
                if self.launch_error.as_ref().is_some_and(|(_, at)| at.elapsed() >= FACTS_EVERY) {
                    self.launch_error = None;
                }
            }
            Done::Looked(prober, health, verdict) => {
                self.prober = Some(prober);
                if !self.app.runs() {
                    self.progress.clear();
                    return Ok(());
                }
                self.progress = match &verdict {
                    Verdict::Serving => String::new(),
                    Verdict::NotYet(why) => why.clone(),
                    Verdict::Failed(_) => health.text(),
                };
                self.health = match verdict {
                    Verdict::Serving => {
                        self.serving_since.get_or_insert_with(Instant::now);
                        CoreHealth::Serving
                    }
                    Verdict::NotYet(_) => CoreHealth::Starting,
                    Verdict::Failed(why) => CoreHealth::Failed(why),
                };
            }
            Done::Task(key, phase, result) => {
                tracing::info!(operation = %key.operation, attempt = key.attempt, ?phase, ?result, "task ended");
                self.busy = None;
                match phase {
                    TaskPhase::Check => self.checked = Some((key, result)),
                    TaskPhase::Run => {
                        let next = self.ledger().with_task(key, Some(result));
                        self.parts.ledger.store(next)?;
                    }
                }
            }
            Done::Proved(proof, result) => {
                self.proving = false;
                match result {
                    Ok(how) => {
                        tracing::info!(plugin = %proof.plugin, loaded = proof.loaded, ?how, "proved");
                        self.proved = Some(proof);
                        self.unproved = None;
                    }
                    Err(why) => self.unproved = Some(why),
                }
            }
            Done::Listed(inventory) => {
                self.listing = false;
                self.listed = Some(Instant::now());
                self.parts.outgoing.send_modify(|outgoing| outgoing.inventory = Some(inventory));
            }
            Done::NotListed => {
                self.listing = false;
                self.listed = Some(Instant::now());
            }
        }
        Ok(())
    }

    /// A launch that came to nothing is shown as a refusal, and tried again after a pause.
    fn launch_failed(&mut self, why: String) {
        self.launch_error = Some((why, Instant::now()));
    }

    // ---- report ----

    fn report(&mut self) {
        let seen = self.seen();
        let observed = observe(self.ledger(), &seen);
        let (accepted, registered) = (self.generation(), self.registered);
        let progress =
            if seen.app == CoreApp::Stopping { "stopping".to_owned() } else { self.progress.clone() };
        self.parts.outgoing.send_if_modified(|outgoing| {
            let mut changed = false;
            if registered && (outgoing.observed != observed || outgoing.sequence == 0) {
                outgoing.sequence += 1;
                outgoing.observed = observed.clone();
                changed = true;
            }
            outgoing.accepted = accepted;
            outgoing.progress.clone_from(&progress);
            changed
        });
        let pids = match &self.app {
            AppSeen::Running { pids, .. } => pids.clone(),
            AppSeen::NotRunning { .. } => Vec::new(),
        };
        let status = Status {
            fleet: self.parts.config.fleet.clone(),
            node: self.parts.config.node.clone(),
            member: self.member,
            registered: self.registered,
            waiting: self.waiting(),
            progress: self.progress.clone(),
            assignment: self.ledger().assignment.clone().filter(|_| self.ledger().boot == self.parts.boot),
            observed,
            pids,
            round: Instant::now(),
        };
        self.parts.status.send_replace(status);
    }

    /// Why nothing is done, for people.
    fn waiting(&self) -> String {
        let known = self.ledger().assignment.is_some() && self.ledger().boot == self.parts.boot;
        match (known, self.member.is_some()) {
            (true, true) => String::new(),
            (true, false) => format!("out of contact, so nothing changes here: {}", self.lost),
            (false, true) => "registered; the coordinators have not assigned anything yet".to_owned(),
            (false, false) => format!(
                "nothing is started before the coordinators were asked, and they do not answer: {}",
                if self.lost.is_empty() { "connecting" } else { &self.lost }
            ),
        }
    }
}

fn launch_of(app: &AppSeen) -> Option<(Option<Launch>, Option<u32>)> {
    match app {
        AppSeen::Running { launch, main, .. } => Some((*launch, main.as_ref().map(|main| main.pid))),
        AppSeen::NotRunning { .. } => None,
    }
}

/// A status before the first round.
pub fn first_status(config: &Config) -> Status {
    Status {
        fleet: config.fleet.clone(),
        node: config.node.clone(),
        member: None,
        registered: false,
        waiting: "starting".to_owned(),
        progress: String::new(),
        assignment: None,
        observed: soloist_core::assignment::Observed::default(),
        pids: Vec::new(),
        round: Instant::now(),
    }
}
