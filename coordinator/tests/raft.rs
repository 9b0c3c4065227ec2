//! Members over loopback gRPC: elections, crashes, restarts, snapshots, hand-over, changes of members.
//!
//! Each member has a runtime of its own. Dropping that is the crash: nothing is said good-bye to, connections break, and
//! the data folder is let go with whatever was written.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{collections::BTreeMap, future::Future, net::SocketAddr, path::PathBuf, time::Duration};

use soloist_coordinator::raft::{
    Compaction, HandOver, OpenError, ProposeError, RaftNode, RaftOptions, RaftStatus, ReadError, Role, Timing,
};
use soloist_core::{
    Command, Entry,
    ids::{FleetId, OperationId},
    time::Time,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime, time::timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

/// Time for anything to happen. Nothing here needs a tenth of it on an idle machine.
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_goes_on_and_a_crashed_one_catches_up() {
    let mut cluster = Cluster::start(3).await;
    let first = cluster.leader().await;
    for number in 1..=20 {
        cluster.propose(number).await;
    }
    cluster.crash(first).await;

    let second = cluster.leader().await;
    assert_ne!(second, first);
    for number in 21..=40 {
        cluster.propose(number).await;
    }
    cluster.restart(first).await;
    cluster.all_agree(40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_refuse_and_name_the_leader() {
    let cluster = Cluster::start_with(3, calm).await;
    let leader = cluster.leader().await;
    cluster.propose(1).await;
    cluster.all_agree(1).await;
    let follower = &cluster.members[&(leader % 3 + 1)].node;
    assert!(cluster.members[&leader].node.is_leader() && !follower.is_leader());

    let expected = cluster.addresses[&leader].to_string();
    let Err(ProposeError::NotLeader { leader: Some(named) }) = follower.propose(entry(2)).await else {
        panic!("a follower took a proposal");
    };
    assert_eq!((named.id, named.address), (leader, expected));
    assert!(matches!(follower.ensure_linearizable().await, Err(ReadError::NotLeader { .. })));

    let read = cluster.members[&leader].node.ensure_linearizable().await.unwrap();
    assert!(cluster.members[&leader].node.storage().read(|state, index| state.wall_ms == 1 && index >= read));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_leader_is_elected_again_in_a_higher_term() {
    // Alone, a member wins every election, so nothing but a restored leadership could keep its term.
    let mut cluster = Cluster::start(1).await;
    cluster.propose(1).await;
    let before = cluster.members[&1].node.status().borrow().term;
    for _ in 0..3 {
        cluster.crash(1).await;
        cluster.restart(1).await;
        cluster.leader().await;
        cluster.propose(2).await;
    }
    let after = cluster.members[&1].node.status().borrow().term;
    assert!(
        after >= before + 3,
        "a leader resumed term {before} without an election, three restarts later the term is {after}"
    );
    assert_eq!(cluster.members[&1].node.storage().read(|state, _| state.wall_ms), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_too_long_gets_a_snapshot() {
    let mut cluster = Cluster::start_with(3, |options| {
        options.compaction = Compaction { snapshot_every: 20, keep_entries: 5 }
    })
    .await;
    let leader = cluster.leader().await;
    let away = leader % 3 + 1;
    cluster.propose(1).await;
    cluster.all_agree(1).await;
    cluster.crash(away).await;
    for number in 2..=100 {
        cluster.propose(number).await;
    }
    let missed = cluster.members[&cluster.leader().await].node.clone();
    wait(&missed, "cut its log off", |status| status.purged > Some(50)).await;

    cluster.restart(away).await;
    cluster.all_agree(100).await;
    let status = cluster.members[&away].node.status().borrow().clone();
    assert!(status.snapshot > Some(50), "it caught up without a snapshot: {status:?}");

    // And it remembers.
    cluster.crash(away).await;
    cluster.restart(away).await;
    cluster.propose(101).await;
    cluster.all_agree(101).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_and_purges_bound_the_disk() {
    let cluster = Cluster::start_with(1, |options| {
        options.compaction = Compaction { snapshot_every: 50, keep_entries: 10 }
    })
    .await;
    let leader = cluster.members[&cluster.leader().await].node.clone();
    let folder = cluster.folders[&1].path();
    // Eight of them at once: as many syncs less.
    let fill = async |rounds: usize| {
        for _ in 0..rounds {
            let proposals = (0..8).map(|_| leader.propose(large(20_000)));
            futures::future::join_all(proposals).await.into_iter().for_each(|done| drop(done.unwrap()));
        }
        let last = leader.status().borrow().applied.unwrap();
        wait(&leader, "cut its log off", |status| status.purged.is_some_and(|purged| purged + 70 > last))
            .await;
        std::fs::metadata(folder.join("log.redb")).unwrap().len()
    };
    let first = fill(40).await;
    let fourth = fill(120).await;
    assert!(
        fourth < first * 2,
        "four times the entries, and the log's file grew from {first} to {fourth} bytes"
    );
    // One more may just be on its way to the disk; then the older one goes.
    within("keep only the newest snapshot", async {
        while std::fs::read_dir(folder.join("snapshots")).unwrap().count() != 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_hands_over_to_a_voter_that_is_there() {
    let mut cluster = Cluster::start_with(3, calm).await;
    let first = cluster.leader().await;
    cluster.propose(1).await;
    let follower = first % 3 + 1;
    assert_eq!(cluster.members[&follower].node.hand_over(DEADLINE).await, HandOver::NotLeading);

    let leader = cluster.members[&first].node.clone();
    wait(&leader, "hear from both", |status| status.peers.values().all(|peer| peer.matched.is_some())).await;
    let HandOver::To(second) = leader.hand_over(DEADLINE).await else { panic!("nobody took over") };
    assert_ne!(second, first);
    cluster.stop(first).await;
    cluster.propose(2).await;

    // With one voter gone for good, only the other one comes into question.
    let leader = cluster.leader().await;
    let HandOver::To(third) = cluster.members[&leader].node.hand_over(DEADLINE).await else {
        panic!("nobody took over")
    };
    assert!(third != first && third != leader);
    cluster.propose(3).await;
    cluster.restart(first).await;
    cluster.all_agree(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_confirmed() {
    let mut cluster = Cluster::start_with(3, |options| {
        calm(options);
        options.deadline = Duration::from_secs(1);
    })
    .await;
    let leader = cluster.leader().await;
    cluster.propose(1).await;
    for other in (1..=3).filter(|other| *other != leader) {
        cluster.crash(other).await;
    }
    let node = cluster.members[&leader].node.clone();
    // It may also have noticed already that nobody follows.
    let proposed = node.propose(entry(2)).await;
    assert!(
        matches!(proposed, Err(ProposeError::Unavailable { .. } | ProposeError::NotLeader { leader: None })),
        "{proposed:?}"
    );
    let read = node.ensure_linearizable().await;
    assert!(
        matches!(read, Err(ReadError::Unavailable { .. } | ReadError::NotLeader { leader: None })),
        "{read:?}"
    );
    let handed_over = node.hand_over(Duration::from_secs(2)).await;
    assert!(matches!(handed_over, HandOver::Nobody | HandOver::NotLeading), "{handed_over:?}");
    assert_eq!(node.storage().read(|state, _| state.wall_ms), 1);

    for other in (1..=3).filter(|other| *other != leader) {
        cluster.restart(other).await;
    }
    cluster.propose(3).await;
    cluster.all_agree(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go() {
    let mut cluster = Cluster::start(1).await;
    cluster.propose(1).await;
    for newcomer in [2, 3] {
        cluster.join(newcomer).await;
        let address = cluster.addresses[&newcomer].to_string();
        cluster
            .with_leader(async |leader| {
                leader.add_learner(newcomer, &address).await?;
                leader.promote(newcomer).await
            })
            .await;
    }
    cluster.propose(2).await;
    cluster.all_agree(2).await;
    assert_eq!(cluster.members[&3].node.status().borrow().voters.len(), 3);

    cluster.with_leader(async |leader| leader.remove_member(3).await).await;
    cluster.crash(3).await;
    cluster.crash(1).await;
    cluster.restart(1).await;
    cluster.propose(3).await;
    cluster.all_agree(3).await;
    let leader = cluster.leader().await;
    assert_eq!(cluster.members[&leader].node.status().borrow().voters.len(), 2);
}

/// Whoever takes a member in looks at it next, and must not be told that there is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_members_shows_once_it_is_confirmed() {
    let mut cluster = Cluster::start(1).await;
    let leader = cluster.members[&cluster.leader().await].node.clone();
    let shown = |id: u64| leader.status().borrow().addresses().get(&id).cloned();
    for id in 2..=20 {
        cluster.join(id).await;
        let address = cluster.addresses[&id].to_string();
        leader.add_learner(id, &address).await.unwrap();
        assert_eq!(shown(id), Some(address.clone()));
        let moved = address.replace("127.0.0.1", "localhost");
        leader.move_member(id, &moved).await.unwrap();
        assert_eq!(shown(id), Some(moved));
        leader.remove_member(id).await.unwrap();
        assert_eq!(shown(id), None);
        cluster.crash(id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_may_be_large_but_not_too_large() {
    let cluster = Cluster::start(3).await;
    let node = &cluster.members[&cluster.leader().await].node;
    assert!(matches!(node.propose(large(66_000)).await, Err(ProposeError::TooLarge { .. })));
    // Many at once, so that they travel and are stored together.
    let proposals = (0..200).map(|_| cluster.with_leader(async |leader| leader.propose(large(65_000)).await));
    futures::future::join_all(proposals).await;
    cluster.propose(7).await;
    cluster.all_agree(7).await;
    for folder in cluster.folders.values() {
        let blobs = std::fs::read_dir(folder.path().join("log/blobs")).map_or(0, Iterator::count);
        assert_eq!(blobs, 0, "values went to files that are never synced");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impossible_options_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = RaftOptions::new("test", 1, folder.path()).with_initial_members([(2, "127.0.0.1:1")]);
    let error = RaftNode::open(options).await.unwrap_err();
    assert!(matches!(&error, OpenError::Options(text) if text.contains("member 1")), "{error}");
}

/// The members of a cluster, their addresses and their folders.
struct Cluster {
    initial: BTreeMap<u64, String>,
    addresses: BTreeMap<u64, SocketAddr>,
    folders: BTreeMap<u64, TempDir>,
    members: BTreeMap<u64, Running>,
    change: fn(&mut RaftOptions),
}

struct Running {
    node: RaftNode,
    runtime: Runtime,
}

impl Cluster {
    async fn start(size: u64) -> Cluster {
        Cluster::start_with(size, |_| {}).await
    }

    async fn start_with(size: u64, change: fn(&mut RaftOptions)) -> Cluster {
        let mut cluster = Cluster {
            initial: BTreeMap::new(),
            addresses: BTreeMap::new(),
            folders: BTreeMap::new(),
            members: BTreeMap::new(),
            change,
        };
        let mut listeners = BTreeMap::new();
        for id in 1..=size {
            listeners.insert(id, cluster.settle(id).await);
        }
        cluster.initial = cluster.addresses.iter().map(|(id, address)| (*id, address.to_string())).collect();
        for (id, listener) in listeners {
            cluster.run(id, listener).await;
        }
        cluster
    }

    /// Gives a member a folder and an address.
    async fn settle(&mut self, id: u64) -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.addresses.insert(id, listener.local_addr().unwrap());
        self.folders.insert(id, tempfile::tempdir().unwrap());
        listener
    }

    /// Starts a member that waits to be taken in.
    async fn join(&mut self, id: u64) {
        let listener = self.settle(id).await;
        self.run(id, listener).await;
    }

    async fn run(&mut self, id: u64, listener: TcpListener) {
        let folder: PathBuf = self.folders[&id].path().into();
        let mut options = RaftOptions::new("test", id, folder);
        if self.initial.contains_key(&id) {
            options = options.with_initial_members(self.initial.clone());
        }
        (self.change)(&mut options);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = listener.into_std().unwrap();
        let started = runtime.spawn(async move {
            let node = RaftNode::open(options).await.unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            let server = Server::builder().add_service(node.service());
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
            node
        });
        let node = within("start a member", started).await.unwrap();
        self.members.insert(id, Running { node, runtime });
    }

    async fn restart(&mut self, id: u64) {
        let listener = TcpListener::bind(self.addresses[&id]).await.unwrap();
        self.run(id, listener).await;
    }

    async fn crash(&mut self, id: u64) {
        let Running { node, runtime } = self.members.remove(&id).unwrap();
        drop(node);
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(DEADLINE)).await.unwrap();
    }

    /// A planned stop.
    async fn stop(&mut self, id: u64) {
        self.members[&id].node.shutdown().await;
        assert!(self.members[&id].node.is_stopped());
        assert_eq!(*self.members[&id].node.fatal().borrow(), None);
        self.crash(id).await;
    }

    /// The leader that all running voters agree on.
    async fn leader(&self) -> u64 {
        within("elect a leader", async {
            loop {
                let mut all: Vec<_> = self.members.values().map(|running| running.node.status()).collect();
                let views: Vec<_> = all.iter_mut().map(|status| status.borrow_and_update().clone()).collect();
                if let Some(leader) = views.iter().find(|view| view.role == Role::Leader) {
                    let voters = || views.iter().filter(|view| view.role != Role::Learner);
                    if voters().all(|view| view.term == leader.term && view.leader == leader.leader) {
                        return leader.member;
                    }
                }
                let changes = all.iter_mut().map(|status| Box::pin(status.changed()));
                futures::future::select_all(changes).await.0.unwrap();
            }
        })
        .await
    }

    /// Does something that needs the leader, as a client would: ask whoever leads, and ask again.
    async fn with_leader<T>(&self, ask: impl AsyncFn(RaftNode) -> Result<T, ProposeError>) -> T {
        within("have a request fulfilled", async {
            loop {
                let leader = self.leader().await;
                match ask(self.members[&leader].node.clone()).await {
                    Ok(done) => break done,
                    Err(ProposeError::NotLeader { .. } | ProposeError::Unavailable { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await
    }

    /// Has a numbered command applied.
    async fn propose(&self, number: u64) {
        self.with_leader(async |leader| leader.propose(entry(number)).await).await.reply.unwrap();
    }

    /// Waits until all running members have applied a numbered command, and compares their states.
    async fn all_agree(&self, number: u64) {
        let mut states = Vec::new();
        for running in self.members.values() {
            let storage = running.node.storage();
            let mut applied = storage.applied();
            let reached = applied.wait_for(|_| storage.read(|state, _| state.wall_ms == number));
            within("apply everything", reached).await.unwrap();
            states.push(storage.read(|state, _| state.clone()));
        }
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "{states:?}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (_, running) in std::mem::take(&mut self.members) {
            running.runtime.shutdown_background();
        }
    }
}

/// Patience for tests that need one leader to stay, however busy the machine is.
fn calm(options: &mut RaftOptions) {
    options.timing = Timing { heartbeat_ms: 200, election_min_ms: 2_000, election_max_ms: 3_000 };
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(DEADLINE, work)
        .await
        .unwrap_or_else(|_| panic!("could not {what} within {} s", DEADLINE.as_secs()))
}

async fn wait(node: &RaftNode, what: &str, reached: impl FnMut(&RaftStatus) -> bool) {
    within(what, node.status().wait_for(reached)).await.unwrap();
}

fn entry(number: u64) -> Entry {
    Entry { time: Time(number), wall_ms: number, feature_level: 1, command: Command::Promote { member: 1 } }
}

/// A command of about this many bytes. No such fleet exists, so the state only takes note of the time.
fn large(bytes: usize) -> Entry {
    let command = Command::Abort {
        fleet: FleetId::new("none").unwrap(),
        operation: OperationId::new("none").unwrap(),
        by: "a test".to_owned(),
        reason: "x".repeat(bytes),
    };
    Entry { command, ..entry(6) }
}
