//! The network: messages that are late, lost, doubled, overtake each other, or meet a cut.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    sync::{Arc, Mutex, MutexGuard},
};

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use soloist_coordinator::raft::Applied;
use soloist_core::Command;
use tokio::sync::{mpsc, oneshot};

use crate::{
    chance::Chance,
    types::{Simulated, Snapshot, Vote},
};

/// Ids from here on are clients, not members.
pub(crate) const CLIENTS: u64 = 100;

/// How many messages wait before a member at most; more are lost, as from a full socket.
pub(crate) const INBOX: usize = 4096;

/// What is asked of a member.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Vote(VoteRequest<Simulated>),
    PreVote(VoteRequest<Simulated>),
    Append(AppendEntriesRequest<Simulated>),
    Install(Vote, Snapshot),
    Transfer(TransferLeaderRequest<Simulated>),
    Propose(Command),
    Read,
}

/// What a member answers.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Vote(VoteResponse<Simulated>),
    Append(AppendEntriesResponse<Simulated>),
    Install(SnapshotResponse<Simulated>),
    Transfer(TransferLeaderResponse<Simulated>),
    Applied(Applied),
    /// A linearizable read found the state as of this index.
    State(u64),
    NotLeader(Option<u64>),
    /// It is not known what became of it, or the member has stopped.
    Unknown,
}

/// A message's content.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Ask {
        call: u64,
        request: Box<Request>,
    },
    Answer {
        call: u64,
        answer: Answer,
    },
    /// A request of a pipeline, and its number there.
    Append {
        stream: u64,
        number: u64,
        request: AppendEntriesRequest<Simulated>,
    },
    Appended {
        stream: u64,
        number: u64,
        result: StreamAppendResult<Simulated>,
    },
}

/// A message under way.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) body: Body,
}

/// How bad the network is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// The longest ordinary way, in milliseconds.
    pub(crate) latency_ms: u64,
    /// Of a thousand messages, how many are lost, …
    pub(crate) lost: u64,
    /// … arrive twice, …
    pub(crate) doubled: u64,
    /// … and take up to 400 ms longer.
    pub(crate) late: u64,
}

/// The network of one run. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Wire(Arc<Mutex<Cables>>);

#[derive(Debug)]
pub(crate) struct Cables {
    pub(crate) now: u64,
    pub(crate) weather: Weather,
    /// Directions that carry nothing: from, to.
    pub(crate) cuts: BTreeSet<(u64, u64)>,
    pub(crate) inboxes: BTreeMap<u64, mpsc::Sender<Message>>,
    calls: BTreeMap<u64, oneshot::Sender<Answer>>,
    streams: BTreeMap<u64, mpsc::Sender<(u64, StreamAppendResult<Simulated>)>>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    bodies: BTreeMap<u64, Message>,
    last: u64,
    chance: Chance,
    /// A sum over everything that was delivered: two runs of one seed must have the same.
    pub(crate) sum: u64,
}

impl Wire {
    /// A network without members.
    pub(crate) fn new(weather: Weather, chance: Chance) -> Wire {
        Wire(Arc::new(Mutex::new(Cables {
            now: 0,
            weather,
            cuts: BTreeSet::new(),
            inboxes: BTreeMap::new(),
            calls: BTreeMap::new(),
            streams: BTreeMap::new(),
            queue: BinaryHeap::new(),
            bodies: BTreeMap::new(),
            last: 0,
            chance,
            sum: 0,
        })))
    }

    /// Everything about it.
    pub(crate) fn cables(&self) -> MutexGuard<'_, Cables> {
        self.0.lock().expect("nobody panics while holding the network")
    }

    /// Sends a message.
    pub(crate) fn post(&self, from: u64, to: u64, body: Body) {
        self.cables().post(Message { from, to, body });
    }

    /// Asks a member; the answer may never come.
    pub(crate) fn ask(&self, from: u64, to: u64, request: Request) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        let mut cables = self.cables();
        let call = cables.number();
        cables.calls.insert(call, answer);
        cables.post(Message { from, to, body: Body::Ask { call, request: Box::new(request) } });
        receiver
    }

    /// Asks a member for a client, whose answer comes back from [`Wire::deliver`] under this number.
    pub(crate) fn ask_for_client(&self, from: u64, to: u64, request: Request) -> u64 {
        let mut cables = self.cables();
        let call = cables.number();
        cables.post(Message { from, to, body: Body::Ask { call, request: Box::new(request) } });
        call
    }

    /// A new pipeline, and where its answers arrive.
    pub(crate) fn open_stream(
        &self,
        pipeline: usize,
    ) -> (u64, mpsc::Receiver<(u64, StreamAppendResult<Simulated>)>) {
        let (sender, receiver) = mpsc::channel(pipeline);
        let mut cables = self.cables();
        let stream = cables.number();
        cables.streams.retain(|_, sender| !sender.is_closed());
        cables.streams.insert(stream, sender);
        (stream, receiver)
    }

    /// Hands over what has arrived by now. Returns what is for clients: who, the call, and the answer.
    pub(crate) fn deliver(&self) -> Vec<(u64, u64, Answer)> {
        let mut cables = self.cables();
        let mut for_clients = Vec::new();
        while let Some(Reverse((at, number))) = cables.queue.peek().copied()
            && at <= cables.now
        {
            cables.queue.pop();
            let Some(message) = cables.bodies.remove(&number) else { continue };
            if !cables.cuts.contains(&(message.from, message.to)) {
                cables.arrive(at, message, &mut for_clients);
            }
        }
        cables.calls.retain(|_, answer| !answer.is_closed());
        for_clients
    }
}

impl Cables {
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn post(&mut self, message: Message) {
        if self.chance.permille(self.weather.lost) {
            return;
        }
        let copies = if self.chance.permille(self.weather.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            let more = if self.chance.permille(self.weather.late) { self.chance.between(0, 400) } else { 0 };
            let at = self.now + self.chance.between(1, self.weather.latency_ms) + more;
            let number = self.number();
            self.queue.push(Reverse((at, number)));
            self.bodies.insert(number, message.clone());
        }
    }

    fn arrive(&mut self, at: u64, message: Message, for_clients: &mut Vec<(u64, u64, Answer)>) {
        let Message { from, to, body } = &message;
        let kind = match body {
            Body::Ask { call, .. } => call << 2,
            Body::Answer { call, .. } => call << 2 | 1,
            Body::Append { stream, number, .. } => (stream << 10 ^ number) << 2 | 2,
            Body::Appended { stream, number, .. } => (stream << 10 ^ number) << 2 | 3,
        };
        for part in [at, *from, *to, kind] {
            self.sum = (self.sum ^ part).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
        match message.body {
            Body::Answer { call, answer } if message.to >= CLIENTS => {
                for_clients.push((message.to, call, answer));
            }
            // What nobody waits for any more, or has no room for, is lost.
            Body::Answer { call, answer } => {
                let _ = self.calls.remove(&call).map(|waiting| waiting.send(answer));
            }
            Body::Appended { stream, number, result } => {
                let _ = self.streams.get(&stream).map(|waiting| waiting.try_send((number, result)));
            }
            // Nobody listens there: the connection is refused.
            Body::Ask { call, .. } if message.from >= CLIENTS && !self.inboxes.contains_key(&message.to) => {
                for_clients.push((message.from, call, Answer::Unknown));
            }
            Body::Ask { .. } | Body::Append { .. } => {
                if let Some(inbox) = self.inboxes.get(&message.to) {
                    // A full inbox loses it, as a network would.
                    drop(inbox.try_send(message));
                }
            }
        }
    }
}
