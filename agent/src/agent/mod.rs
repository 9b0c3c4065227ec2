//! The agent's loop: observe → reconcile → execute → report.
//!
//! One task owns the ledger and decides; whatever takes longer than a moment is a [job](crate::jobs). What to do and what
//! to report is decided by `soloist_core::agent`; this file only carries it out.

mod act;
mod away;
mod hear;
mod inside;
mod look;
mod stale;
mod tell;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use soloist_core::agent::{ByHand, Checked, Hand, Health as CoreHealth, Ledger};
use soloist_core::assignment::{Proof, Run, RunMode, Task};
use soloist_core::evidence::Tracker;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::driver::{AppCommand, AppSeen, Driver as _, ProcessDriver};
use crate::evidence::Recorder;
use crate::fence::Carrier;
use crate::glass::Glass;
use crate::host::Scan;
use crate::http::Asks;
use crate::jobs::{Done, Jobs};
use crate::membership::{Membership, MembershipError};
use crate::probe::Prober;
use crate::profile::{Facts, Profile};
use crate::session::{News, Outgoing};
use crate::status::Status;

pub use tell::first_status;
pub use witness::Alone;

use away::Held;
use inside::Inside;
use stale::Staleness;
use witness::{WATCH_EVERY, Witness};

/// Pause between rounds while something is under way.
const ROUND_BUSY: Duration = Duration::from_millis(100);
/// Pause between rounds while nothing is: the longest time until a foreign process is seen.
const ROUND_IDLE: Duration = Duration::from_millis(1000);
/// How often facts are read while nothing runs.
const FACTS_EVERY: Duration = Duration::from_secs(3);

/// The loop could not go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The ledger cannot be written.
    #[error(transparent)]
    Ledger(#[from] crate::ledger::LedgerError),
    /// The coordinators do not let it go on.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The host does not tell who it is.
    #[error(transparent)]
    Identity(#[from] crate::host::IdentityError),
    /// A launch cannot be recorded.
    #[error("cannot write the record of the node (evidence.jsonl in data_dir): {0}")]
    Evidence(std::io::Error),
    /// The exec lock cannot be taken.
    #[error("cannot take the node's exec lock: {0}")]
    ExecLock(std::io::Error),
}

/// What the loop needs.
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// How it stands with the coordinators, and what it must remember.
    pub membership: Membership,
    /// The app's profile.
    pub profile: Arc<Profile>,
    /// The driver.
    pub driver: ProcessDriver,
    /// From the session.
    pub news: mpsc::Receiver<News>,
    /// To the session.
    pub outgoing: watch::Sender<Outgoing>,
    /// For HTTP.
    pub status: watch::Sender<Status>,
    /// The fences around other nodes.
    pub fences: Carrier,
    /// Who asks `/ready`.
    pub asks: Arc<Asks>,
    /// The node's record.
    pub recorder: Recorder,
    /// What the record leaves open.
    pub tracker: Tracker,
    /// Starts jobs.
    pub jobs: Jobs,
    /// Ends of jobs.
    pub done: mpsc::Receiver<Done>,
}

/// The loop's memory. Nothing of it must survive: what must is in the ledger.
struct Agent {
    parts: Parts,
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
    /// Rises with every switch to other code: what was read or prepared before counts no more.
    code_number: u64,
    prober: Option<Prober>,
    /// When the host was looked over; nothing after what changes it for certain.
    looked_over: Option<Instant>,
    /// Whether it was since the last assignment was accepted: what a report says with that number was seen afterwards.
    looked_since: bool,
    looked: Instant,
    health: CoreHealth,
    progress: String,
    serving_since: Option<Instant>,
    restarts: u32,
    restart_at: Option<Instant>,
    busy: Option<Task>,
    /// How far the task is, for people.
    task_progress: String,
    checked: Option<Checked>,
    proving: bool,
    proved: Option<Proof>,
    unproved: Option<String>,
    listed: Option<Instant>,
    listing: bool,
    /// The highest number for which somebody waits for facts for preflight.
    preflight_wanted: u64,
    /// The number that the last ones answer, and when they came.
    gathered: Option<(u64, Instant)>,
    gathering: bool,
    /// While users are kept away.
    held: Option<Held>,
    /// While somebody lets users in by hand.
    glass: Option<Glass>,
    /// What somebody on this host does with the app.
    by_hand: Option<ByHand>,
    /// Whether the last report was too long as it was, which is told once.
    cut_reports: bool,
    staleness: Staleness,
    inside: Inside,
    witness: Witness,
}

/// Runs until told to stop, or until it must not go on. The app is left alone either way.
pub async fn run(mut parts: Parts, stop: CancellationToken) -> Result<(), AgentError> {
    let tracker = std::mem::take(&mut parts.tracker);
    let mut agent = Agent {
        parts,
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
        code_number: 0,
        prober: Some(Prober::default()),
        looked_over: None,
        looked_since: false,
        looked: Instant::now(),
        health: CoreHealth::Starting,
        progress: String::new(),
        serving_since: None,
        restarts: 0,
        restart_at: None,
        busy: None,
        task_progress: String::new(),
        checked: None,
        proving: false,
        proved: None,
        unproved: None,
        listed: None,
        listing: false,
        preflight_wanted: 0,
        gathered: None,
        gathering: false,
        held: None,
        glass: None,
        by_hand: None,
        cut_reports: false,
        staleness: Staleness::default(),
        inside: Inside::default(),
        witness: Witness::new(tracker),
    };
    let mut watch: Option<(AppSeen, BoxFuture<'static, ()>)> = None;
    loop {
        agent.look().await;
        agent.act()?;
        agent.report();
        let round = Instant::now() + agent.pause();
        let seen = &agent.app;
        let (_, changed) = match watch.take() {
            Some(same) if same.0 == *seen => watch.insert(same),
            _ => watch.insert((seen.clone(), change(agent.parts.driver.clone(), seen.clone()))),
        };
        // Cancel-safe: channels lose nothing, and the driver's notice is kept, and level-triggered when made anew.
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(news) = agent.parts.news.recv() => agent.hear(news)?,
            Some(done) = agent.parts.done.recv() => agent.finish(done)?,
            () = changed => {
                watch = None;
                agent.looked_over = None;
            }
            () = agent.parts.fences.changed() => {}
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

/// Ends when something is different from what was seen.
fn change(driver: ProcessDriver, seen: AppSeen) -> BoxFuture<'static, ()> {
    async move { driver.changed(&seen).await }.boxed()
}

impl Agent {
    fn ledger(&self) -> &Ledger {
        self.parts.membership.ledger()
    }

    fn wanted(&self) -> Run {
        self.parts.membership.assignment().map_or(Run::Stop, |assignment| assignment.spec.run)
    }

    /// Whether the app is to run: the coordinators say so, or somebody on this host.
    fn is_to_run(&self) -> bool {
        self.wanted() != Run::Stop || self.by_hand.as_ref().is_some_and(|by| by.hand == Hand::Start)
    }

    fn pause(&self) -> Duration {
        match (self.at_leisure(), self.witness.watches()) {
            (true, true) => WATCH_EVERY,
            (true, false) => ROUND_IDLE,
            (false, _) => ROUND_BUSY,
        }
    }

    /// Whether nothing is under way: the app serves, or is stopped as it should be.
    fn at_leisure(&self) -> bool {
        let steady = !self.launching
            && !self.stopping
            && self.busy.is_none()
            && !self.proving
            && self.is_to_run()
            && self.health == CoreHealth::Serving
            && self.held.is_none()
            && !self.asked();
        let at_rest = !self.is_to_run() && !self.app.runs() && !self.stopping;
        steady || at_rest
    }
}
