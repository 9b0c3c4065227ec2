//! Clients that take a lock and give it back, over gRPC, with the history of what they were told.
//!
//! The lock is that of a fleet of one simulated node that is stopped anyway, so that taking it costs a few entries of the log. A
//! client has the lock from the moment when its grant is accepted (the first `Renew`) until it releases, or until a person takes it
//! away after its lease was lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use soloist_core::operation::{HoldMode, Request};
use soloist_proto::errors::Problem;
use soloist_proto::v1;
use soloist_proto::v1::operator_service_client::OperatorServiceClient;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use super::linear::{Ask, Call, End};
use super::scene::Book;
use super::swarm::{Swarm, fleet_of};
use crate::harness::Place;

/// How long a member may take to answer.
const ATTEMPT: Duration = Duration::from_secs(3);
/// How long the same is asked for again while its outcome is unknown.
const INSIST: Duration = Duration::from_secs(20);
/// How long the enrolment of the node may take.
const ENROL_MAX: Duration = Duration::from_secs(30);
/// How long a grant is waited for.
const GRANT_MAX: Duration = Duration::from_secs(30);
/// Between two looks at an operation.
const LOOK: Duration = Duration::from_millis(40);
/// So many calls are written down for one fleet at most.
const CALLS_MAX: usize = 20_000;

type Stub = OperatorServiceClient<Channel>;

/// What came of asking until there was an answer.
enum Answer<T> {
    /// It was done. `doubt` says that an earlier attempt may have done it.
    Done(T),
    Refused {
        reason: String,
        doubt: bool,
    },
    Nobody,
}

/// All clients of one lock. They end when it is dropped.
#[derive(Debug)]
pub struct Lockers {
    _node: Swarm,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Lockers {
    /// Enrols the node, and begins.
    ///
    /// # Panics
    /// When the node is not enrolled in time.
    #[must_use]
    pub fn start(place: Place, members: &[SocketAddr], count: usize, seed: u64, book: Book) -> Self {
        let node = Swarm::start(place.clone(), members.to_vec(), "locks", 1);
        node.until_all(ENROL_MAX);
        let (stop, members, fleet) =
            (Arc::new(AtomicBool::new(false)), members.to_vec(), fleet_of("locks", 0));
        activate(&place, &members, &fleet);
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            place.enter();
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let epoch = Instant::now();
            // Channels are made inside a runtime.
            let _inside = runtime.enter();
            let clients = (0..count).map(|number| Locker {
                name: format!("{fleet}-{number}"),
                fleet: fleet.clone(),
                stubs: members.iter().map(stub).collect(),
                good: AtomicUsize::new(number),
                rng: SmallRng::seed_from_u64(seed.wrapping_add(number as u64)),
                book: book.clone(),
                epoch,
                stop: Arc::clone(&stopped),
            });
            runtime.block_on(futures::future::join_all(clients.map(Locker::live)));
        });
        Self { _node: node, stop, thread: Some(thread) }
    }
}

impl Drop for Lockers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts a fleet of agents without hosts and stops it again, so that its lock can be had without anything being stopped for it.
///
/// # Panics
/// When the members do not answer in time.
pub fn activate(place: &Place, members: &[SocketAddr], fleet: &str) {
    let requests = [("start", Request::Start { install: false, nodes: None }), ("stop", Request::Stop)];
    let work = async |operation: &str, request: Request| {
        let submit = v1::SubmitRequest {
            fleet: fleet.to_owned(),
            operation: operation.to_owned(),
            request: Some(request.into()),
            submission: Some(v1::Submission { by: "suite".into(), ..v1::Submission::default() }),
            skip_preflight: true,
        };
        let (mut turn, began) = (0, Instant::now());
        loop {
            let mut stub = stub(&members[turn % members.len()]);
            turn += 1;
            let ask = v1::GetOperationRequest { fleet: fleet.to_owned(), operation: operation.to_owned() };
            // Asking twice is asking once.
            let submitted = timeout(ATTEMPT, stub.submit(submit.clone())).await;
            let found = timeout(ATTEMPT, stub.get_operation(ask)).await;
            let shown = format!("submitted: {submitted:?}\nfound: {found:?}");
            let view = found.ok().and_then(Result::ok).and_then(|found| found.into_inner().operation);
            if view.is_some_and(|view| view.ended) {
                return;
            }
            assert!(began.elapsed() < ENROL_MAX, "{operation} of {fleet} does not end\n{shown}");
            sleep(LOOK).await;
        }
    };
    place.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            for (operation, request) in requests {
                work(operation, request).await;
            }
        });
    });
}

fn stub(member: &SocketAddr) -> Stub {
    let endpoint = Endpoint::from_shared(format!("http://{member}")).expect("an address");
    OperatorServiceClient::new(endpoint.connect_timeout(ATTEMPT).connect_lazy())
}

struct Locker {
    name: String,
    fleet: String,
    stubs: Vec<Stub>,
    good: AtomicUsize,
    rng: SmallRng,
    book: Book,
    epoch: Instant,
    stop: Arc<AtomicBool>,
}

impl Locker {
    async fn live(mut self) {
        let mut round = 0_u64;
        while !self.stop.load(Ordering::Relaxed) {
            round += 1;
            let operation = format!("{}-{round}", self.name);
            if self.turn(&operation).await.is_none() {
                self.abort(&operation).await;
            }
            sleep(Duration::from_millis(self.rng.random_range(50..400))).await;
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn note(&self, ask: Ask, token: u64, from_us: u64, end: End) {
        let call = Call { client: self.name.clone(), ask, token, from_us, to_us: self.now(), end };
        let mut record = self.book.open();
        let calls = record.calls.entry(self.fleet.clone()).or_default();
        if calls.len() < CALLS_MAX {
            calls.push(call);
        }
    }

    /// Takes the lock and gives it back, or not. `None` if it was not granted, or nobody knows.
    async fn turn(&mut self, operation: &str) -> Option<()> {
        let from = self.now();
        let request = Request::Hold { mode: HoldMode::AllStopped, on: None };
        let submit = v1::SubmitRequest {
            fleet: self.fleet.clone(),
            operation: operation.to_owned(),
            request: Some(request.into()),
            submission: Some(v1::Submission { by: self.name.clone(), ..v1::Submission::default() }),
            skip_preflight: true,
        };
        let Answer::Done(_) = self
            .insist(|mut stub| {
                let submit = submit.clone();
                async move { stub.submit(submit).await }
            })
            .await
        else {
            return None;
        };
        let token = self.granted(operation).await?;
        if !self.hold(Ask::Take, operation, token, from).await {
            return None;
        }
        for _ in 0..self.rng.random_range(0..3) {
            sleep(Duration::from_millis(self.rng.random_range(1..60))).await;
            let from = self.now();
            self.hold(Ask::Use, operation, token, from).await;
        }
        if self.rng.random_range(0..100) < 6 {
            return self.taken_away(operation, token).await;
        }
        let from = self.now();
        let release = v1::ReleaseRequest {
            fleet: self.fleet.clone(),
            operation: operation.to_owned(),
            token,
            outcome: "done".into(),
        };
        let answer = self
            .insist(|mut stub| {
                let release = release.clone();
                async move { stub.release(release).await }
            })
            .await;
        self.note(Ask::GiveBack, token, from, end(&answer));
        Some(())
    }

    /// Accepts a grant, or uses the right that it gave; whether it was allowed.
    async fn hold(&self, ask: Ask, operation: &str, token: u64, from: u64) -> bool {
        let renew = v1::RenewRequest { fleet: self.fleet.clone(), operation: operation.to_owned(), token };
        let answer = self
            .insist(|mut stub| {
                let renew = renew.clone();
                async move { stub.renew(renew).await }
            })
            .await;
        match &answer {
            // A lost lease says nothing about the lock, which stays with its holder until a person decides.
            Answer::Refused { reason, .. } if reason != "not_holder" => {}
            // It changes nothing, so what an earlier attempt did is of no interest.
            Answer::Refused { .. } if ask == Ask::Use => self.note(ask, token, from, End::Refused),
            _ => self.note(ask, token, from, end(&answer)),
        }
        matches!(answer, Answer::Done(_))
    }

    /// Waits for the grant, and says that it is still wanted when asked. Gives the token.
    async fn granted(&self, operation: &str) -> Option<u64> {
        let began = Instant::now();
        while began.elapsed() < GRANT_MAX {
            if let Some(view) = self.look(operation).await {
                if view.ended {
                    return None;
                }
                if view.status == "confirming" {
                    let confirm =
                        v1::ConfirmRequest { fleet: self.fleet.clone(), operation: operation.to_owned() };
                    let _ = self
                        .once(|mut stub| {
                            let confirm = confirm.clone();
                            async move { stub.confirm(confirm).await }
                        })
                        .await;
                }
                if view.granted {
                    return view.token;
                }
            }
            sleep(LOOK).await;
        }
        None
    }

    /// Waits until its own lease is lost, has the lock taken away, and tries the old token once more.
    async fn taken_away(&self, operation: &str, token: u64) -> Option<()> {
        let began = Instant::now();
        while !self.look(operation).await.is_some_and(|view| view.holder_lost) {
            if began.elapsed() > GRANT_MAX {
                return None;
            }
            sleep(LOOK * 5).await;
        }
        let from = self.now();
        let force = v1::ForceReleaseRequest {
            fleet: self.fleet.clone(),
            token,
            by: self.name.clone(),
            reason: "its holder is gone".into(),
        };
        let answer = self
            .insist(|mut stub| {
                let force = force.clone();
                async move { stub.force_release(force).await }
            })
            .await;
        self.note(Ask::TakeAway, token, from, end(&answer));
        let from = self.now();
        self.hold(Ask::Use, operation, token, from).await;
        Some(())
    }

    async fn abort(&self, operation: &str) {
        let abort = v1::AbortRequest {
            fleet: self.fleet.clone(),
            operation: operation.to_owned(),
            by: self.name.clone(),
            reason: "not granted".into(),
        };
        let _ = self
            .insist(|mut stub| {
                let abort = abort.clone();
                async move { stub.abort(abort).await }
            })
            .await;
        // Whoever may have been granted it is not heard of again: a person takes it away.
        if let Some(view) = self.look(operation).await.filter(|view| view.granted && !view.ended)
            && let Some(token) = view.token
        {
            self.taken_away(operation, token).await;
        }
    }

    async fn look(&self, operation: &str) -> Option<v1::OperationView> {
        let ask = v1::GetOperationRequest { fleet: self.fleet.clone(), operation: operation.to_owned() };
        let found = self
            .once(|mut stub| {
                let ask = ask.clone();
                async move { stub.get_operation(ask).await }
            })
            .await;
        found.ok()?.operation
    }

    /// Asks one member; the next call asks another if that one does not answer.
    async fn once<T, F>(&self, call: impl Fn(Stub) -> F) -> Result<T, Problem>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let at = self.good.load(Ordering::Relaxed);
        let stub = self.stubs[at % self.stubs.len()].clone();
        let answer = match timeout(ATTEMPT, call(stub)).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => Problem::from(&status),
            Err(_) => Problem::new(tonic::Code::DeadlineExceeded, "deadline", "no answer in time", ""),
        };
        if unknown(&answer) {
            self.good.store(at + 1, Ordering::Relaxed);
        }
        Err(answer)
    }

    /// Asks until there is an answer. Asking twice is asking once.
    async fn insist<T, F>(&self, call: impl Fn(Stub) -> F) -> Answer<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let (began, mut doubt) = (Instant::now(), false);
        while began.elapsed() < INSIST {
            match self.once(&call).await {
                Ok(answer) => return Answer::Done(answer),
                Err(problem) if unknown(&problem) => doubt = true,
                Err(problem) => return Answer::Refused { reason: problem.reason, doubt },
            }
            sleep(LOOK).await;
        }
        Answer::Nobody
    }
}

/// Whether a problem leaves open what was done: whatever is no refusal.
fn unknown(problem: &Problem) -> bool {
    problem.is_transient()
        || matches!(problem.code, tonic::Code::Unknown | tonic::Code::Cancelled | tonic::Code::Internal)
}

fn end<T>(answer: &Answer<T>) -> End {
    match answer {
        Answer::Done(_) => End::Ok,
        Answer::Refused { doubt: false, .. } => End::Refused,
        Answer::Refused { doubt: true, .. } | Answer::Nobody => End::Unknown,
    }
}
