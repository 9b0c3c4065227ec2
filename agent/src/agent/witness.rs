//! What the agent records: process trees of its app, and what it looks at while an operation is alone.

use std::time::Duration;

use soloist_core::assignment::{AppState, Observed, Run as Wanted};
use soloist_core::evidence::{Exit, Fact, Gather, Launching, Reading, Run, Sessions, Sight, Tracker};
use soloist_core::ids::{Generation, Launch, OperationId, Token};
use tokio::time::Instant;

use super::{Agent, AgentError};
use crate::driver::AppSeen;
use crate::evidence::{boot_ms, ticks_ms, wall_to_boot_ms};
use crate::keeper::ExitInfo;

/// Between two looks at the database's sessions.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Longest pause between two looks at the processes.
pub(super) const WATCH_EVERY: Duration = Duration::from_millis(500);
/// What was looked at is recorded this often: so much is lost with an agent that is killed.
const RECORD_EVERY: Duration = Duration::from_secs(10);
/// Without word from the coordinators an agent watches no longer than this: its record is bounded.
const UNHEARD_MAX: Duration = Duration::from_secs(3600);

/// The operation that is alone, as the coordinators tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alone {
    /// The operation.
    pub operation: OperationId,
    /// Its token.
    pub token: Token,
    /// Log index of the grant.
    pub grant: u64,
}

/// The loop's memory of it.
#[derive(Debug)]
pub(super) struct Witness {
    tracker: Tracker,
    gather: Option<Gather>,
    /// When the coordinators last spoke of it.
    heard: Instant,
    recorded: Instant,
    sampling: bool,
    sampled: Option<Instant>,
}

impl Witness {
    pub(super) fn new(tracker: Tracker) -> Self {
        let now = Instant::now();
        Self { tracker, gather: None, heard: now, recorded: now, sampling: false, sampled: None }
    }

    /// Whether an operation is alone.
    pub(super) fn watches(&self) -> bool {
        self.gather.is_some()
    }
}

impl Agent {
    /// What is not recorded is missing from a proof, and stops nothing.
    fn record(&self, facts: impl IntoIterator<Item = Fact>) {
        for fact in facts {
            if let Err(error) = self.parts.recorder.append(fact) {
                tracing::error!(%error, "the record cannot be written");
            }
        }
    }

    /// The operation that is alone has begun or ended.
    pub(super) fn hear_alone(&mut self, alone: Option<Alone>) {
        self.witness.heard = Instant::now();
        let known = self.witness.gather.as_ref().map(Gather::grant);
        if known == alone.as_ref().map(|alone| alone.grant) {
            return;
        }
        self.end_watch();
        self.witness.gather = alone.map(|Alone { operation, token, grant }| {
            tracing::info!(%operation, %token, "an operation is alone: it is witnessed");
            Gather::new(operation, token, grant, u64::try_from(SAMPLE_EVERY.as_millis()).unwrap_or(u64::MAX))
        });
        self.witness.recorded = Instant::now();
        self.witness.sampled = None;
        self.looked_over = None;
    }

    /// The coordinators' clock was read.
    pub(super) fn hear_clock(&mut self, reading: Reading) {
        self.witness.heard = Instant::now();
        if let Some(gather) = &mut self.witness.gather {
            gather.read(reading);
        }
    }

    fn end_watch(&mut self) {
        if let Some(watch) = self.witness.gather.take().and_then(|mut gather| gather.take()) {
            self.record([Fact::Watched(Box::new(watch))]);
        }
    }

    /// The app was looked at.
    pub(super) fn track(&mut self) {
        let now_ms = boot_ms();
        let sight = match &self.app {
            AppSeen::Running { main, launch, generation, .. } => Sight::Runs(Run {
                launch: *launch,
                generation: *generation,
                token: None,
                pid: main.map_or(0, |main| main.pid),
                start_ticks: main.map_or(0, |main| main.start_time_ticks),
                began_ms: main.map_or(now_ms, |main| ticks_ms(main.start_time_ticks)),
            }),
            AppSeen::NotRunning { last_exit } => {
                Sight::Gone { exit: last_exit.as_ref().map(exit), launching: self.launching }
            }
        };
        let boot = self.parts.membership.boot();
        let facts = self.witness.tracker.look(sight, boot, now_ms);
        self.record(facts);
    }

    /// The process table was looked at.
    pub(super) fn watch(&mut self) {
        let Some(gather) = &mut self.witness.gather else { return };
        gather.look(boot_ms(), &self.scan.foreign);
        if self.witness.heard.elapsed() >= UNHEARD_MAX {
            self.end_watch();
        } else if self.witness.recorded.elapsed() >= RECORD_EVERY {
            self.witness.recorded = Instant::now();
            let watch = gather.take();
            self.record(watch.map(|watch| Fact::Watched(Box::new(watch))));
        }
    }

    /// Looks at the database's sessions, while an operation is alone.
    pub(super) fn look_at_sessions(&mut self) {
        let due = self.witness.sampled.is_none_or(|at| at.elapsed() >= SAMPLE_EVERY);
        if self.witness.watches() && due && !self.witness.sampling {
            self.witness.sampling = true;
            self.witness.sampled = Some(Instant::now());
            self.parts.jobs.sample();
        }
    }

    pub(super) fn sampled(&mut self, at_ms: u64, sessions: Result<Sessions, String>) {
        self.witness.sampling = false;
        if let Some(gather) = &mut self.witness.gather {
            gather.sample(at_ms, sessions);
        }
    }

    /// The app is about to be launched: without the record it is not.
    pub(super) fn record_launch(&mut self, launch: Launch, generation: Generation) -> Result<(), AgentError> {
        let current = self.parts.membership.assignment();
        let token = current.filter(|now| now.generation == generation).and_then(|now| now.token);
        let launching = Launching { launch, generation, token };
        let boot = self.parts.membership.boot();
        let fact = self.witness.tracker.launching(launching, boot, boot_ms());
        self.parts.recorder.append(fact).map_err(AgentError::Evidence)
    }

    /// The coordinators are about to be told what is seen.
    pub(super) fn record_rest(&mut self, observed: &Observed) {
        if observed.app == AppState::Stopped && self.wanted() == Wanted::Stop {
            let fact = self.witness.tracker.resting(observed.applied);
            self.record(fact);
        }
    }
}

fn exit(exit: &ExitInfo) -> Exit {
    let ended_ms = (exit.ended_unix_ms > 0).then(|| wall_to_boot_ms(exit.ended_unix_ms));
    Exit { launch: exit.launch, boot: exit.boot.clone(), ended_ms }
}
