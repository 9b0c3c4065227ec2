//! How long clients cannot have anything written when the leader goes: killed, standing still, or told to stop.
//!
//! `cargo build --release && cargo run --release -p soloist-tests --bin failover` (as root: members have hosts of their own)
//!
//! One holder of a lock renews its lease in a loop through each member that stays; the gap is the longest time between two of its
//! renewals that succeeded, the larger of the two members' gaps.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::process::Signal;
use soloist_core::operation::{HoldMode, Request};
use soloist_proto::v1;
use soloist_proto::v1::operator_service_client::OperatorServiceClient;
use soloist_tests::faults::locks::activate;
use soloist_tests::faults::swarm::{Swarm, fleet_of};
use soloist_tests::harness::{CLIENT, Fleet, FleetOptions, Net, Place, until};
use tonic::transport::{Channel, Endpoint};

/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(10);
/// Between two renewals.
const PAUSE: Duration = Duration::from_millis(5);
/// How long all is watched before and after the leader goes.
const BEFORE: Duration = Duration::from_millis(600);
const AFTER: Duration = Duration::from_secs(6);
/// The operation that holds the lock.
const OPERATION: &str = "failover";

#[derive(Parser)]
#[command(about = "Measures how long nothing can be written when the leader goes")]
struct Args {
    /// How many times for each way to go.
    #[arg(long, default_value_t = 10)]
    times: usize,
}

type Stub = OperatorServiceClient<Channel>;

fn stub(member: SocketAddr) -> Stub {
    let endpoint = Endpoint::from_shared(format!("http://{member}")).expect("an address");
    OperatorServiceClient::new(endpoint.tcp_nodelay(true).timeout(CALL_MAX).connect_lazy())
}

/// Renews through one member in a loop, and knows the longest time between two successes.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Writer {
    fn start(place: Place, member: SocketAddr, renew: v1::RenewRequest) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            place.enter();
            runtime().block_on(async {
                let (mut stub, mut good, mut gap) = (stub(member), Instant::now(), Duration::ZERO);
                while !stopped.load(Ordering::Relaxed) {
                    if stub.renew(renew.clone()).await.is_ok() {
                        gap = gap.max(good.elapsed());
                        good = Instant::now();
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                gap.max(good.elapsed())
            })
        });
        Self { stop, thread }
    }

    fn gap(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a writer ends well")
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A grant that a holder can renew.
fn grant(fleet: &Fleet, name: &str) -> v1::RenewRequest {
    let member = fleet.member_address(0);
    fleet.place(CLIENT).within(|| {
        runtime().block_on(async {
            let mut stub = stub(member);
            let request = Request::Hold { mode: HoldMode::AllStopped, on: None };
            let submit = v1::SubmitRequest {
                fleet: name.to_owned(),
                operation: OPERATION.into(),
                request: Some(request.into()),
                submission: Some(v1::Submission { by: "failover".into(), ..v1::Submission::default() }),
                skip_preflight: true,
            };
            stub.submit(submit).await.expect("the lock is free");
            loop {
                let ask = v1::GetOperationRequest { fleet: name.to_owned(), operation: OPERATION.into() };
                let view = stub.get_operation(ask).await.expect("it is known").into_inner().operation;
                if let Some(token) = view.filter(|view| view.granted).and_then(|view| view.token) {
                    return v1::RenewRequest { fleet: name.to_owned(), operation: OPERATION.into(), token };
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
    })
}

/// The leader as all members see it.
fn leader(fleet: &Fleet) -> usize {
    let metrics = |at: usize| {
        let port = fleet.http[at];
        let text =
            fleet.place(&format!("m{}", at + 1)).within(|| soloist_tests::harness::get(port, "/metrics"));
        text.is_some_and(|(_, text)| text.contains("soloist_coordinator_is_leader 1"))
    };
    until("a leader", Duration::from_secs(20), || fleet.logs(), || (0..3).find(|at| metrics(*at)))
}

#[expect(clippy::print_stdout, reason = "a command line program")]
fn main() {
    let args = Args::parse();
    let net = Arc::new(Net::new(&["m1", "m2", "m3", CLIENT]));
    let options = FleetOptions {
        nodes: 0,
        policy: "lease = \"60s\"\ncontact_timeout = \"30s\"\naccept_timeout = \"30s\"\n".into(),
        net: Some(net),
        ..FleetOptions::default()
    };
    let mut fleet = Fleet::prepare(&options);
    (0..3).for_each(|at| fleet.start_member(at));
    let members: Vec<SocketAddr> = (0..3).map(|at| fleet.member_address(at)).collect();
    let place = fleet.place(CLIENT);
    let swarm = Swarm::start(place.clone(), members.clone(), "failover", 1);
    swarm.until_all(Duration::from_secs(30));
    activate(&place, &members, &fleet_of("failover", 0));
    let renew = grant(&fleet, &fleet_of("failover", 0));
    println!("time without a write, as clients of the members that stay see it, {} times each", args.times);
    for (name, signal) in [("SIGKILL", Signal::KILL), ("SIGSTOP", Signal::STOP), ("SIGTERM", Signal::TERM)] {
        let mut gaps = Vec::new();
        for _ in 0..args.times {
            let at = leader(&fleet);
            let stay = members.iter().enumerate().filter(|(other, _)| *other != at);
            let writers: Vec<Writer> =
                stay.map(|(_, member)| Writer::start(place.clone(), *member, renew.clone())).collect();
            std::thread::sleep(BEFORE);
            let daemon = fleet.members[at].as_ref().expect("the leader runs");
            daemon.signal(signal);
            std::thread::sleep(AFTER);
            gaps.extend(writers.into_iter().map(Writer::gap).max());
            if signal == Signal::STOP {
                daemon.signal(Signal::CONT);
            } else {
                fleet.members[at] = None;
                fleet.start_member(at);
            }
            std::thread::sleep(BEFORE * 3);
        }
        gaps.sort();
        let ms = |gap: Option<&Duration>| gap.map_or(0, |gap| gap.as_millis());
        println!("{name}: median {} ms, longest {} ms", ms(gaps.get(gaps.len() / 2)), ms(gaps.last()));
    }
}
