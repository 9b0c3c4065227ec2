//! What runs inside the app by itself, looked for while a coordinator asks: the app is to be stopped next.

use std::time::Duration;

use soloist_core::quiet::bounded;
use tokio::time::Instant;

use super::Agent;
use crate::driver::AppSeen;
use crate::ending::Running;
use crate::work::{Work, WorkLog};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two changes of what is told, unless nothing is under way any more: each goes through the coordinators' log.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// The looks since somebody asks.
#[derive(Debug, Default)]
pub(super) struct Inside {
    /// Rises whenever nobody asks any more: a look that was begun before counts no more.
    round: u64,
    asked: bool,
    log: Option<WorkLog>,
    looking: bool,
    looked: Option<Instant>,
    told: Option<(Vec<String>, Instant)>,
}

impl Inside {
    /// Takes what was found, unless that is too soon after the last change.
    fn tell(&mut self, found: Vec<String>) {
        let soon = self.told.as_ref().is_some_and(|(_, at)| at.elapsed() < TELL_EVERY);
        let same = self.told.as_ref().is_some_and(|(told, _)| *told == found);
        if !same && (!soon || found.is_empty()) {
            self.told = Some((found, Instant::now()));
        }
    }
}

impl Agent {
    /// Whether a coordinator asks what is under way.
    pub(super) fn asked(&self) -> bool {
        let current = self.parts.membership.assignment();
        current.is_some_and(|assignment| assignment.spec.quiet)
    }

    /// The app, if it runs and its launch is known.
    pub(super) fn running(&self) -> Option<Running> {
        match self.app {
            AppSeen::Running { launch: Some(launch), started_unix_ms, .. } => {
                Some(Running { launch, started_unix_ms })
            }
            AppSeen::Running { launch: None, .. } | AppSeen::NotRunning { .. } => None,
        }
    }

    /// Starts the next look, if one is due.
    pub(super) fn look_inside(&mut self) {
        if !self.asked() {
            if self.inside.asked {
                self.inside = Inside { round: self.inside.round + 1, ..Inside::default() };
            }
            return;
        }
        self.inside.asked = true;
        if !self.app.runs() || !self.parts.profile.tells_work() {
            // Either nothing runs, or nobody can tell what runs inside this app: that is not waited for.
            self.inside.tell(Vec::new());
            return;
        }
        let Some(running) = self.running() else { return };
        let rested = self.inside.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY);
        if rested && !self.inside.looking {
            self.inside.looking = true;
            self.parts.jobs.look_inside(self.inside.round, self.inside.log.take(), running);
        }
    }

    /// A look has ended.
    pub(super) fn looked_inside(
        &mut self,
        round: u64,
        log: Option<WorkLog>,
        works: Result<Vec<Work>, String>,
    ) {
        if round != self.inside.round {
            return;
        }
        (self.inside.looking, self.inside.looked) = (false, Some(Instant::now()));
        self.inside.log = log;
        match works {
            Ok(works) => self.inside.tell(bounded(works.into_iter().map(|work| work.text))),
            // Nothing is told, so that it is waited for as long as the policy says.
            Err(why) => tracing::warn!(%why, "it is not known what is under way inside the app"),
        }
    }

    /// What is known to be under way.
    pub(super) fn under_way(&self) -> Option<Vec<String>> {
        self.inside.told.as_ref().map(|(works, _)| works.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_are_told_once_a_second_and_the_end_at_once() {
        let mut inside = Inside::default();
        let told = |inside: &Inside| inside.told.as_ref().unwrap().0.clone();
        inside.tell(vec!["a".into()]);
        inside.tell(vec!["b".into()]);
        assert_eq!(told(&inside), ["a"]);
        tokio::time::sleep(TELL_EVERY).await;
        inside.tell(vec!["b".into()]);
        assert_eq!(told(&inside), ["b"]);
        inside.tell(Vec::new());
        assert!(told(&inside).is_empty());
    }
}
