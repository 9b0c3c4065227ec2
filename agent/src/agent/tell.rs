//! What the agent reports and shows.

use soloist_core::agent::{AppSeen as CoreApp, observe, to_fence};
use tokio::time::Instant;

use crate::config::Config;
use crate::driver::AppSeen;
use crate::report;
use crate::status::Status;

use super::Agent;

impl Agent {
    pub(super) fn report(&mut self) {
        self.parts.fences.tell(to_fence(self.ledger(), self.parts.membership.boot()));
        let seen = self.seen();
        let (observed, cut) = report::fitted(observe(self.ledger(), &seen));
        if cut && !std::mem::replace(&mut self.cut_reports, cut) {
            tracing::warn!("{}", report::CUT);
        }
        self.cut_reports = cut;
        let membership = &self.parts.membership;
        let (accepted, registered) = (membership.generation(), membership.registered());
        let looked = self.looked_since;
        if registered && looked {
            self.record_rest(&observed);
        }
        let progress = match seen.app {
            CoreApp::Stopping => "stopping".to_owned(),
            _ if !self.task_progress.is_empty() => self.task_progress.clone(),
            _ => self.progress.clone(),
        };
        self.parts.outgoing.send_if_modified(|outgoing| {
            let mut changed = false;
            // What was seen before acknowledges nothing.
            let news = outgoing.observed != observed || outgoing.sequence == 0;
            if registered && looked && news {
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
            member: self.parts.membership.member(),
            registered,
            waiting: self.parts.membership.waiting(),
            progress: self.progress.clone(),
            assignment: self.parts.membership.assignment().cloned(),
            hold: self.holds(),
            observed,
            pids,
            round: Instant::now(),
        };
        self.parts.status.send_replace(status);
    }

    /// Whether no traffic may be sent here, although the app serves.
    pub(super) fn holds(&self) -> bool {
        let current = self.parts.membership.assignment();
        self.glass.is_none() && current.is_some_and(|assignment| assignment.spec.hold)
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
        hold: false,
        observed: soloist_core::assignment::Observed::default(),
        pids: Vec::new(),
        round: Instant::now(),
    }
}
