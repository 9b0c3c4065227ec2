//! One member: a process with a runtime of its own, on a disk that outlives it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::{StreamExt, stream};
use openraft::{BasicNode, ReadPolicy, rt::AsyncRuntime};
use soloist_coordinator::{
    raft::{Compaction, RaftOptions, library_config},
    store::Machine,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    time::{advance, sleep, timeout},
};

use crate::{
    Flaw,
    disk::Disk,
    duty::Node,
    log::Log,
    oracle::Notes,
    peer::{PIPELINE, Peers},
    runtime::Seeded,
    types::{Raft, Simulated},
    wire::{Answer, Body, INBOX, Message, Request, Wire},
};

/// How long a linearizable read may take.
const READ_DEADLINE: Duration = Duration::from_secs(5);

/// What a run of a member is started with.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) compaction: Compaction,
    pub(crate) flaw: Option<Flaw>,
    /// The members that found the cluster.
    pub(crate) founders: Vec<u64>,
    pub(crate) wire: Wire,
    pub(crate) notes: Arc<Mutex<Notes>>,
}

/// A running process: dropping it is a crash.
#[derive(Debug)]
struct Process {
    runtime: Runtime,
    node: Arc<Mutex<Option<Arc<Node>>>>,
}

/// A member of the cluster, running or not.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) disk: Disk,
    process: Option<Process>,
    /// Counted from 1.
    pub(crate) run: u64,
    /// It starts again then, in the world's time.
    pub(crate) up_at: u64,
    /// It executes nothing until then.
    pub(crate) stalled_until: u64,
    /// Its clock gains or loses so many of a thousand milliseconds.
    drift: i64,
    /// What its clock is behind, in thousandths of a millisecond.
    behind: i64,
}

impl Member {
    /// A member that has not started yet.
    pub(crate) fn new(id: u64, disk: Disk, drift: i64) -> Member {
        let process = None;
        Member { id, disk, process, run: 0, up_at: 0, stalled_until: 0, drift, behind: 0 }
    }

    /// Whether its process exists; a stalled one does.
    pub(crate) fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// The member as far as it has come up.
    pub(crate) fn node(&self) -> Option<Arc<Node>> {
        self.process.as_ref().and_then(|process| slot(&process.node).clone())
    }

    /// Starts its process.
    pub(crate) fn start(&mut self, seed: u64, setup: &Setup) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without threads of its own needs nothing");
        let node = Arc::new(Mutex::new(None));
        self.run += 1;
        self.behind = 0;
        let (inbox, messages) = mpsc::channel(INBOX);
        setup.wire.cables().inboxes.insert(self.id, inbox);
        let life = live(self.id, self.disk.clone(), setup.clone(), node.clone(), messages);
        let seed = seed.wrapping_mul(1_000_003) ^ self.id << 32 ^ self.run;
        runtime.spawn(Seeded::scope(seed, life));
        self.process = Some(Process { runtime, node });
    }

    /// Ends its process at once, with a power cut. Returns how many writes are lost.
    pub(crate) fn crash(&mut self, wire: &Wire) -> usize {
        wire.cables().inboxes.remove(&self.id);
        self.process = None;
        self.stalled_until = 0;
        self.disk.cut_power()
    }

    /// Lets its process run for so many milliseconds of the world's time. After a stall its clock jumps.
    pub(crate) fn step(&mut self, ms: u64, now: u64) {
        let Some(process) = &self.process else { return };
        self.behind += i64::try_from(ms).expect("a step is short") * (1000 + self.drift);
        if now < self.stalled_until {
            return;
        }
        let own = u64::try_from(self.behind / 1000).expect("clocks go forward");
        self.behind %= 1000;
        process.runtime.block_on(async {
            if own > 2 * ms {
                advance(Duration::from_millis(own - ms)).await;
                sleep(Duration::from_millis(ms)).await;
            } else {
                sleep(Duration::from_millis(own)).await;
            }
        });
    }

    /// Starts something in its process.
    pub(crate) fn spawn(&self, seed: u64, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(process) = &self.process {
            process.runtime.spawn(Seeded::scope(seed, work));
        }
    }
}

fn slot(node: &Mutex<Option<Arc<Node>>>) -> MutexGuard<'_, Option<Arc<Node>>> {
    node.lock().expect("nobody panics while setting a slot")
}

/// The life of a member's process.
async fn live(
    id: u64,
    disk: Disk,
    setup: Setup,
    node: Arc<Mutex<Option<Arc<Node>>>>,
    messages: mpsc::Receiver<Message>,
) {
    let mut options = RaftOptions::new("simulated", id, "simulated");
    options.compaction = setup.compaction;
    let mut config = library_config(&options).expect("the options are sound");
    if setup.flaw == Some(Flaw::LeaderRestore) {
        config.enable_leader_restore = None;
    }
    let purged = disk.platter().volatile.purged;
    let machine = Machine::open(disk.clone(), purged).expect("the snapshot reaches up to the log");
    let state = machine.handle();
    let peers = Peers { from: id, wire: setup.wire.clone() };
    let log = Log::start(disk, setup.notes.clone(), setup.flaw);
    let Ok(raft) = Raft::new(id, Arc::new(config), peers, log, machine).await else { return };
    if setup.founders.contains(&id) && matches!(raft.is_initialized().await, Ok(false)) {
        let members = setup.founders.iter().map(|id| (*id, BasicNode::new(id)));
        // Another founder may have been faster.
        let _ = raft.initialize(members.collect::<BTreeMap<_, _>>()).await;
    }
    let this = Arc::new(Node::new(id, raft, state, setup.notes));
    *slot(&node) = Some(this.clone());
    let duty = this.clone();
    Seeded::spawn(async move { duty.duty().await });
    serve(this, setup.wire, messages).await;
}

/// Answers what arrives.
async fn serve(node: Arc<Node>, wire: Wire, mut messages: mpsc::Receiver<Message>) {
    let mut pipelines: BTreeMap<u64, Incoming> = BTreeMap::new();
    while let Some(Message { from, body, .. }) = messages.recv().await {
        match body {
            Body::Ask { call, request } => {
                let (node, wire) = (node.clone(), wire.clone());
                Seeded::spawn(async move {
                    let answer = answer(&node, *request).await;
                    wire.post(node.id, from, Body::Answer { call, answer });
                });
            }
            Body::Append { stream, number, request } => {
                pipelines.retain(|id, pipeline| *id == stream || !pipeline.requests.is_closed());
                let pipeline =
                    pipelines.entry(stream).or_insert_with(|| Incoming::open(&node, &wire, from, stream));
                pipeline.early.insert(number, request);
                pipeline.pass();
            }
            // The network keeps answers for those that asked.
            Body::Answer { .. } | Body::Appended { .. } => {}
        }
    }
}

/// The receiving end of a pipeline: brings its requests into their order, as a connection does.
struct Incoming {
    requests: mpsc::Sender<openraft::raft::AppendEntriesRequest<Simulated>>,
    early: BTreeMap<u64, openraft::raft::AppendEntriesRequest<Simulated>>,
    next: u64,
}

impl Incoming {
    fn open(node: &Arc<Node>, wire: &Wire, from: u64, stream: u64) -> Incoming {
        let (requests, receiver) = mpsc::channel(2 * PIPELINE);
        let input = stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|request| (request, receiver))
        });
        let mut results = node.raft.stream_append(input.boxed()).boxed();
        let (id, wire) = (node.id, wire.clone());
        Seeded::spawn(async move {
            let mut number = 0;
            while let Some(Ok(result)) = results.next().await {
                wire.post(id, from, Body::Appended { stream, number, result });
                number += 1;
            }
        });
        Incoming { requests, early: BTreeMap::new(), next: 0 }
    }

    fn pass(&mut self) {
        self.early.retain(|number, _| *number >= self.next);
        while let Some(request) = self.early.remove(&self.next)
            && self.requests.try_send(request).is_ok()
        {
            self.next += 1;
        }
    }
}

async fn answer(node: &Node, request: Request) -> Answer {
    let raft = &node.raft;
    match request {
        Request::Vote(request) => raft.vote(request).await.map_or(Answer::Unknown, Answer::Vote),
        Request::PreVote(request) => raft.pre_vote(request).await.map_or(Answer::Unknown, Answer::Vote),
        Request::Append(request) => {
            raft.append_entries(request).await.map_or(Answer::Unknown, Answer::Append)
        }
        Request::Install(vote, snapshot) => {
            raft.install_full_snapshot(vote, snapshot).await.map_or(Answer::Unknown, Answer::Install)
        }
        Request::Transfer(request) => {
            raft.handle_transfer_leader(request).await.map_or(Answer::Unknown, Answer::Transfer)
        }
        Request::Propose(command) => node.propose(command).await,
        Request::Read => {
            match timeout(READ_DEADLINE, raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
                Ok(Ok(_)) => Answer::State(node.state.read(|_, index| index)),
                Ok(Err(_)) => Answer::NotLeader(None),
                Err(_) => Answer::Unknown,
            }
        }
    }
}
