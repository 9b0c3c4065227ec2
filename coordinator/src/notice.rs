//! Tells the log, one line each, what an operator wants to know of the cluster: who leads, and who does not answer.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::interval;

use crate::shared::{LEADER_SILENCE, Shared};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Looks without a leader before that is worth a line; an election takes about a second.
const LEADERLESS_LOOKS: u32 = 3;

/// Runs until the coordinator stops.
pub(crate) async fn noticing(shared: Arc<Shared>) {
    let mut looks = interval(LOOK);
    let (mut leader, mut leaderless, mut silent) = (None, 0, BTreeSet::new());
    loop {
        // Cancel-safe: both arms only wait.
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        let status = shared.status();
        if shared.has_leader() {
            if leaderless >= LEADERLESS_LOOKS || status.leader != leader {
                let member = status.leader.as_ref().map_or(0, |leader| leader.id);
                tracing::info!(member, term = status.term, "leader");
            }
            (leader, leaderless) = (status.leader.clone(), 0);
        } else {
            leaderless += 1;
            if leaderless == LEADERLESS_LOOKS {
                tracing::warn!(
                    term = status.term,
                    "no leader: nothing can be decided, apps are left as they are"
                );
            }
        }
        let known = shared.leads().is_some() && !status.peers.is_empty();
        let now: BTreeSet<u64> = status
            .peers
            .iter()
            .filter(|(_, peer)| !peer.heard_within(LEADER_SILENCE))
            .map(|(id, _)| *id)
            .collect();
        if known {
            for member in now.difference(&silent) {
                tracing::warn!(member, "member does not answer");
            }
            for member in silent.difference(&now) {
                tracing::info!(member, "member answers again");
            }
        }
        silent = if known { now } else { BTreeSet::new() };
    }
}
