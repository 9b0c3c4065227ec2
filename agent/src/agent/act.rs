//! What the agent does.

use std::time::Duration;

use soloist_core::agent::{Action, Ledger, reconcile};
use soloist_core::assignment::RunMode;
use soloist_core::ids::{Generation, Launch};
use soloist_core::time::Millis;

use super::{Agent, AgentError};

/// Facts older than this do not allow a launch.
const FACTS_FRESH: Duration = Duration::from_secs(2);

impl Agent {
    pub(super) fn act(&mut self) -> Result<(), AgentError> {
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
                    let next = self.ledger().with_task(task.key.clone());
                    self.parts.membership.store(next)?;
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
    pub(super) fn launch(&mut self, mode: RunMode, generation: Generation) -> Result<(), AgentError> {
        let fresh = self.facts.as_ref().is_some_and(|(_, read)| read.elapsed() < FACTS_FRESH);
        let prepared =
            self.prepared.take_if(|(made, _, at)| *made == mode && at.elapsed() < FACTS_FRESH && fresh);
        let Some((_, command, _)) = prepared else {
            self.facts_wanted |= !fresh;
            let old = self
                .prepared
                .as_ref()
                .is_none_or(|(made, _, at)| *made != mode || at.elapsed() >= FACTS_FRESH);
            if old {
                self.prepare(mode);
            }
            self.look_closer();
            return Ok(());
        };
        let launch = Launch(rand::random());
        let processes = match mode {
            RunMode::Plain => Some(command.processes),
            RunMode::Single | RunMode::Migrate(_) => {
                self.facts.as_ref().and_then(|(facts, _)| facts.processes)
            }
        };
        self.record_launch(launch, generation)?;
        let next = self.ledger().with_launch(launch, mode, self.parts.membership.boot(), processes);
        self.store_under_exec_lock(next)?;
        tracing::info!(?mode, %generation, %launch, "app is launched");
        self.launching = true;
        self.restart_at = None;
        self.parts.jobs.launch(launch, command, generation, self.grace());
        Ok(())
    }

    /// Makes the command for a launch in this mode, beside whatever else is under way.
    pub(super) fn prepare(&mut self, mode: RunMode) {
        if !self.preparing {
            self.preparing = true;
            self.parts.jobs.prepare(mode, self.code_number);
        }
    }

    pub(super) fn stop(&mut self, may_kill: bool) -> Result<(), AgentError> {
        let next = self.ledger().without_launch();
        self.store_under_exec_lock(next)?;
        tracing::info!("app is stopped");
        self.stopping = true;
        self.restarts = 0;
        self.restart_at = None;
        self.launch_error = None;
        self.parts.jobs.stop(may_kill, self.grace(), self.running());
        Ok(())
    }

    /// Time between SIGTERM and SIGKILL, as it is now; `None` where the usual one of the app counts.
    fn grace(&self) -> Option<Duration> {
        let current = self.parts.membership.assignment();
        grace(self.parts.config.grace(), current.and_then(|assignment| assignment.spec.grace))
    }

    pub(super) fn store_under_exec_lock(&mut self, next: Ledger) -> Result<(), AgentError> {
        let ledger = self.parts.membership.ledger_file();
        self.parts.driver.with_exec_lock(|| ledger.store(next)).map_err(AgentError::ExecLock)??;
        Ok(())
    }
}

/// The node's own grace, else the fleet's.
fn grace(own: Option<Duration>, fleet: Option<Millis>) -> Option<Duration> {
    own.or(fleet.map(|fleet| Duration::from_millis(fleet.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_own_grace_wins() {
        let (own, fleet) = (Some(Duration::from_secs(5)), Some(Millis(90_000)));
        assert_eq!(grace(own, fleet), own);
        assert_eq!(grace(None, fleet), Some(Duration::from_secs(90)));
        assert_eq!(grace(None, None), None);
    }
}
