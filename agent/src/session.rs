//! The session with the coordinators: one stream to one member at a time.
//!
//! ```text
//!   connect ─► Hello ─► Registered ─► assignments ◄─┐
//!      ▲                    │         reports, beats ┘
//!      └── next member ◄── silence, no leader, or an assignment that does not come
//! ```

use std::time::{Duration, SystemTime};

use soloist_core::assignment::{Assignment, Observed};
use soloist_core::command::Registration;
use soloist_core::evidence::Reading;
use soloist_core::ids::{FleetId, Generation, NodeId, OperationId, Token};
use soloist_proto::convert::Greeting;
use soloist_proto::v1;
use soloist_proto::v1::agent_service_client::AgentServiceClient;
use soloist_proto::v1::coordinator_message::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use crate::agent::Alone;
use crate::coordinators::{Candidate, Coordinators};
use crate::evidence::{Recorder, Upload, boot_ms};
use crate::page::Told;

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// A member that says nothing for so long is left: it sends a contact message every second.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// A member may be without a leader, or behind, for so long before the agent looks elsewhere.
const STALE_MAX: Duration = Duration::from_secs(3);
/// A report is sent again after this long without an acknowledgement.
const RESEND_AFTER: Duration = Duration::from_secs(2);
/// How often a beat is sent.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Messages that may wait to be sent; a slow member is left before they matter.
const OUTBOX: usize = 16;

/// What the session tells the agent.
#[derive(Debug)]
pub enum News {
    /// This run is registered; assignments below the floor are void.
    Registered {
        /// Log index of the registration.
        floor: Generation,
        /// The member.
        member: u64,
    },
    /// An assignment came.
    Assigned(Box<Assignment>),
    /// The report with this number arrived.
    Acked(u64),
    /// Facts that answer a lower number are to be gathered anew.
    FactsWanted(u64),
    /// The operation that is alone now, if any.
    Alone(Option<Alone>),
    /// How far the leader's clock is from the time since boot.
    Clock(Reading),
    /// The coordinators refuse this run.
    Refused {
        /// One word.
        reason: String,
        /// For people: what is wrong and what to do.
        text: String,
    },
    /// There is no session, for people: why.
    Lost(String),
}

/// What the agent tells the coordinators: always the newest.
#[derive(Debug, Clone, Default)]
pub struct Outgoing {
    /// Number of the newest report; 0 before the first.
    pub sequence: u64,
    /// The newest report.
    pub observed: Observed,
    /// Generation of the accepted assignment.
    pub accepted: Generation,
    /// The app's own progress.
    pub progress: String,
    /// The app's plugins.
    pub inventory: Option<v1::Inventory>,
    /// What the node says about itself.
    pub facts: Option<Gathered>,
}

/// Facts for preflight, and when they were gathered.
#[derive(Debug, Clone)]
pub struct Gathered {
    /// The facts.
    pub facts: v1::NodeFacts,
    /// The number that they answer.
    pub answers: u64,
    /// When they were complete.
    pub at: Instant,
}

impl Gathered {
    /// As they are sent now.
    fn news(&self) -> v1::FactsNews {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let ms = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        v1::FactsNews {
            facts: Some(self.facts.clone()),
            answers: self.answers,
            age_ms: ms(self.at.elapsed()),
            wall_ms: ms(wall),
        }
    }
}

/// Who the agent is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The fleet.
    pub fleet: FleetId,
    /// The node.
    pub node: NodeId,
}

/// Keeps a session up until told to stop: with the member that works, else the next one.
pub async fn keep(
    identity: Identity,
    mut coordinators: Coordinators,
    registration: watch::Receiver<Registration>,
    (outgoing, recorder): (watch::Receiver<Outgoing>, Option<Recorder>),
    news: mpsc::Sender<News>,
    told: watch::Sender<Told>,
    stop: CancellationToken,
) {
    let mut at = usize::from(rand::random::<u8>()) % coordinators.candidates().len().max(1);
    let mut failures: u32 = 0;
    while !stop.is_cancelled() {
        let mut candidates = coordinators.candidates();
        if candidates.is_empty() {
            return;
        }
        let Candidate { address, cluster } = candidates.swap_remove(at % candidates.len());
        let greeting = Greeting {
            fleet: identity.fleet.clone(),
            node: identity.node.clone(),
            registration: registration.borrow().clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster,
        };
        let began = Instant::now();
        let session =
            run(&address, greeting, &mut coordinators, outgoing.clone(), &news, &told, recorder.as_ref());
        let why = tokio::select! {
            why = session => why,
            () = stop.cancelled() => return,
        };
        failures = if began.elapsed() > Duration::from_secs(10) { 0 } else { failures.saturating_add(1) };
        tracing::debug!(%address, %why, "session ended");
        if news.send(News::Lost(format!("{address}: {why}"))).await.is_err() {
            return;
        }
        at += 1;
        let base = 50_u64 << failures.min(5);
        let pause = Duration::from_millis(base + rand::random::<u64>() % base);
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One session; returns why it ended.
async fn run(
    address: &str,
    greeting: Greeting,
    coordinators: &mut Coordinators,
    mut outgoing: watch::Receiver<Outgoing>,
    news: &mpsc::Sender<News>,
    told_users: &watch::Sender<Told>,
    recorder: Option<&Recorder>,
) -> String {
    let endpoint = match Endpoint::from_shared(format!("http://{address}")) {
        Ok(endpoint) => endpoint
            .connect_timeout(CONNECT_MAX)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(SILENCE_MAX)
            .keep_alive_timeout(SILENCE_MAX),
        Err(error) => return format!("not an address: {error}"),
    };
    let channel = match endpoint.connect().await {
        Ok(channel) => channel,
        Err(error) => return chain(&error),
    };
    let (outbox, messages) = mpsc::channel(OUTBOX);
    if outbox.send(v1::AgentMessage::from(greeting)).await.is_err() {
        return "the stream closed at once".to_owned();
    }
    let opened =
        timeout(SILENCE_MAX, AgentServiceClient::new(channel).session(ReceiverStream::new(messages))).await;
    let mut incoming = match opened {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return status.message().to_owned(),
        Err(_) => return "no answer".to_owned(),
    };
    let mut beat = interval(BEAT_EVERY);
    let mut heard = Instant::now();
    let mut stale_since: Option<Instant> = None;
    let mut registered = false;
    let mut acked = 0;
    let mut sent: Option<(u64, Instant)> = None;
    let mut listed: Option<v1::Inventory> = None;
    let mut told: Option<Instant> = None;
    let mut wanted = 0;
    let mut cluster = String::new();
    // What an earlier session said may be over: the first word of this one counts, whatever it is.
    let mut alone: Option<Option<Alone>> = None;
    let mut upload = Upload::new(recorder);
    loop {
        // Cancel-safe: a watch, a stream and an interval lose nothing when another arm wins.
        tokio::select! {
            message = incoming.message() => {
                let message = match message {
                    Ok(Some(message)) => message.message,
                    Ok(None) => return "the member ended the session".to_owned(),
                    Err(status) => return status.message().to_owned(),
                };
                heard = Instant::now();
                let item = match message {
                    Some(Message::Registered(message)) => {
                        registered = true;
                        cluster = message.cluster;
                        upload.begin(message.evidence);
                        outgoing.mark_changed();
                        News::Registered { floor: Generation(message.floor), member: message.member }
                    }
                    Some(Message::Assignment(message)) => match Assignment::try_from(message) {
                        Ok(assignment) => News::Assigned(Box::new(assignment)),
                        Err(error) => return format!("an assignment that this agent does not understand: {error}"),
                    },
                    Some(Message::ReportAck(message)) => {
                        acked = acked.max(message.sequence);
                        News::Acked(message.sequence)
                    }
                    Some(Message::Contact(contact)) => {
                        coordinators.learn(&cluster, contact.coordinators);
                        if contact.facts_wanted > wanted {
                            wanted = contact.facts_wanted;
                            if news.send(News::FactsWanted(wanted)).await.is_err() {
                                return "the agent stops".to_owned();
                            }
                        }
                        let now_alone = contact.witness.and_then(told_alone);
                        // A member without a leader may be behind.
                        if contact.has_leader && alone.as_ref() != Some(&now_alone) {
                            alone = Some(now_alone.clone());
                            if news.send(News::Alone(now_alone)).await.is_err() {
                                return "the agent stops".to_owned();
                            }
                            beat.reset_immediately();
                        }
                        let accepted = outgoing.borrow().accepted;
                        let behind = contact.leader_generation.is_some_and(|have| Generation(have) > accepted);
                        if contact.has_leader && !behind {
                            stale_since = None;
                            let notice = contact.notice.map(Into::into);
                            told_users.send_if_modified(|told| told.hear(notice, heard));
                        } else if stale_since.get_or_insert(heard).elapsed() > STALE_MAX {
                            return if behind { "it does not hand out the newest assignment" } else { "it has no leader" }.to_owned();
                        }
                        continue;
                    }
                    Some(Message::Clock(clock)) => News::Clock(Reading::new(
                        clock.ping_ms,
                        boot_ms() + 1,
                        clock.lo_wall_ms,
                        clock.hi_wall_ms,
                    )),
                    Some(Message::EvidenceAck(ack)) => {
                        upload.given(&ack);
                        // There may be more.
                        outgoing.mark_changed();
                        continue;
                    }
                    Some(Message::Refused(refused)) => {
                        let text = format!("{}; {}", refused.message, refused.hint);
                        let item = News::Refused { reason: refused.reason, text: text.clone() };
                        // The agent is going down if nobody listens; the session ends either way.
                        let _ = news.send(item).await;
                        return text;
                    }
                    None => continue,
                };
                if news.send(item).await.is_err() {
                    return "the agent stops".to_owned();
                }
            }
            changed = outgoing.changed() => {
                if changed.is_err() {
                    return "the agent stops".to_owned();
                }
            }
            () = upload.grown() => {}
            _ = beat.tick() => {
                if heard.elapsed() > SILENCE_MAX {
                    return "it has been silent for too long".to_owned();
                }
                let (progress, inventory) = {
                    let now = outgoing.borrow();
                    (now.progress.clone(), now.inventory.clone())
                };
                let fresh = inventory.filter(|inventory| listed.as_ref() != Some(inventory));
                if registered {
                    listed = fresh.clone().or(listed);
                    let ping_ms = alone.as_ref().is_some_and(Option::is_some).then(boot_ms);
                    let beat = v1::Beat { progress, inventory: fresh, facts: None, ping_ms };
                    if outbox.try_send(beat.into()).is_err() {
                        return "it does not take messages".to_owned();
                    }
                }
            }
        }
        if !registered {
            continue;
        }
        let (sequence, observed, beat) = {
            let now = outgoing.borrow_and_update();
            // Somebody may wait for facts: they do not wait for the next beat.
            let facts = now.facts.as_ref().filter(|facts| told != Some(facts.at));
            told = facts.map(|facts| facts.at).or(told);
            let beat = facts.map(|facts| v1::Beat {
                progress: now.progress.clone(),
                inventory: None,
                facts: Some(facts.news()),
                ping_ms: None,
            });
            (now.sequence, now.observed.clone(), beat)
        };
        if beat.is_some_and(|beat| outbox.try_send(beat.into()).is_err()) {
            return "it does not take messages".to_owned();
        }
        if let Some(records) = upload.due()
            && outbox.try_send(v1::agent_message::Message::Evidence(records).into()).is_err()
        {
            return "it does not take messages".to_owned();
        }
        let due = match sent {
            Some((last, at)) => last < sequence || (acked < sequence && at.elapsed() > RESEND_AFTER),
            None => sequence > 0,
        };
        if due {
            if outbox.try_send(v1::AgentMessage::report(sequence, observed)).is_err() {
                return "it does not take messages".to_owned();
            }
            sent = Some((sequence, Instant::now()));
        }
    }
}

/// The operation that is alone, as a member tells it; one that this version does not understand is not witnessed.
fn told_alone(told: v1::Witness) -> Option<Alone> {
    let operation = OperationId::new(told.operation).ok()?;
    Some(Alone { operation, token: Token(told.token), grant: told.grant })
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = source.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        next = source.source();
    }
    text
}
