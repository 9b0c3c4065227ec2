//! The way to the coordinators: any of them will do.
//!
//! ```text
//!   call ──► the endpoint that answered last ──unavailable──► the next ── … ──► every endpoint with its error
//! ```
//!
//! Every request is made so that asking twice is asking once, therefore it may be sent again after an answer was lost. A
//! refusal is an answer and ends the search.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use soloist_proto::{
    errors::{DEADLINE, INTERNAL, Problem, UNREACHABLE},
    v1::{
        self, cluster_service_client::ClusterServiceClient, operator_service_client::OperatorServiceClient,
    },
};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};

use crate::error::{CtlError, Kind, Result};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long one endpoint may take to answer; a member itself gives up on its leader after 6 s.
const ATTEMPT: Duration = Duration::from_secs(8);
/// Between two attempts while nobody can decide.
const PAUSE: Duration = Duration::from_millis(500);
/// How often a silent connection is asked for a sign of life, and how long that may take.
const KEEP_ALIVE: Duration = Duration::from_secs(4);

/// A client of the coordinators. Clones share connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    members: Vec<Member>,
    good: AtomicUsize,
    timeout: Duration,
}

struct Member {
    address: String,
    channel: Channel,
}

/// A stub for one call about a fleet.
pub type Stub = OperatorServiceClient<Channel>;

/// A stub for one call about the coordinators' own cluster.
pub type ClusterStub = ClusterServiceClient<Channel>;

impl Client {
    /// A client for these addresses (`host:port`). Connects when it is used. Each request takes `timeout` at most.
    ///
    /// Must be called inside a Tokio runtime.
    pub fn new(addresses: &[String], timeout: Duration) -> Result<Client> {
        if addresses.is_empty() {
            return Err(CtlError::new(Kind::Usage, "no coordinator is named").hint(HOW));
        }
        let members = addresses.iter().map(|address| member(address)).collect::<Result<_>>()?;
        Ok(Client { shared: Arc::new(Shared { members, good: AtomicUsize::new(0), timeout }) })
    }

    /// Calls until an endpoint answers.
    pub async fn call<T, C, F>(&self, call: C) -> Result<T>
    where
        C: Fn(Stub) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_within(self.shared.timeout, call).await
    }

    /// The same with a time limit of its own.
    pub async fn call_within<T, C, F>(&self, limit: Duration, call: C) -> Result<T>
    where
        C: Fn(Stub) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_on(limit, |channel| call(Stub::new(channel))).await
    }

    /// The same for a call about the cluster.
    pub async fn call_cluster<T, C, F>(&self, call: C) -> Result<T>
    where
        C: Fn(ClusterStub) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_on(self.shared.timeout, |channel| call(ClusterStub::new(channel))).await
    }

    async fn call_on<T, C, F>(&self, limit: Duration, call: C) -> Result<T>
    where
        C: Fn(Channel) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + limit.min(self.shared.timeout);
        let mut failures = Vec::new();
        for member in self.in_order() {
            match self.attempt(member, deadline, &call).await {
                Ok(answer) => {
                    self.shared.good.store(member, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(problem) if goes_on(&problem) => failures.push((self.address(member), problem)),
                Err(problem) => return Err(problem.into()),
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(unavailable(&failures))
    }

    /// Calls until an endpoint gives an answer that is current; if none does, returns the most recent one.
    pub async fn call_fresh<T, C, F>(&self, call: C, freshness: impl Fn(&T) -> v1::Freshness) -> Result<T>
    where
        C: Fn(Stub) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.fresh_on(|channel| call(Stub::new(channel)), freshness).await
    }

    /// The same for a call about the cluster.
    pub async fn cluster_fresh<T, C, F>(&self, call: C, freshness: impl Fn(&T) -> v1::Freshness) -> Result<T>
    where
        C: Fn(ClusterStub) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.fresh_on(|channel| call(ClusterStub::new(channel)), freshness).await
    }

    async fn fresh_on<T, C, F>(&self, call: C, freshness: impl Fn(&T) -> v1::Freshness) -> Result<T>
    where
        C: Fn(Channel) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.shared.timeout;
        let mut failures = Vec::new();
        let mut best: Option<T> = None;
        for member in self.in_order() {
            match self.attempt(member, deadline, &call).await {
                Ok(answer) => {
                    let seen = freshness(&answer);
                    if !seen.stale {
                        self.shared.good.store(member, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    if best.as_ref().is_none_or(|best| freshness(best).applied < seen.applied) {
                        best = Some(answer);
                    }
                }
                Err(problem) if goes_on(&problem) => failures.push((self.address(member), problem)),
                Err(problem) => return Err(problem.into()),
            }
        }
        best.ok_or_else(|| unavailable(&failures))
    }

    /// How long one request may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.shared.timeout
    }

    /// Lets the next call begin with another endpoint than the one that answered last.
    pub fn move_on(&self) {
        let next = (self.shared.good.load(Ordering::Relaxed) + 1) % self.shared.members.len();
        self.shared.good.store(next, Ordering::Relaxed);
    }

    /// Makes an attempt again, at another endpoint, while nobody can decide, for so long: the coordinators may be choosing a leader.
    ///
    /// # Errors
    /// What the last attempt ended with.
    pub async fn insist<T, F>(&self, within: Duration, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let end = Instant::now() + within;
        loop {
            match attempt().await {
                Err(error) if error.kind == Kind::Unavailable && Instant::now() < end => {
                    self.move_on();
                    sleep(PAUSE).await;
                }
                result => return result,
            }
        }
    }

    fn in_order(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, count) = (self.shared.good.load(Ordering::Relaxed), self.shared.members.len());
        (0..count).map(move |step| (first + step) % count)
    }

    fn address(&self, member: usize) -> String {
        self.shared.members.get(member).map(|member| member.address.clone()).unwrap_or_default()
    }

    async fn attempt<T, C, F>(&self, member: usize, deadline: Instant, call: &C) -> Result<T, Problem>
    where
        C: Fn(Channel) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let Some(member) = self.shared.members.get(member) else {
            return Err(Problem::new(Code::Unavailable, UNREACHABLE, "no such endpoint", ""));
        };
        let deadline = deadline.min(Instant::now() + ATTEMPT);
        match timeout_at(deadline, call(member.channel.clone())).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Problem::from(&status)),
            Err(_) => Err(Problem::new(Code::DeadlineExceeded, DEADLINE, "did not answer in time", "")),
        }
    }
}

const HOW: &str = "name the coordinators with --endpoints host:port,... or SOLOIST_ENDPOINTS";

fn member(address: &str) -> Result<Member> {
    let bare = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    let wrong =
        |why: &str| CtlError::new(Kind::Usage, format!("\"{address}\" is not host:port{why}")).hint(HOW);
    if !bare.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        return Err(wrong(""));
    }
    let endpoint =
        Endpoint::from_shared(format!("http://{bare}")).map_err(|error| wrong(&format!(": {error}")))?;
    let channel = endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .connect_lazy();
    Ok(Member { address: bare.to_owned(), channel })
}

/// Whether another endpoint may answer better: this one is away, cannot decide, or is not a coordinator.
pub(crate) fn goes_on(problem: &Problem) -> bool {
    problem.is_transient()
        || problem.code == Code::Cancelled
        || problem.code == Code::Unimplemented
        || (problem.reason == INTERNAL && problem.hint.is_empty())
}

fn unavailable(failures: &[(String, Problem)]) -> CtlError {
    let silent = |problem: &Problem| {
        [UNREACHABLE, DEADLINE, INTERNAL, "unimplemented"].contains(&problem.reason.as_str())
    };
    let list: String =
        failures.iter().map(|(address, problem)| format!("\n  {address}: {}", cause(problem))).collect();
    match failures.iter().find(|(_, problem)| !silent(problem)) {
        Some((address, problem)) => {
            let mut error = CtlError::from(problem.clone());
            error.kind = Kind::Unavailable;
            error.message = format!("{} (asked: {address})", error.message);
            error
        }
        None => CtlError::new(Kind::Unavailable, format!("no coordinator answers{list}")).hint(HOW),
    }
}

/// The last cause is what people need: `Connection refused` rather than `transport error: …`.
fn cause(problem: &Problem) -> String {
    let last = problem.message.rsplit(": ").next().unwrap_or(&problem.message);
    if problem.reason == UNREACHABLE { last.to_owned() } else { problem.message.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_checked() {
        for wrong in ["", "localhost", ":7401", "host:99999", "http://host"] {
            let error = Client::new(&[wrong.to_owned()], CONNECT).err().unwrap();
            assert_eq!(error.kind, Kind::Usage, "{wrong}");
        }
        assert!(Client::new(&["http://[::1]:7401/".to_owned(), "a.b:1".to_owned()], CONNECT).is_ok());
        assert_eq!(Client::new(&[], CONNECT).err().unwrap().kind, Kind::Usage);
    }

    #[test]
    fn a_member_that_cannot_decide_explains_more_than_one_that_is_away() {
        let away =
            Problem::new(Code::Unavailable, UNREACHABLE, "transport error: tcp: Connection refused", "");
        let idle = Problem::new(Code::Unavailable, "no_leader", "nothing can be decided", "start member 2");
        let error = unavailable(&[("a:1".into(), away.clone()), ("b:2".into(), idle)]);
        assert_eq!(error.message, "nothing can be decided (asked: b:2)");
        assert_eq!(error.hints, ["start member 2"]);
        let error = unavailable(&[("a:1".into(), away)]);
        assert_eq!(error.message, "no coordinator answers\n  a:1: Connection refused");
        assert_eq!(error.kind.code(), 69);
    }
}
