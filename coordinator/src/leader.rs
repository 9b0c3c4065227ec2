//! The leader's duty: to be promoted through the log, to stamp entries, and to ring what is due.
//!
//! ```text
//!   elected ──Promote──► applied: stamps from now on ──every tick──► due(state, contact, now) ──► proposals
//!      ▲                      │ a gap in the ticks
//!      └──────────────────────┘
//! ```
//!
//! What is due is decided by the core; here is only the loop around it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use soloist_core::{
    Command, Entry, State,
    due::{due, witness},
    time::{LeaderClock, Time},
};
use tokio::{
    sync::{Notify, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{raft::ProposeError, shared::Shared};

/// Between two looks at what is due. Deadlines are seconds long, so this costs them little.
const TICK: Duration = Duration::from_millis(100);

/// How many of the leader's own proposals are under way at once.
const PROPOSALS_MAX: usize = 64;

/// This member's right to stamp entries: held by the one that leads and whose `Promote` was applied.
#[derive(Debug)]
pub(crate) struct Leadership {
    seat: Mutex<Seat>,
    promoted: watch::Sender<Option<u64>>,
    /// Told when this member is the first leader of a new cluster.
    founded: Notify,
}

#[derive(Debug, Default)]
struct Seat {
    term: u64,
    clock: LeaderClock,
}

impl Leadership {
    pub(crate) fn new() -> Leadership {
        Leadership { seat: Mutex::default(), promoted: watch::Sender::new(None), founded: Notify::new() }
    }

    fn seat(&self) -> std::sync::MutexGuard<'_, Seat> {
        // A seat is a few numbers, whole at any moment.
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time to stamp an entry with, if this member leads and is promoted.
    pub(crate) fn stamp(&self, shared: &Shared) -> Option<Time> {
        let term = shared.leads()?;
        let seat = self.seat();
        (seat.term == term)
            .then(|| seat.clock.stamp(shared.clock.elapsed(), shared.clock.wall_ms()))
            .flatten()
    }

    /// The same, waiting a little for the promotion of a leader that has just been elected.
    pub(crate) async fn stamp_within(&self, shared: &Shared, deadline: Duration) -> Option<Time> {
        let mut promoted = self.promoted.subscribe();
        let wait = async {
            loop {
                promoted.mark_unchanged();
                if let Some(now) = self.stamp(shared) {
                    return Some(now);
                }
                shared.leads()?;
                promoted.changed().await.ok()?;
            }
        };
        timeout(deadline, wait).await.ok().flatten()
    }

    /// Returns if this member was the first to lead, in a cluster in which nothing was decided before.
    pub(crate) async fn founded(&self) {
        self.founded.notified().await;
    }

    fn demote(&self) {
        self.seat().clock.demoted();
        self.promoted.send_if_modified(|term| term.take().is_some());
    }
}

/// Runs until the coordinator stops.
pub(crate) async fn duty(shared: Arc<Shared>) {
    let mut status = shared.raft.status();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let seen = shared.leads();
        // Cancel-safe: all arms only wait.
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = ticks.tick() => {}
            changed = status.wait_for(|status| {
                (status.role == crate::raft::Role::Leader).then_some(status.term) != seen
            }) => if changed.is_err() { return },
        }
        tick(&shared).await;
    }
}

async fn tick(shared: &Shared) {
    let Some(term) = shared.leads() else {
        shared.leadership.demote();
        shared.memory.clear();
        return;
    };
    shared.memory.enter(term);
    let must_promote = {
        let mut seat = shared.leadership.seat();
        if seat.term != term {
            *seat = Seat { term, clock: LeaderClock::new() };
        }
        seat.clock.tick(shared.clock.elapsed())
    };
    if must_promote && !promote(shared, term).await {
        return;
    }
    let Some(now) = shared.leadership.stamp(shared) else { return };
    let storage = shared.raft.storage();
    let commands = storage.read(|state, _| shared.memory.contact(|contact| due(state, contact, now)));
    stream::iter(commands).map(|command| ring(shared, command)).buffered(PROPOSALS_MAX).collect::<()>().await;
}

/// Has the promotion of this member applied. It is the one entry that is stamped with the time where the state stands.
async fn promote(shared: &Shared, term: u64) -> bool {
    let command = Command::Promote { member: shared.raft.id() };
    let (time, feature_level, new) = shared
        .raft
        .storage()
        .read(|state, _| (state.now, state.stamp_level(&command), *state == State::default()));
    let entry = Entry { time, wall_ms: shared.clock.wall_ms(), feature_level, command };
    if let Err(error) = shared.raft.propose(entry).await {
        tracing::debug!(%error, term, "not promoted yet");
        return false;
    }
    let now = shared.raft.storage().read(|state, _| state.now);
    {
        let mut seat = shared.leadership.seat();
        if seat.term != term {
            return false;
        }
        seat.clock.promoted(now, shared.clock.elapsed());
    }
    shared.leadership.promoted.send_replace(Some(term));
    if new {
        shared.leadership.founded.notify_one();
    }
    tracing::info!(member = shared.raft.id(), term, "leads");
    true
}

/// Proposes what is due. What fails is found due again at the next tick.
async fn ring(shared: &Shared, command: Command) {
    let name = crate::metrics::name(&command);
    let text = command.to_string();
    let result = propose_here(shared, command, TICK).await;
    shared.metrics.proposed(name, crate::metrics::result(&result));
    match result {
        Ok(applied) => match applied.reply {
            Ok(_) => tracing::debug!(command = text, index = applied.index, "rang"),
            Err(rejection) => tracing::debug!(command = text, %rejection, "rang in vain"),
        },
        Err(error) => tracing::debug!(command = text, %error, "could not ring"),
    }
}

/// Stamps a command and has it written, if this member leads. Waits up to `patience` for its own promotion.
pub(crate) async fn propose_here(
    shared: &Shared,
    mut command: Command,
    patience: Duration,
) -> Result<crate::raft::Applied, ProposeError> {
    let Some(time) = shared.leadership.stamp_within(shared, patience).await else {
        return Err(ProposeError::NotLeader { leader: shared.other_leader() });
    };
    let feature_level = shared.raft.storage().read(|state, _| {
        shared.memory.contact(|contact| witness(&mut command, state, contact, time));
        state.stamp_level(&command)
    });
    let entry = Entry { time, wall_ms: shared.clock.wall_ms(), feature_level, command };
    shared.raft.propose(entry).await
}
