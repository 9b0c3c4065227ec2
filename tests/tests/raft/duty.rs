//! The leader's duty as the coordinator has it (`leader.rs`): to be promoted through the log, to stamp entries, and to ring
//! what the core finds due.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::{StreamExt, stream};
use openraft::{ServerState, async_runtime::WatchReceiver, errors::ClientWriteError};
use soloist_coordinator::{raft::types::Response, store::StoreHandle};
use soloist_core::{
    Command, Entry,
    due::{Contact, due, witness},
    time::{LeaderClock, Millis},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{oracle::Notes, types::Raft, wire::Answer};

/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(100);

/// How many of the leader's own proposals are under way at once.
const PROPOSALS_MAX: usize = 64;

/// How long a proposal waits for a majority.
const PROPOSAL_DEADLINE: Duration = Duration::from_secs(5);

/// A running member, as its own tasks and the driver see it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) raft: Raft,
    pub(crate) state: StoreHandle,
    seat: Mutex<Seat>,
    started: Instant,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Debug, Default)]
struct Seat {
    term: u64,
    clock: LeaderClock,
    contact: Contact,
}

impl Node {
    /// A member that has just started.
    pub(crate) fn new(id: u64, raft: Raft, state: StoreHandle, notes: Arc<Mutex<Notes>>) -> Node {
        Node { id, raft, state, seat: Mutex::default(), started: Instant::now(), notes }
    }

    /// The term in which it leads, as far as it knows.
    pub(crate) fn leads(&self) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.state == ServerState::Leader).then_some(metrics.current_term)
    }

    fn seat(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock().expect("nobody panics while holding a seat")
    }

    fn elapsed(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).expect("a run is short"))
    }

    /// The wall clock, which no decision reads. Here it never shows the same number twice, so every proposal can be told
    /// from every other.
    fn wall(&self) -> u64 {
        self.notes().number()
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().expect("nobody panics while noting")
    }

    /// Runs as long as the member.
    pub(crate) async fn duty(&self) {
        loop {
            self.tick().await;
            sleep(TICK).await;
        }
    }

    async fn tick(&self) {
        let Some(term) = self.leads() else {
            let mut seat = self.seat();
            seat.clock.demoted();
            seat.contact.clear();
            return;
        };
        let must_promote = {
            let mut seat = self.seat();
            if seat.term != term {
                *seat = Seat { term, ..Seat::default() };
            }
            let elapsed = self.elapsed();
            seat.clock.tick(elapsed)
        };
        if must_promote && !self.promote(term).await {
            return;
        }
        let commands = {
            let seat = self.seat();
            let Some(now) = seat.clock.stamp(self.elapsed(), 0) else { return };
            self.state.read(|state, _| due(state, &seat.contact, now))
        };
        let proposals = stream::iter(commands).map(|command| self.propose(command));
        proposals.buffered(PROPOSALS_MAX).collect::<Vec<_>>().await;
    }

    async fn promote(&self, term: u64) -> bool {
        let command = Command::Promote { member: self.id };
        let (time, feature_level) = self.state.read(|state, _| (state.now, state.stamp_level(&command)));
        let entry = Entry { time, wall_ms: self.wall(), feature_level, command };
        if !matches!(self.write(entry).await, Answer::Applied(_)) {
            return false;
        }
        let now = self.state.read(|state, _| state.now);
        let mut seat = self.seat();
        if seat.term != term {
            return false;
        }
        let elapsed = self.elapsed();
        seat.clock.promoted(now, elapsed);
        true
    }

    /// Stamps a command and has it written, if this member leads and is promoted.
    pub(crate) async fn propose(&self, mut command: Command) -> Answer {
        let time = {
            let mut seat = self.seat();
            let right = self.leads() == Some(seat.term);
            let time = right.then(|| seat.clock.stamp(self.elapsed(), 0)).flatten();
            let Some(time) = time else {
                let leader = self.raft.metrics().borrow_watched().current_leader;
                return Answer::NotLeader(leader.filter(|leader| *leader != self.id));
            };
            match &command {
                Command::Register { fleet, node, .. } | Command::Report { fleet, node, .. } => {
                    seat.contact.hear(fleet, node, time);
                }
                _ => {}
            }
            self.state.read(|state, _| witness(&mut command, state, &seat.contact, time));
            time
        };
        let feature_level = self.state.read(|state, _| state.stamp_level(&command));
        let entry = Entry { time, wall_ms: self.wall(), feature_level, command };
        self.write(entry).await
    }

    async fn write(&self, entry: Entry) -> Answer {
        let number = entry.wall_ms;
        match timeout(PROPOSAL_DEADLINE, self.raft.client_write(entry)).await {
            Ok(Ok(written)) => match written.data {
                Response::Command(applied) => Answer::Applied(applied),
                Response::Internal { index } => panic!("entry {index} held no command"),
            },
            Ok(Err(error)) => match error.api_error() {
                // The coordinator tells its callers that this has no effect.
                Some(ClientWriteError::ForwardToLeader(forward)) => {
                    self.notes().refused(number);
                    Answer::NotLeader(forward.leader_id)
                }
                Some(_) | None => Answer::Unknown,
            },
            Err(_) => Answer::Unknown,
        }
    }
}
