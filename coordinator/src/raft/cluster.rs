//! Changes of the cluster itself: who leads, who belongs to it, and how long its log is.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use openraft::{BasicNode, ChangeMembers};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    error::ProposeError,
    node::RaftNode,
    status::{RaftStatus, Role},
};

/// Time for one candidate to take over, before the next is tried. A takeover takes some tens of milliseconds.
const TAKEOVER_DEADLINE: Duration = Duration::from_secs(1);

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
        let before = self.status().borrow().clone();
        if before.role != Role::Leader {
            return HandOver::NotLeading;
        }
        let end = Instant::now() + deadline;
        for candidate in self.candidates(&before) {
            let handed = self.hand_over_to(candidate, end.min(Instant::now() + TAKEOVER_DEADLINE)).await;
            if handed != HandOver::Nobody || Instant::now() >= end {
                return handed;
            }
        }
        HandOver::Nobody
    }

    /// Gives the leadership to one voter.
    pub async fn hand_over_to(&self, member: u64, until: Instant) -> HandOver {
        let mut status = self.status();
        let before = status.borrow().clone();
        if before.role != Role::Leader {
            return HandOver::NotLeading;
        }
        if self.inner.raft.trigger().transfer_leader(member).await.is_err() {
            return HandOver::Nobody;
        }
        let taken_over = status.wait_for(|now| {
            now.leader.as_ref().is_some_and(|leader| leader.id != before.member) && now.term > before.term
        });
        match timeout_at(until, taken_over).await {
            Ok(Ok(now)) => now.leader.as_ref().map_or(HandOver::Nobody, |leader| HandOver::To(leader.id)),
            Ok(Err(_)) | Err(_) => HandOver::Nobody,
        }
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

    /// Takes a member in as a learner: it receives the log and does not vote. Only on the leader. Returns before it has
    /// received anything; `status` tells how far it came.
    ///
    /// The new member must run with an empty list of initial members, and with an id that was never used before.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]. Repeating the call is safe.
    pub async fn add_learner(&self, id: u64, address: &str) -> Result<(), ProposeError> {
        self.inner.gate.invite(id, address, Instant::now() + self.inner.options.deadline).await?;
        self.in_turn(|| self.inner.raft.add_learner(id, BasicNode::new(address), false)).await?;
        self.shows(|status| status.belongs(id)).await
    }

    /// Makes a learner a voter. Only on the leader.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]. Repeating the call is safe.
    pub async fn promote(&self, id: u64) -> Result<(), ProposeError> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await?;
        self.shows(|status| status.voters.contains_key(&id)).await
    }

    /// Tells everybody where a member is now. Only on the leader.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]. Repeating the call is safe.
    pub async fn move_member(&self, id: u64, address: &str) -> Result<(), ProposeError> {
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, BasicNode::new(address))]))).await?;
        self.shows(|status| status.addresses().get(&id).is_some_and(|shown| shown == address)).await
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
        self.change(change).await?;
        self.shows(|status| !status.belongs(id)).await
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), ProposeError> {
        self.in_turn(|| self.inner.raft.change_membership(change.clone(), false)).await
    }

    /// Makes a change once the one before it is decided: a cluster that has just begun decides its own list of members first.
    async fn in_turn<T, E, F>(&self, change: impl Fn() -> F) -> Result<(), ProposeError>
    where
        E: Into<ProposeError>,
        F: Future<Output = Result<T, E>>,
    {
        let end = Instant::now() + TURN_DEADLINE;
        loop {
            match self.within_deadline(change()).await {
                Err(ProposeError::Changing) if Instant::now() < end => sleep(TURN_PAUSE).await,
                result => return result.map(drop),
            }
        }
    }

    /// Waits until the status shows a change that is decided: a task of its own publishes it, which may lag behind on a busy machine, and
    /// the caller's next look must not find the members as they were.
    async fn shows(&self, change: impl FnMut(&RaftStatus) -> bool) -> Result<(), ProposeError> {
        let mut status = self.status();
        match timeout(self.inner.options.deadline, status.wait_for(change)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                let reason = "the change is decided, and does not show on this member yet".to_owned();
                Err(ProposeError::Unavailable { reason })
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
