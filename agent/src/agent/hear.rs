//! What the agent is told: by the coordinators, and by its own jobs.

use soloist_core::agent::{Checked, Health as CoreHealth};
use soloist_core::assignment::{Needs, TaskPhase};
use tokio::time::Instant;

use crate::driver::DriverError;
use crate::jobs::Done;
use crate::membership::Heard;
use crate::probe::Verdict;
use crate::session::{Gathered, News};

use super::{Agent, AgentError, FACTS_EVERY};

impl Agent {
    pub(super) fn hear(&mut self, news: News) -> Result<(), AgentError> {
        let before = self.wanted();
        match self.parts.membership.hear(news)? {
            Heard::Assigned(assignment) => {
                self.facts_wanted = true;
                self.looked_over = None;
                self.looked_since = false;
                if before != self.wanted() {
                    tracing::info!(generation = %assignment.generation, run = %assignment.spec.run, "assigned");
                    if let Some(mode) = self.wanted().mode() {
                        // What was read before, perhaps in the middle of an install, refuses nothing now.
                        self.facts = None;
                        if !self.app.runs() {
                            self.prepare(mode);
                        }
                    }
                    self.launch_error = None;
                    self.restarts = 0;
                }
                if self.checked.as_ref().is_some_and(|checked| {
                    assignment.spec.task.as_ref().is_none_or(|task| task.key != checked.key)
                }) {
                    self.checked = None;
                }
            }
            Heard::Alone(alone) => self.hear_alone(alone),
            Heard::Clock(reading) => self.hear_clock(reading),
            Heard::FactsWanted(number) => self.preflight_wanted = self.preflight_wanted.max(number),
            Heard::Nothing => {}
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, done: Done) -> Result<(), AgentError> {
        match done {
            Done::Launched(Ok(())) => {
                self.launching = false;
                self.looked_over = None;
            }
            Done::Launched(Err(error)) => {
                tracing::error!(%error, "the app was not launched");
                self.looked_over = None;
                self.launching = false;
                if let DriverError::Slow(_) = error {
                    // Nobody knows whether it will start yet: nothing else is launched before that is settled.
                    self.stop(true)?;
                }
                self.launch_failed(error.to_string());
            }
            Done::Prepared(_, _, code) if code != self.code_number => self.preparing = false,
            Done::Prepared(mode, Ok(command), _) => {
                self.preparing = false;
                self.launch_error = None;
                self.prepared = Some((mode, command, Instant::now()));
            }
            Done::Prepared(_, Err(why), _) => {
                tracing::error!(%why, "the app cannot be launched");
                self.preparing = false;
                self.launch_failed(why);
            }
            Done::Inside(round, log, works) => self.looked_inside(round, log, works),
            Done::Stopped(result, cut) => {
                self.stopping = false;
                if let Some(cut) = cut.filter(|cut| *cut != self.ledger().cut) {
                    let next = self.ledger().with_cut(cut);
                    self.parts.membership.store(next)?;
                }
                self.looked_over = None;
                match result {
                    Ok(outcome) => tracing::info!(?outcome, "stop ended"),
                    Err(error) => tracing::error!(%error, "the app could not be stopped"),
                }
            }
            Done::Facts(_, code) if code != self.code_number => {
                self.facts_reading = false;
                self.facts_wanted = true;
            }
            Done::Facts(facts, _) => {
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
                        if self.serving_since.is_none() {
                            self.serving_since = Some(Instant::now());
                            // It may have installed or upgraded before it came to serve.
                            self.facts_wanted = true;
                        }
                        CoreHealth::Serving
                    }
                    Verdict::NotYet(_) => CoreHealth::Starting,
                    Verdict::Failed(why) => CoreHealth::Failed(why),
                };
            }
            Done::Progress(text) => {
                if self.busy.is_some() {
                    self.task_progress = text;
                }
            }
            Done::Task(key, phase, result, output) => {
                tracing::info!(operation = %key.operation, attempt = key.attempt, ?phase, ?result, "task ended");
                // It may have changed what the app runs on.
                let under = self.busy.take().is_some_and(|task| task.needs == Needs::Stopped);
                if under && phase == TaskPhase::Run {
                    self.forget_code();
                }
                self.task_progress.clear();
                match phase {
                    TaskPhase::Check => self.checked = Some(Checked { key, result, output }),
                    TaskPhase::Run => {
                        let next = self.ledger().with_result(key, result, output);
                        self.parts.membership.store(next)?;
                    }
                }
            }
            Done::Proved(proof, result) => {
                self.proving = false;
                match result {
                    Ok(()) => {
                        tracing::info!(plugin = %proof.plugin, loaded = proof.loaded, "proved");
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
            Done::Gathered(facts, answers) => {
                self.gathering = false;
                self.gathered = Some((answers, Instant::now()));
                let gathered = Gathered { facts: (*facts).into(), answers, at: Instant::now() };
                self.parts.outgoing.send_modify(|outgoing| outgoing.facts = Some(gathered));
            }
            Done::Sampled(at_ms, sessions) => self.sampled(at_ms, sessions),
            Done::Compared(since, drift) => self.compared(since, drift),
            Done::NotListed => {
                self.listing = false;
                self.listed = Some(Instant::now());
            }
        }
        Ok(())
    }

    /// There is other code, perhaps.
    fn forget_code(&mut self) {
        self.code_number += 1;
        self.facts = None;
        self.facts_wanted = true;
        self.prepared = None;
    }

    /// A launch that came to nothing is shown as a refusal, and tried again after a pause.
    pub(super) fn launch_failed(&mut self, why: String) {
        self.launch_error = Some((why, Instant::now()));
    }
}
