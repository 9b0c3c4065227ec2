//! What a member knows about itself and its cluster, as one value that can be watched.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use openraft::{
    Instant as _, RaftMetrics, ServerState,
    async_runtime::WatchReceiver,
    errors::Fatal,
    type_config::alias::{SerdeInstantOf, WatchReceiverOf},
};
use tokio::{sync::watch, time::Instant};

use super::{
    error::Member,
    network::Lines,
    types::{StoredMembership, TypeConfig},
};
use crate::store::StoreError;

/// What a member does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one. Votes.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Receives the log but does not vote, or has not been taken in yet.
    Learner,
    /// Has stopped.
    Stopped,
}

/// A member's view of itself and of its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftStatus {
    /// This member.
    pub member: u64,
    /// What it does.
    pub role: Role,
    /// The election term it is in.
    pub term: u64,
    /// The leader it knows of.
    pub leader: Option<Member>,
    /// Index of the last entry in its log.
    pub last_log: Option<u64>,
    /// Index of the last entry in its state.
    pub applied: Option<u64>,
    /// Index up to which its newest snapshot reaches.
    pub snapshot: Option<u64>,
    /// Index up to which its log was removed at its start.
    pub purged: Option<u64>,
    /// The members that vote, by id, with their addresses.
    pub voters: BTreeMap<u64, String>,
    /// The members that receive the log but do not vote.
    pub learners: BTreeMap<u64, String>,
    /// On a leader, what it knows of the other members. Empty elsewhere.
    pub peers: BTreeMap<u64, PeerStatus>,
    /// On a leader, when a majority last confirmed it.
    pub confirmed: Option<Instant>,
}

/// What a leader knows about another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerStatus {
    /// Index up to which its log is known to equal the leader's.
    pub matched: Option<u64>,
    /// When it last answered.
    pub heard: Option<Instant>,
}

impl PeerStatus {
    /// Whether it answered within this time.
    pub fn heard_within(&self, time: Duration) -> bool {
        self.heard.is_some_and(|heard| heard.elapsed() <= time)
    }
}

/// Why a member can no longer take part, once it cannot.
pub(crate) type FatalReason = Option<String>;

/// What the status task publishes.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) status: watch::Receiver<RaftStatus>,
    pub(crate) fatal: watch::Receiver<FatalReason>,
}

/// Follows the library's metrics, the disk and the gate until the member is shut down.
pub(crate) fn publish(
    mut metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    mut disk: watch::Receiver<Option<Arc<StoreError>>>,
    mut unread: watch::Receiver<Option<Arc<StoreError>>>,
    mut refused: watch::Receiver<Option<String>>,
    lines: Arc<Lines>,
) -> Published {
    let first = RaftStatus::from_metrics(&metrics.borrow_watched());
    let (status, status_seen) = watch::channel(first);
    let (fatal, fatal_seen) = watch::channel(None);
    tokio::spawn(async move {
        let (mut disk_open, mut unread_open, mut refusal_open) = (true, true, true);
        loop {
            // Cancel-safe: all arms only wait for a change.
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() { break },
                changed = disk.changed(), if disk_open => disk_open = changed.is_ok(),
                changed = unread.changed(), if unread_open => unread_open = changed.is_ok(),
                changed = refused.changed(), if refusal_open => refusal_open = changed.is_ok(),
            }
            let metrics = metrics.borrow_and_update().clone();
            let stored = disk.borrow().clone().or_else(|| unread.borrow().clone());
            let refusal = refused.borrow().clone();
            let reason = match (stored, &metrics.running_state) {
                _ if refusal.is_some() => refusal,
                // The cause, where the library only knows its effect.
                (Some(error), _) => Some(with_sources(&*error)),
                (None, Err(Fatal::Stopped) | Ok(())) => None,
                (None, Err(other)) => Some(other.to_string()),
            };
            // Kept once set: the first reason is the one that explains the others.
            fatal.send_if_modified(|known| {
                let news = known.is_none() && reason.is_some();
                if news {
                    *known = reason;
                }
                news
            });
            let now = RaftStatus::from_metrics(&metrics);
            lines.learn(now.voters.iter().chain(&now.learners));
            status.send_replace(now);
        }
        status.send_modify(|status| status.role = Role::Stopped);
    });
    Published { status: status_seen, fatal: fatal_seen }
}

impl RaftStatus {
    /// Whether a member belongs to the cluster, voting or not.
    pub fn belongs(&self, member: u64) -> bool {
        self.voters.contains_key(&member) || self.learners.contains_key(&member)
    }

    /// Where the members are, by id.
    pub fn addresses(&self) -> BTreeMap<u64, String> {
        self.voters.iter().chain(&self.learners).map(|(id, address)| (*id, address.clone())).collect()
    }

    fn from_metrics(metrics: &RaftMetrics<TypeConfig>) -> RaftStatus {
        let (voters, learners) = members(&metrics.membership_config);
        let address = |id: &u64| voters.get(id).or_else(|| learners.get(id)).cloned();
        let leader =
            metrics.current_leader.map(|id| Member { id, address: address(&id).unwrap_or_default() });
        RaftStatus {
            member: metrics.id,
            role: match (&metrics.running_state, metrics.state) {
                (Err(_), _) | (_, ServerState::Shutdown) => Role::Stopped,
                (_, ServerState::Learner) => Role::Learner,
                (_, ServerState::Follower) => Role::Follower,
                (_, ServerState::Candidate) => Role::Candidate,
                (_, ServerState::Leader) => Role::Leader,
            },
            term: metrics.current_term,
            leader,
            last_log: metrics.last_log_index,
            applied: metrics.last_applied.map(|id| id.index),
            snapshot: metrics.snapshot.map(|id| id.index),
            purged: metrics.purged.map(|id| id.index),
            peers: peers(metrics),
            confirmed: metrics.last_quorum_acked.map(instant),
            voters,
            learners,
        }
    }
}

fn members(membership: &StoredMembership) -> (BTreeMap<u64, String>, BTreeMap<u64, String>) {
    let voters: std::collections::BTreeSet<u64> = membership.voter_ids().collect();
    membership.nodes().map(|(id, node)| (*id, node.addr.clone())).partition(|(id, _)| voters.contains(id))
}

fn peers(metrics: &RaftMetrics<TypeConfig>) -> BTreeMap<u64, PeerStatus> {
    let mut peers = BTreeMap::<u64, PeerStatus>::new();
    for (id, matched) in metrics.replication.iter().flatten().filter(|(id, _)| **id != metrics.id) {
        peers.entry(*id).or_default().matched = matched.map(|id| id.index);
    }
    for (id, heard) in metrics.heartbeat.iter().flatten().filter(|(id, _)| **id != metrics.id) {
        peers.entry(*id).or_default().heard = heard.map(instant);
    }
    peers
}

/// The library has its own type for a moment.
fn instant(at: SerdeInstantOf<TypeConfig>) -> Instant {
    let now = Instant::now();
    now.checked_sub(at.into_inner().elapsed()).unwrap_or(now)
}

/// An error with everything that led to it.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
