//! Changes of the cluster itself: who leads, who belongs to it, and how long its log is.

use std::{cmp::Reverse, collections::BTreeSet, time::Duration};

use openraft::{BasicNode, ChangeMembers};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    error::ProposeError,
    node::RaftNode,
    status::{RaftStatus, Role},
};

/// Time for one candidate to take over, before the next is tried. A takeover takes some tens of milliseconds.
const TAKEOVER_DEADLINE: Duration = Duration::from_secs(1);

/// Time for a new member to receive everything, before it is made a voter.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(60);

/// How long a change of the members waits for another one, and how often it looks.
const TURN_DEADLINE: Duration = Duration::from_secs(10);
const TURN_PAUSE: Duration = Duration::from_millis(50);

/// How a hand-over ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandOver {
    /// This member did not lead.
    NotLeading,
    /// This member leads now.
    To(u64),
    /// There is no other voter that answers, or none took over in time. The others will notice when this one stops.
    Nobody,
}

impl RaftNode {
    /// Gives the leadership to the voter that is most up to date, so that a planned stop costs no election timeout. To be
    /// called before [`RaftNode::shutdown`].
    pub async fn hand_over(&self, deadline: Duration) -> HandOver {
        let end = Instant::now() + deadline;
        let mut status = self.status();
        let before = status.borrow().clone();
        if before.role != Role::Leader {
            return HandOver::NotLeading;
        }
        for candidate in self.candidates(&before) {
            if self.inner.raft.trigger().transfer_leader(candidate).await.is_err() {
                return HandOver::Nobody;
            }
            let taken_over = status.wait_for(|now| {
                now.leader.as_ref().is_some_and(|leader| leader.id != before.member) && now.term > before.term
            });
            let until = end.min(Instant::now() + TAKEOVER_DEADLINE);
            if let Ok(Ok(now)) = timeout_at(until, taken_over).await
                && let Some(leader) = &now.leader
            {
                return HandOver::To(leader.id);
            }
            if Instant::now() >= end {
                break;
            }
        }
        HandOver::Nobody
    }

    /// The voters that could lead: those that answer, the most complete log first.
    fn candidates(&self, status: &RaftStatus) -> Vec<u64> {
        let lease = Duration::from_millis(self.inner.options.timing.election_max_ms);
        let mut peers: Vec<_> = status
            .peers
            .iter()
            .filter(|(id, peer)| status.voters.contains_key(id) && peer.heard_within(lease))
            .collect();
        peers.sort_by_key(|(_, peer)| Reverse((peer.matched, peer.heard)));
        peers.into_iter().map(|(id, _)| *id).collect()
    }

    /// Takes a member in: first as a learner until it has the log, then as a voter. Only on the leader.
    ///
    /// The new member must run with an empty list of initial members, and with an id that was never used before.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]. Repeating the call is safe.
    pub async fn add_member(&self, id: u64, address: &str) -> Result<(), ProposeError> {
        let end = Instant::now() + TURN_DEADLINE;
        let learn = async {
            loop {
                let learned = self.inner.raft.add_learner(id, BasicNode::new(address), true).await;
                match learned.map_err(ProposeError::from) {
                    Err(ProposeError::Changing) if Instant::now() < end => sleep(TURN_PAUSE).await,
                    result => return result,
                }
            }
        };
        match timeout(CATCH_UP_DEADLINE, learn).await {
            Ok(result) => result?,
            Err(_) => {
                let waited = CATCH_UP_DEADLINE.as_secs();
                let reason =
                    format!("member {id} at {address} did not catch up within {waited} s; is it running?");
                return Err(ProposeError::Unavailable { reason });
            }
        };
        let promote = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        self.change(promote).await
    }

    /// Takes a member out, for good: its id must not be used again. Only on the leader.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]. Repeating the call is safe.
    pub async fn remove_member(&self, id: u64) -> Result<(), ProposeError> {
        let known = self.status().borrow().voters.contains_key(&id);
        let ids = BTreeSet::from([id]);
        let change = if known { ChangeMembers::RemoveVoters(ids) } else { ChangeMembers::RemoveNodes(ids) };
        self.change(change).await
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), ProposeError> {
        let end = Instant::now() + TURN_DEADLINE;
        loop {
            let changed = self.inner.raft.change_membership(change.clone(), false);
            match self.within_deadline(changed).await {
                // A cluster that has just begun decides its own list of members first.
                Err(ProposeError::Changing) if Instant::now() < end => sleep(TURN_PAUSE).await,
                result => return result.map(drop),
            }
        }
    }

    /// Starts a snapshot of everything applied so far; `status` shows when it is done. The log behind it is then removed
    /// except for the part that [`Compaction::keep_entries`](super::Compaction::keep_entries) asks for.
    ///
    /// # Errors
    ///
    /// When the member has stopped.
    pub async fn snapshot(&self) -> Result<(), ProposeError> {
        Ok(self.inner.raft.trigger().snapshot().await?)
    }
}
