//! Agents without hosts: sessions that answer every assignment at once. Thousands of them live in one thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use soloist_core::assignment::{AppState, Assignment, Observed, Run};
use soloist_core::command::{Registration, Role};
use soloist_core::ids::{BootId, FleetId, Incarnation, MachineId, NodeId};
use soloist_proto::convert::Greeting;
use soloist_proto::v1::agent_service_client::AgentServiceClient;
use soloist_proto::v1::coordinator_message::Message;
use soloist_proto::v1::{AgentMessage, Beat};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::harness::{Place, until};

/// As real agents have them.
const CONNECT_MAX: Duration = Duration::from_secs(2);
const SILENCE_MAX: Duration = Duration::from_secs(5);
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// A member may be without a leader for so long.
const STALE_MAX: Duration = Duration::from_secs(3);
/// Before another member is tried: doubled with every failure, so many times, and up to twice that by chance.
const PAUSE_MS: u64 = 50;
const DOUBLED_MAX: u32 = 5;
/// A session that lasted so long was no failure.
const GOOD: Duration = Duration::from_secs(10);
/// How often it is looked whether all should end.
const LOOK: Duration = Duration::from_millis(300);
/// How many nodes one fleet has.
const NODES: usize = 32;
/// How many sessions begin in each step of this length, so that a thousand handshakes do not time each other out.
const STEP: (usize, Duration) = (25, Duration::from_millis(40));

/// What became of them.
#[derive(Debug, Default)]
pub struct Tally {
    open: AtomicUsize,
    began: AtomicUsize,
}

/// Many agents. They end when it is dropped.
#[derive(Debug)]
pub struct Swarm {
    count: usize,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The name of the fleet of the agent with this number.
#[must_use]
pub fn fleet_of(prefix: &str, number: usize) -> String {
    format!("{prefix}-{}", number / NODES)
}

impl Swarm {
    /// Begins that many sessions with these members, from that place. Their fleets are called by the prefix.
    #[must_use]
    pub fn start(place: Place, members: Vec<SocketAddr>, prefix: &str, count: usize) -> Self {
        let (tally, stop) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
        let (shared, stopped, prefix) = (Arc::clone(&tally), Arc::clone(&stop), prefix.to_owned());
        let thread = std::thread::spawn(move || {
            place.enter();
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut sessions = tokio::task::JoinSet::new();
                for number in 0..count {
                    let delay = STEP.1 * u32::try_from(number / STEP.0).unwrap_or(u32::MAX);
                    sessions.spawn(live(members.clone(), prefix.clone(), number, delay, Arc::clone(&shared)));
                }
                while !stopped.load(Ordering::Relaxed) {
                    sleep(LOOK).await;
                }
            });
        });
        Self { count, tally, stop, thread: Some(thread) }
    }

    /// How many have a session now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.tally.open.load(Ordering::Relaxed)
    }

    /// How many sessions ever began.
    #[must_use]
    pub fn began(&self) -> usize {
        self.tally.began.load(Ordering::Relaxed)
    }

    /// Waits until all have one.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn until_all(&self, limit: Duration) {
        let state = || format!("{} of {} have a session", self.open(), self.count);
        until("a session for every agent", limit, state, || (self.open() == self.count).then_some(()));
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One agent: a session, and another, for ever.
async fn live(members: Vec<SocketAddr>, prefix: String, number: usize, delay: Duration, tally: Arc<Tally>) {
    sleep(delay).await;
    let (mut turn, mut sequence, mut failures) = (number, 0, 0_u32);
    loop {
        let began = Instant::now();
        if let Some(member) = members.get(turn % members.len()) {
            let _ = session(*member, &prefix, number, &mut sequence, &tally).await;
        }
        turn += 1;
        failures = if began.elapsed() > GOOD { 0 } else { failures.saturating_add(1) };
        let base = PAUSE_MS << failures.min(DOUBLED_MAX);
        sleep(Duration::from_millis(base + rand::random::<u64>() % base)).await;
    }
}

/// One session to its end.
async fn session(
    member: SocketAddr,
    prefix: &str,
    number: usize,
    sequence: &mut u64,
    tally: &Tally,
) -> Option<()> {
    let endpoint = Endpoint::from_shared(format!("http://{member}")).ok()?.connect_timeout(CONNECT_MAX);
    let channel = timeout(CONNECT_MAX, endpoint.connect()).await.ok()?.ok()?;
    let (to, messages) = mpsc::channel(16);
    to.send(greeting(prefix, number)?.into()).await.ok()?;
    let mut client = AgentServiceClient::new(channel);
    let opening = client.session(ReceiverStream::new(messages));
    let mut from = timeout(SILENCE_MAX, opening).await.ok()?.ok()?.into_inner();
    let mut beats = interval(BEAT_EVERY);
    let mut open = Open { tally, counts: false };
    let (mut heard, mut stale): (Instant, Option<Instant>) = (Instant::now(), None);
    loop {
        // Cancel-safe: a stream and a clock only wait.
        let message = tokio::select! {
            _ = beats.tick() => {
                if heard.elapsed() > SILENCE_MAX {
                    return None;
                }
                to.try_send(Beat::default().into()).ok()?;
                continue;
            }
            message = from.message() => message.ok()??,
        };
        heard = Instant::now();
        match message.message? {
            Message::Registered(_) => open.count(),
            Message::Assignment(assignment) => {
                *sequence += 1;
                let observed = obey(&Assignment::try_from(assignment).ok()?);
                to.send(AgentMessage::report(*sequence, observed)).await.ok()?;
            }
            Message::Contact(contact) if contact.has_leader => stale = None,
            Message::Contact(_) if stale.get_or_insert_with(Instant::now).elapsed() > STALE_MAX => {
                return None;
            }
            Message::Refused(_) => return None,
            _ => {}
        }
    }
}

/// Counts a session while it lives.
struct Open<'a> {
    tally: &'a Tally,
    counts: bool,
}

impl Open<'_> {
    fn count(&mut self) {
        self.counts = true;
        self.tally.open.fetch_add(1, Ordering::Relaxed);
        self.tally.began.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.counts {
            self.tally.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn greeting(prefix: &str, number: usize) -> Option<Greeting> {
    let incarnation = Incarnation(u64::try_from(number).ok()? + 1);
    Some(Greeting {
        fleet: FleetId::new(fleet_of(prefix, number)).ok()?,
        node: NodeId::new(format!("node-{}", number % NODES)).ok()?,
        registration: Registration {
            incarnation,
            lineage: vec![incarnation],
            fresh: true,
            machine: MachineId(format!("machine-{number}")),
            boot: BootId("boot".into()),
            address: String::new(),
            role: Role::App,
        },
        version: "swarm".into(),
        cluster: String::new(),
    })
}

/// Everything is done at once.
fn obey(assignment: &Assignment) -> Observed {
    let runs = assignment.spec.run != Run::Stop;
    Observed {
        applied: assignment.generation,
        boot: BootId("boot".into()),
        launched: runs.then_some(assignment.generation),
        app: if runs { AppState::Serving } else { AppState::Stopped },
        // Nobody uses it, and it does nothing by itself.
        away: true,
        under_way: Some(Vec::new()),
        ..Observed::default()
    }
}
