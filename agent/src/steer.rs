//! The loop of an agent beside a load balancer: `assignment → drive → report`, some times per second.
//!
//! Without coordinators the balancer stays as it was told last. After a reboot of its host, or with a new ledger, it is left
//! alone until they were asked.

use std::collections::BTreeMap;
use std::time::Duration;

use soloist_core::agent::{Ledger, observe_balancer, to_fence, to_steer};
use soloist_core::assignment::Observed;
use soloist_core::ids::NodeId;
use soloist_core::traffic::{ServerSeen, TrafficSpec};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::balancer::{Balancer, Seen, Want, Wanted};
use crate::config::Config;
use crate::fence::Carrier;
use crate::glass;
use crate::membership::{Heard, Membership, MembershipError};
use crate::report;
use crate::session::{News, Outgoing, chain};
use crate::status::Status;

/// Between two looks while something is to be changed or is under way.
const ROUND_BUSY: Duration = Duration::from_millis(100);
/// Between two looks while all is as it should be: a reload that forgot something is noticed after so long.
const ROUND_IDLE: Duration = Duration::from_millis(500);
/// How long one look may take: a balancer that hangs is reported, and the session goes on meanwhile.
const LOOK_MAX: Duration = Duration::from_secs(20);
/// Longest reason that is reported, in characters.
const REASON_MAX: usize = 500;

/// What the loop needs.
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// How it stands with the coordinators.
    pub membership: Membership,
    /// The load balancer.
    pub balancer: Balancer,
    /// From the session.
    pub news: mpsc::Receiver<News>,
    /// To the session.
    pub outgoing: watch::Sender<Outgoing>,
    /// The fences around nodes.
    pub fences: Carrier,
    /// For HTTP.
    pub status: watch::Sender<Status>,
}

/// Runs until told to stop, or until it must not go on. The balancer stays as it is.
pub async fn run(mut parts: Parts, stop: CancellationToken) -> Result<(), MembershipError> {
    loop {
        let boot = parts.membership.boot().clone();
        let glass = glass::read(&parts.config.data_dir);
        let spec = match &glass {
            Some(_) => open_to_all(parts.membership.ledger()),
            None => to_steer(parts.membership.ledger(), &boot).cloned(),
        };
        let (found, unsteered) = match &spec {
            Some(spec) => look(&mut parts, spec).await,
            None => (BTreeMap::new(), None),
        };
        let unsteered = glass.map(|glass| glass.text()).or(unsteered);
        let settled = unsteered.is_none() && spec.as_ref().is_none_or(|spec| is_settled(spec, &found));
        parts.fences.tell(to_fence(parts.membership.ledger(), &boot));
        let fences = parts.fences.found();
        let ledger = parts.membership.ledger();
        let observed = observe_balancer(ledger, &boot, seen(&found), unsteered.clone(), &fences);
        let (observed, _) = report::fitted(observed);
        parts.report(observed, progress(&found));
        // Cancel-safe: a channel loses nothing.
        let news = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(news) = parts.news.recv() => Some(news),
            () = parts.fences.changed() => None,
            () = tokio::time::sleep(if settled { ROUND_IDLE } else { ROUND_BUSY }) => None,
        };
        if let Some(news) = news {
            parts.hear(news)?;
        }
        // Whatever else has come is taken in the same round.
        while let Ok(news) = parts.news.try_recv() {
            parts.hear(news)?;
        }
    }
}

/// Every node that was ever known is given to users.
fn open_to_all(ledger: &Ledger) -> Option<TrafficSpec> {
    let mut spec = ledger.assignment.as_ref()?.spec.traffic.clone()?;
    spec.servers.values_mut().for_each(|given| *given = true);
    Some(spec)
}

/// Brings the balancer nearer to what it must do; what it does then, or why it cannot be steered.
async fn look(parts: &mut Parts, spec: &TrafficSpec) -> (BTreeMap<NodeId, Seen>, Option<String>) {
    let out = Want::Out { within: Duration::from_millis(spec.within.0) };
    let servers = spec.servers.iter();
    let wanted = Wanted {
        number: parts.membership.generation().0,
        servers: servers.map(|(node, given)| (node.clone(), if *given { Want::In } else { out })).collect(),
    };
    let why = match timeout(LOOK_MAX, parts.balancer.drive(&wanted)).await {
        Ok(Ok(found)) => return (found, None),
        Ok(Err(error)) => chain(&error),
        Err(_) => format!("it did not answer within {} s", LOOK_MAX.as_secs()),
    };
    (BTreeMap::new(), Some(why.chars().take(REASON_MAX).collect()))
}

/// Whether nothing is left to be done.
fn is_settled(spec: &TrafficSpec, found: &BTreeMap<NodeId, Seen>) -> bool {
    spec.servers.iter().all(|(node, given)| match found.get(node) {
        Some(Seen::In) => *given,
        Some(Seen::Draining { .. }) | None => false,
        Some(Seen::Out { .. }) => !*given,
    })
}

fn seen(found: &BTreeMap<NodeId, Seen>) -> BTreeMap<NodeId, ServerSeen> {
    let seen = |seen: &Seen| match seen {
        Seen::In => ServerSeen::In,
        Seen::Draining { .. } => ServerSeen::Draining,
        Seen::Out { cut } => ServerSeen::Out { cut: *cut },
    };
    found.iter().map(|(node, found)| (node.clone(), seen(found))).collect()
}

/// What is under way, for people; it goes round the log.
fn progress(found: &BTreeMap<NodeId, Seen>) -> String {
    let under_way = found.iter().filter_map(|(node, seen)| match seen {
        Seen::Draining { in_flight } => Some(format!("{node}: {in_flight} under way")),
        Seen::In | Seen::Out { .. } => None,
    });
    under_way.collect::<Vec<_>>().join(", ")
}

impl Parts {
    fn hear(&mut self, news: News) -> Result<(), MembershipError> {
        if let Heard::Assigned(assignment) = self.membership.hear(news)? {
            tracing::info!(generation = %assignment.generation, traffic = ?assignment.spec.traffic, "assigned");
        }
        Ok(())
    }

    fn report(&mut self, observed: Observed, progress: String) {
        let (accepted, registered) = (self.membership.generation(), self.membership.registered());
        if let (Some(why), None) = (&observed.unsteered, &self.outgoing.borrow().observed.unsteered) {
            tracing::warn!(%why, "the load balancer cannot be steered");
        }
        self.outgoing.send_if_modified(|outgoing| {
            let news = registered && (outgoing.observed != observed || outgoing.sequence == 0);
            if news {
                outgoing.sequence += 1;
                outgoing.observed = observed.clone();
            }
            outgoing.accepted = accepted;
            outgoing.progress.clone_from(&progress);
            news
        });
        self.status.send_replace(Status {
            fleet: self.config.fleet.clone(),
            node: self.config.node.clone(),
            member: self.membership.member(),
            registered,
            waiting: self.membership.waiting(),
            progress,
            assignment: self.membership.assignment().cloned(),
            hold: false,
            observed,
            pids: Vec::new(),
            round: Instant::now(),
        });
    }
}
