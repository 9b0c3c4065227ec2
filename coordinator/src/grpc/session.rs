//! One agent's session.
//!
//! ```text
//!   agent                        member                         log
//!     │ Hello ───────────────────► │ Register ─────────────────► │
//!     │                            │ ◄──── applied here too ──── │
//!     │ ◄─ Registered, Assignment  │                             │
//!     │ Report #n ───────────────► │ Report #n ────────────────► │
//!     │ ◄──────────────── Ack #n   │ ◄─────────── applied ────── │
//!     │ Beat ────────────────────► │ (contact, beside the log)   │
//!     │ Evidence ────────────────► │ (archive, beside the log; and the other members')
//!     │ ◄──────────── EvidenceAck  │
//!     │ ◄── Assignment, whenever it changes and until acknowledged; Contact every second, and when users begin or cease to
//!         be kept away
//! ```
//!
//! Assignments are sent from the local state, and only once it includes this session's registration. A stale one is
//! harmless: agents refuse a lower generation.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use soloist_core::{
    Command, Rejection, Reply,
    assignment::{Assignment, Observed},
    evidence::witnessed,
    ids::{FleetId, Incarnation, NodeId},
    restore::is_served,
};
use soloist_proto::{
    convert::{FieldError, Greeting, nested},
    errors::{Problem, STOPPING},
    v1::{
        AgentMessage, Clock, Contact, CoordinatorMessage, Refused, Registered, Report, ReportAck, Witness,
        agent_message::Message as FromAgent, coordinator_message::Message as ToAgent,
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tonic::{Code, Status, Streaming};

use crate::{
    contact::{Hearing, Place, SESSIONS_MAX},
    evidence,
    proposer::{TOO_LARGE, unexpected},
    raft::Applied,
    shared::Shared,
    watch::{offer, stopping},
};

/// How long an agent may take to say who it is.
const HELLO: Duration = Duration::from_secs(5);
/// How long the local state may take to include the registration.
const FOLLOW: Duration = Duration::from_secs(5);
/// Between two contact messages.
const CONTACT: Duration = Duration::from_secs(1);
/// An assignment that is not acknowledged is sent again this often.
const RESEND: Duration = Duration::from_secs(2);
/// An agent that is silent for so long has gone; it beats every second.
const SILENCE: Duration = Duration::from_secs(15);

type Sender = mpsc::Sender<Result<CoordinatorMessage, Status>>;

/// Runs a session to its end. An error is what the agent is told as the last thing.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    mut incoming: Streaming<AgentMessage>,
    to: &Sender,
) -> Result<(), Status> {
    let greeting = greeting(&mut incoming).await?;
    let Greeting { fleet, node, registration, version, cluster } = greeting;
    if !cluster.is_empty() && cluster != shared.cluster {
        let text = format!(
            "this is a coordinator of cluster {:?}, and the agent looks for one of {cluster:?}",
            shared.cluster
        );
        let hint = "an address has changed hands; the agent goes on to the next one that it knows";
        return Err(Problem::new(Code::FailedPrecondition, "wrong_cluster", text, hint).into());
    }
    let incarnation = registration.incarnation;
    let command = Command::Register {
        fleet: fleet.clone(),
        node: node.clone(),
        registration,
        policy: shared.fleet_defaults.clone(),
        rival: false,
    };
    // Cancel-safe: both only wait. An agent that has given up meanwhile is not registered, so that thousands that come back at
    // once do not keep the log busy with sessions which nobody waits for any more.
    let place = tokio::select! {
        place = shared.registering.acquire() => place.expect("the places are never closed"),
        () = to.closed() => return Ok(()),
    };
    let applied = shared.propose(command).await?;
    drop(place);
    let floor = match applied.reply {
        Ok(Reply::Registered { floor }) => floor.0,
        Ok(reply) => return Err(unexpected(&reply)),
        Err(rejection) => {
            tracing::warn!(%fleet, %node, %rejection, "an agent was refused");
            refuse(to, &rejection).await;
            return Ok(());
        }
    };
    // Assignments from before the registration would be void.
    if !shared.raft.storage().wait_applied(applied.index.max(floor), FOLLOW).await {
        let text = "this member's state does not include the registration yet";
        return Err(Problem::new(Code::Unavailable, "behind", text, "go to another member").into());
    }
    let Some(place) = Hearing::open(shared, &fleet, &node, incarnation) else {
        let text = format!("this member serves {SESSIONS_MAX} agents already");
        return Err(Problem::new(Code::ResourceExhausted, "full", text, "go to another member").into());
    };
    tracing::info!(%fleet, %node, %incarnation, floor, version, "session");
    let evidence = evidence::last(shared, &fleet, &node).await;
    let cluster = shared.cluster.clone();
    send(to, ToAgent::Registered(Registered { floor, member: shared.raft.id(), cluster, evidence })).await?;
    let session = Session {
        shared,
        to,
        fleet,
        node,
        incarnation,
        place,
        sent: None,
        told: Vec::new(),
        closed: false,
        witness: None,
        too_large: false,
    };
    session.run(incoming).await
}

async fn greeting(incoming: &mut Streaming<AgentMessage>) -> Result<Greeting, Status> {
    let first = timeout(HELLO, incoming.message()).await;
    let silent = |_| Problem::new(Code::DeadlineExceeded, "malformed", "no Hello came in time", "");
    match first.map_err(silent)??.and_then(|first| first.message) {
        Some(FromAgent::Hello(hello)) => Ok(hello.try_into()?),
        _ => Err(FieldError::new("message", "the first one must be a Hello").into()),
    }
}

struct Session<'a> {
    shared: &'a Arc<Shared>,
    to: &'a Sender,
    fleet: FleetId,
    node: NodeId,
    incarnation: Incarnation,
    place: Place,
    sent: Option<(Assignment, Instant)>,
    /// The addresses of the members that the agent was told.
    told: Vec<String>,
    /// Whether the agent was told that users are kept away.
    closed: bool,
    /// What it was told to witness.
    witness: Option<Witness>,
    /// Whether its report was found to be too large, which is told once.
    too_large: bool,
}

/// What the state has for the agent.
enum Next {
    Nothing,
    Assignment(Box<Assignment>),
    Superseded,
}

/// A report on its way through the log, and the one to follow: of several that wait, only the newest counts.
#[derive(Default)]
struct Reports {
    under_way: Option<BoxFuture<'static, (u64, Result<Applied, Problem>)>>,
    next: Option<(u64, Observed)>,
}

impl Session<'_> {
    async fn run(mut self, mut incoming: Streaming<AgentMessage>) -> Result<(), Status> {
        let mut changes = self.shared.raft.storage().changes(&self.fleet);
        let mut ticks = interval(CONTACT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reports = Reports::default();
        let mut heard = Instant::now();
        loop {
            changes.mark_unchanged();
            if !self.assign().await? {
                return Ok(());
            }
            if self.is_closed() != self.closed || self.witness() != self.witness {
                self.contact().await?;
            }
            self.begin(&mut reports);
            // Cancel-safe: reading a message and waiting for a change lose nothing; the report is kept in `reports`.
            tokio::select! {
                () = self.shared.stop.cancelled() => return Err(stopping()),
                () = self.to.closed() => return Ok(()),
                message = incoming.message() => {
                    let Some(message) = message? else { return Ok(()) };
                    heard = Instant::now();
                    self.take(message, &mut reports).await?;
                }
                (sequence, result) = under_way(&mut reports) => {
                    if !self.reported(sequence, result).await? {
                        return Ok(());
                    }
                }
                changed = changes.changed() => {
                    if changed.is_err() {
                        return Err(stopping());
                    }
                }
                _ = ticks.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err(Problem::new(Code::Aborted, "silent", "the agent has gone silent", "").into());
                    }
                    self.contact().await?;
                }
            }
        }
    }

    /// Sends the assignment if it is new, or not acknowledged for a while. `false` if the session is over.
    async fn assign(&mut self) -> Result<bool, Status> {
        let next = self.shared.raft.storage().read(|state, _| {
            let Some(fleet) = state.fleets.get(&self.fleet) else { return Next::Nothing };
            let Some(node) = fleet.agent(&self.node) else { return Next::Nothing };
            match &self.sent {
                _ if node.incarnation != self.incarnation => Next::Superseded,
                _ if !is_served(fleet) => Next::Nothing,
                Some((sent, at))
                    if *sent == node.assignment && (node.acknowledged() || at.elapsed() < RESEND) =>
                {
                    Next::Nothing
                }
                _ => Next::Assignment(Box::new(node.assignment.clone())),
            }
        });
        match next {
            Next::Nothing => Ok(true),
            Next::Assignment(assignment) => {
                self.sent = Some((Assignment::clone(&assignment), Instant::now()));
                send(self.to, *assignment).await?;
                Ok(true)
            }
            Next::Superseded => {
                let (fleet, node) = (self.fleet.clone(), self.node.clone());
                refuse(self.to, &Rejection::Superseded { fleet, node }).await;
                Ok(false)
            }
        }
    }

    async fn take(&self, message: AgentMessage, reports: &mut Reports) -> Result<(), Status> {
        match message.message {
            Some(FromAgent::Beat(beat)) => {
                let clock = beat.ping_ms.and_then(|ping_ms| {
                    let (lo_wall_ms, hi_wall_ms) = self.shared.leader_wall_ms()?;
                    Some(Clock { ping_ms, lo_wall_ms, hi_wall_ms })
                });
                self.place.beat(beat);
                if let Some(clock) = clock {
                    send(self.to, ToAgent::Clock(clock)).await?;
                }
            }
            Some(FromAgent::Evidence(evidence)) => {
                self.place.heard();
                let records = evidence.records;
                if let Some(ack) = evidence::keep(self.shared, &self.fleet, &self.node, records).await {
                    send(self.to, ToAgent::EvidenceAck(ack)).await?;
                }
            }
            Some(FromAgent::Report(Report { sequence, observed })) => {
                self.place.heard();
                let observed = nested("observed", observed)?;
                if reports.next.as_ref().is_none_or(|(next, _)| *next <= sequence) {
                    reports.next = Some((sequence, observed));
                }
            }
            Some(FromAgent::Hello(_)) => {
                return Err(FieldError::new("message", "a Hello may only come first").into());
            }
            // From a newer agent; what it cannot know to be understood, it must not rely on.
            None => self.place.heard(),
        }
        Ok(())
    }

    fn begin(&self, reports: &mut Reports) {
        if reports.under_way.is_some() {
            return;
        }
        let Some((sequence, observed)) = reports.next.take() else { return };
        let command = Command::Report {
            fleet: self.fleet.clone(),
            node: self.node.clone(),
            incarnation: self.incarnation,
            sequence,
            observed: Box::new(observed),
        };
        let shared = self.shared.clone();
        reports.under_way = Some(async move { (sequence, shared.propose(command).await) }.boxed());
    }

    /// Acknowledges a report that was applied. One that was not is sent again by the agent. `false` if the session is over.
    async fn reported(&mut self, sequence: u64, result: Result<Applied, Problem>) -> Result<bool, Status> {
        match result {
            Ok(Applied { reply: Ok(_), .. }) => {
                send(self.to, ToAgent::ReportAck(ReportAck { sequence })).await?
            }
            Ok(Applied { reply: Err(rejection), .. }) => {
                tracing::info!(fleet = %self.fleet, node = %self.node, %rejection, "a report was refused");
                refuse(self.to, &rejection).await;
                return Ok(false);
            }
            Err(problem) if problem.reason == STOPPING => return Err(problem.into()),
            Err(problem) if problem.reason == TOO_LARGE && !self.too_large => {
                self.too_large = true;
                tracing::warn!(fleet = %self.fleet, node = %self.node, %problem, "a report is not taken");
            }
            Err(problem) => {
                tracing::debug!(fleet = %self.fleet, node = %self.node, %problem, "a report waits");
            }
        }
        Ok(true)
    }

    fn is_closed(&self) -> bool {
        self.shared
            .raft
            .storage()
            .read(|state, _| state.fleets.get(&self.fleet).is_some_and(soloist_core::is_closed))
    }

    /// What the agent is to witness.
    fn witness(&self) -> Option<Witness> {
        self.shared.raft.storage().read(|state, _| {
            let (operation, grant) = witnessed(state.fleets.get(&self.fleet)?)?;
            let token = operation.token?.0;
            Some(Witness { operation: operation.id.to_string(), token, grant: grant.granted.index })
        })
    }

    async fn contact(&mut self) -> Result<(), Status> {
        let leader = self.shared.raft.leader();
        let has_leader = self.shared.has_leader();
        let notice = self.shared.raft.storage().read(|state, _| {
            state.fleets.get(&self.fleet).and_then(|fleet| soloist_core::notice(state, fleet))
        });
        self.closed = notice.is_some();
        // A member that hears no leader may not know who belongs to the cluster.
        let members: Vec<String> =
            if has_leader { self.shared.status().addresses().into_values().collect() } else { Vec::new() };
        let news = !members.is_empty() && members != self.told;
        if news {
            self.told.clone_from(&members);
        }
        self.witness = self.witness();
        let contact = Contact {
            member: self.shared.raft.id(),
            has_leader,
            leader_generation: if has_leader { self.place.generation() } else { None },
            leader_address: leader.map(|leader| leader.address).filter(|address| !address.is_empty()),
            facts_wanted: self.place.facts_wanted(),
            notice: notice.map(Into::into),
            coordinators: if news { members } else { Vec::new() },
            witness: self.witness.clone(),
        };
        send(self.to, ToAgent::Contact(contact)).await
    }
}

/// The end of the report that is under way; never, if none is.
async fn under_way(reports: &mut Reports) -> (u64, Result<Applied, Problem>) {
    match &mut reports.under_way {
        None => std::future::pending().await,
        Some(report) => {
            let ended = report.await;
            reports.under_way = None;
            ended
        }
    }
}

async fn send(to: &Sender, message: impl Into<CoordinatorMessage>) -> Result<(), Status> {
    if offer(to, Ok(message.into())).await {
        return Ok(());
    }
    Err(Problem::new(Code::Aborted, "slow", "the agent does not take its messages", "").into())
}

async fn refuse(to: &Sender, rejection: &Rejection) {
    // An agent that has gone already is not told.
    let _ = offer(to, Ok(ToAgent::Refused(Refused::from(rejection)).into())).await;
}
