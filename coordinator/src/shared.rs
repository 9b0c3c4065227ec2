//! What every part of a running coordinator has at hand.

use std::{sync::Arc, time::Duration};

use soloist_core::{policy::Policy, time::Millis};
use soloist_proto::errors::{NO_LEADER, Problem};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::{
    clock::Clock,
    contact::Hearing,
    leader::Leadership,
    memory::Memory,
    metrics::Metrics,
    peers::Peers,
    raft::{Member, RaftNode, RaftStatus, Role},
    store::Archive,
};

/// A leader that no majority has confirmed for so long, and one that was not heard for so long, does not count.
pub(crate) const LEADER_SILENCE: Duration = Duration::from_secs(3);

/// How many registrations of a member are under way at once. The log takes hundreds of them in the time that an agent waits for its
/// answer, also on a slow machine.
pub(crate) const REGISTERING_MAX: usize = 16;

/// What every part of a running coordinator has at hand. Shared behind an `Arc`.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// Where the others reach this member.
    pub(crate) advertise: String,
    /// Where this member serves HTTP.
    pub(crate) http: String,
    /// Timeouts of fleets that agents make by enrolling.
    pub(crate) fleet_defaults: Policy,
    /// The replicated log and state.
    pub(crate) raft: RaftNode,
    /// Time.
    pub(crate) clock: Clock,
    /// This member's right to stamp entries, while it leads.
    pub(crate) leadership: Leadership,
    /// What this member remembers of nodes beside the log, while it leads.
    pub(crate) memory: Memory,
    /// What this member's own sessions have heard.
    pub(crate) hearing: Hearing,
    /// Places for registrations that are under way.
    pub(crate) registering: Semaphore,
    /// Held while the cluster's members are changed: one change at a time.
    pub(crate) changing: Mutex<()>,
    /// The other members.
    pub(crate) peers: Peers,
    /// What happened, for longer than the state remembers it.
    pub(crate) archive: Arc<Archive>,
    /// Counters.
    pub(crate) metrics: Metrics,
    /// Cancelled when sessions and streams are to end.
    pub(crate) stop: CancellationToken,
}

impl Shared {
    /// This member's view of the cluster.
    pub(crate) fn status(&self) -> RaftStatus {
        self.raft.status().borrow().clone()
    }

    /// The term in which this member leads, as far as it knows.
    pub(crate) fn leads(&self) -> Option<u64> {
        let status = self.raft.status();
        let status = status.borrow();
        (status.role == Role::Leader).then_some(status.term)
    }

    /// The leader, if it is another member.
    pub(crate) fn other_leader(&self) -> Option<Member> {
        self.raft.leader().filter(|leader| leader.id != self.raft.id())
    }

    /// Whether a leader was heard just now; on the leader, whether a majority has confirmed it just now.
    pub(crate) fn has_leader(&self) -> bool {
        match self.leads() {
            Some(_) => self.has_majority(),
            None => {
                self.raft.leader().is_some()
                    && self.hearing.leader_heard().is_some_and(|at| self.clock.within(at, LEADER_SILENCE))
            }
        }
    }

    /// On a leader, whether a majority has confirmed it just now.
    pub(crate) fn has_majority(&self) -> bool {
        let status = self.raft.status();
        let status = status.borrow();
        status.voters.len() <= 1 || status.confirmed.is_some_and(|at| at.elapsed() <= LEADER_SILENCE)
    }

    /// How long ago a leader was heard; zero on a confirmed leader.
    pub(crate) fn last_contact(&self) -> Option<Millis> {
        if self.leads().is_some() && self.has_majority() {
            return Some(Millis(0));
        }
        let at = self.hearing.leader_heard()?;
        Some(Millis(self.clock.elapsed().0.saturating_sub(at.0)))
    }

    /// Between what the leader's wall clock is now, in milliseconds since 1970, if that is known.
    pub(crate) fn leader_wall_ms(&self) -> Option<(u64, u64)> {
        if self.leads().is_none() {
            return self.hearing.leader_wall_ms(self.clock.elapsed());
        }
        let now = self.clock.wall_ms();
        // What it stamps is cut to whole milliseconds.
        self.has_majority().then_some((now, now + 1))
    }

    /// The problem of having nobody who decides. Asks the members which of them answer, so that its hint can say it.
    pub(crate) async fn no_leader(&self, why: &str) -> Problem {
        let status = self.status();
        let answering = self.peers.answering(&status).await;
        let voters = status.voters.len().max(1);
        let needed = voters / 2 + 1;
        let names = answering.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let missing: Vec<String> = status
            .voters
            .iter()
            .filter(|(id, _)| !answering.contains(id))
            .map(|(id, address)| format!("{id} at {address}"))
            .collect();
        let count = format!("{} of {voters} members answer ({names}), {needed} are needed", answering.len());
        let hint = if answering.len() >= needed {
            format!("{count}; an election may be under way: try again in a moment")
        } else {
            format!("{count}; start or reach: {}", missing.join(", "))
        };
        Problem::new(Code::Unavailable, NO_LEADER, format!("nothing can be decided now: {why}"), hint)
    }
}
