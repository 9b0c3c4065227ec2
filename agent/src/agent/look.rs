//! What the agent sees.

use std::time::Duration;

use soloist_core::agent::{
    AppSeen as CoreApp, Facts as CoreFacts, Health as CoreHealth, Seen, is_over, restart_delay,
};
use soloist_core::assignment::RunMode;
use soloist_core::ids::{Launch, Version};
use tokio::time::Instant;

use crate::driver::AppSeen;
use crate::driver::Driver as _;
use crate::glass;
use crate::host::{ScanQuery, scan, scan_twice};

use super::{Agent, FACTS_EVERY, ROUND_BUSY};

/// How often facts are read while the app serves.
const FACTS_SERVING: Duration = Duration::from_secs(30);

/// What was seen of the host this short a time ago is not looked for again: several things that come at once are one occasion.
const SEEN_FRESH: Duration = Duration::from_millis(50);

/// How often a serving app is looked at.
const LOOK_SERVING: Duration = Duration::from_secs(2);

/// How often plugins are listed.
const LIST_EVERY: Duration = Duration::from_secs(20);

/// How often facts for preflight are gathered while nobody asks.
const GATHER_EVERY: Duration = Duration::from_secs(60);

/// Between two gatherings, however often somebody asks: one gathering answers all who asked before it.
const GATHER_PAUSE: Duration = Duration::from_secs(1);

/// An app that has served for so long starts counting its restarts anew.
const STABLE_AFTER: Duration = Duration::from_secs(600);

impl Agent {
    pub(super) async fn look(&mut self) {
        self.glass = glass::read(&self.parts.config.data_dir);
        self.by_hand = glass::by_hand(&self.parts.config.data_dir);
        self.parts.profile.runs_as(self.processes());
        if self.looked_over.is_none_or(|at| at.elapsed() >= SEEN_FRESH) {
            self.look_over().await;
            self.looked_over = Some(Instant::now());
        }
        self.look_closer();
        self.end_start_by_hand();
    }

    /// Before anything is done or told: from now on the coordinators decide again.
    fn end_start_by_hand(&mut self) {
        if self.by_hand.is_none() {
            return;
        }
        let seen = self.seen();
        if !is_over(self.ledger(), &seen) {
            return;
        }
        match glass::follow(&self.parts.config.data_dir) {
            Ok(_) => {
                tracing::info!("the start by hand is over: the coordinators can be asked");
                self.by_hand = None;
            }
            Err(error) => tracing::error!(%error, "the start by hand cannot be ended"),
        }
    }

    /// Looks for processes: the app's, and others that matter.
    async fn look_over(&mut self) {
        let observed = self.parts.driver.observe().await;
        let mut seen = observed.is_ok();
        match observed {
            Ok(app) => {
                let same = launch_of(&app) == launch_of(&self.app);
                if !same || !app.runs() {
                    self.prober.get_or_insert_default().reset();
                    self.health = CoreHealth::Starting;
                    self.serving_since = None;
                    self.proved = None;
                    self.unproved = None;
                    self.listed = None;
                    self.forget_staleness();
                }
                self.app = app;
                self.track();
            }
            Err(error) => tracing::warn!(%error, "the app's processes cannot be seen"),
        }
        let pattern = self.parts.profile.pattern().await;
        let query = ScanQuery {
            fleet: self.parts.config.fleet.clone(),
            marker: self.parts.driver.marker().clone(),
            app: pattern,
        };
        // What the next report says is to be relied on.
        let look = if self.looked_since { scan } else { scan_twice };
        match tokio::task::spawn_blocking(move || look(&query)).await {
            Ok(Ok(found)) => {
                self.scan = found;
                self.watch();
            }
            Ok(Err(error)) => {
                seen = false;
                tracing::warn!(%error, "the process table cannot be read");
            }
            Err(error) => {
                seen = false;
                tracing::warn!(%error, "the look at the process table ended early");
            }
        }
        self.looked_since |= seen;
    }

    /// Starts the looks that take longer.
    pub(super) fn look_closer(&mut self) {
        let every = if self.health == CoreHealth::Serving { LOOK_SERVING } else { ROUND_BUSY };
        if self.app.runs()
            && !self.stopping
            && self.looked.elapsed() >= every
            && let Some(prober) = self.prober.take()
        {
            self.looked = Instant::now();
            self.parts.jobs.look(prober, self.code());
        }
        // A stranger in the database is looked for again soon: somebody may wait for its end.
        let strangers = self.facts.as_ref().is_some_and(|(facts, _)| !facts.sessions.is_empty());
        let calm = self.health == CoreHealth::Serving && !strangers;
        let every = if calm { FACTS_SERVING } else { FACTS_EVERY };
        let old = self.facts.as_ref().is_none_or(|(_, read)| read.elapsed() >= every);
        if (old || self.facts_wanted) && !self.facts_reading {
            self.facts_reading = true;
            self.facts_wanted = false;
            self.parts.jobs.read_facts(self.code_number);
        }
        self.look_inside();
        self.look_at_sessions();
        let list = self.listed.is_none_or(|at| at.elapsed() >= LIST_EVERY);
        if self.health == CoreHealth::Serving && list && !self.listing && self.busy.is_none() {
            self.listing = true;
            self.parts.jobs.list();
        }
        self.look_for_staleness();
        let (answers, at) = self.gathered.unzip();
        let rested = |pause| at.is_none_or(|at| at.elapsed() >= pause);
        let asked = answers < Some(self.preflight_wanted) && rested(GATHER_PAUSE);
        let due = rested(GATHER_EVERY) && self.at_leisure();
        if (asked || due) && !self.gathering {
            self.gathering = true;
            self.parts.jobs.gather(self.preflight_wanted);
        }
        if self.serving_since.is_some_and(|since| since.elapsed() >= STABLE_AFTER) {
            self.restarts = 0;
        }
    }

    /// In how many processes the app runs.
    fn processes(&self) -> u32 {
        let plain = self.ledger().launch.as_ref().filter(|ticket| ticket.mode == RunMode::Plain);
        plain.and_then(|ticket| ticket.processes).unwrap_or(1)
    }

    pub(super) fn code(&self) -> Option<Version> {
        self.facts.as_ref().and_then(|(facts, _)| facts.code.clone())
    }

    pub(super) fn seen(&mut self) -> Seen {
        let app = self.core_app();
        if matches!(app, CoreApp::Ended(_)) && self.restart_at.is_none() && self.is_to_run() {
            let jitter = u64::from(rand::random::<u16>()) % 1001;
            self.restart_at = restart_delay(self.restarts, jitter)
                .map(|pause| Instant::now() + Duration::from_millis(pause.0));
            self.restarts = self.restarts.saturating_add(1);
        }
        Seen {
            boot: self.parts.membership.boot().clone(),
            may_restart: self.restart_at.is_some_and(|at| at <= Instant::now()),
            app,
            facts: self.facts.as_ref().map(|(facts, _)| CoreFacts {
                code: facts.code.clone(),
                processes: facts.processes,
                database: facts.database.clone(),
                sessions: facts.sessions.clone(),
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
            away: self.away(),
            registered: self.parts.membership.registered() && self.parts.membership.member().is_some(),
            by_hand: self.by_hand.clone(),
            let_in: self.glass.as_ref().map(glass::Glass::text),
            stale: self.staleness.stale(),
            under_way: self.under_way(),
            fences: self.parts.fences.found(),
        }
    }

    pub(super) fn core_app(&self) -> CoreApp {
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
                        && exit.boot == *self.parts.membership.boot()
                });
                ended.map_or(CoreApp::Gone, |exit| CoreApp::Ended(exit.how.to_string()))
            }
        }
    }
}

fn launch_of(app: &AppSeen) -> Option<(Option<Launch>, Option<u32>)> {
    match app {
        AppSeen::Running { launch, main, .. } => Some((*launch, main.as_ref().map(|main| main.pid))),
        AppSeen::NotRunning { .. } => None,
    }
}
