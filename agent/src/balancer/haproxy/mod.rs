//! HAProxy, steered through its management socket.
//!
//! | step | when | command |
//! |---|---|---|
//! | drain | a node is to be out | `set server B/S state drain`: no new clients |
//! | maint | nothing is under way, or the deadline is over | `set server B/S state maint`: nor those that stick to it by cookie |
//! | cut | something is under way after the deadline | `shutdown sessions server B/S` |
//! | ready | a node is to be in | `set server B/S state ready` |
//!
//! After every step HAProxy is asked once more: between the count and `maint` a client with a cookie may have come.
//!
//! All of it is lost when HAProxy is reloaded or restarted, so every call starts from what it says. A reload also leaves workers
//! behind that go on with what they have. They listen to no management socket of their own; the process that started them
//! passes questions on to them. They refuse to change servers ("Proxy is disabled"), which is no loss because they accept no
//! connections, but they count and end single sessions.

mod answer;
mod socket;
mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use soloist_core::ids::NodeId;

use super::config::HaproxyConfig;
use super::error::{BalancerError, list};
use super::{Seen, Want, Wanted};
use crate::host::durable;
use answer::{COUNTERS, Place, Server, VIEW, View, earlier_workers, in_flight, sessions};
use socket::Socket;
use step::{Standing, Step, seen_in, seen_out, step};

/// Most sessions of one earlier worker that are ended in one call; the next call goes on.
const CUT_MAX: usize = 200;

/// The driver.
#[derive(Debug)]
pub(super) struct Haproxy {
    config: HaproxyConfig,
    drains: BTreeMap<NodeId, Drain>,
    /// What was last written to the state file.
    saved: Option<Vec<String>>,
    /// The last trouble with it, so that it is told once.
    unsaved: Option<String>,
}

/// One node on its way out, or out.
#[derive(Debug)]
struct Drain {
    since: Instant,
    /// It was seen out.
    done: bool,
    /// How many were cut, by the worker that had them (0: the current one) and the place. The most that was counted at once:
    /// what was told to end may still be there at the next look.
    cut: BTreeMap<(u32, Place), u64>,
}

impl Drain {
    /// Remembers what a step, and the end of what `earlier` workers have, mean for this node.
    fn note<'a>(
        &mut self,
        place: &Place,
        step: Option<Step>,
        server: Server,
        earlier: impl Iterator<Item = &'a Earlier>,
    ) {
        // HAProxy has forgotten that the node is out, and it has new requests now: these have their whole time.
        if step == Some(Step::Drain) && std::mem::take(&mut self.done) {
            self.since = Instant::now();
            self.cut.clear();
        }
        let current = (step == Some(Step::Cut)).then_some((0, server.in_flight));
        let earlier =
            earlier.map(|worker| (worker.pid, worker.in_flight.get(place).copied().unwrap_or_default()));
        for (worker, count) in current.into_iter().chain(earlier) {
            let most = self.cut.entry((worker, place.clone())).or_default();
            *most = count.max(*most);
        }
    }
}

/// HAProxy at one moment.
struct Look {
    view: View,
    earlier: Vec<Earlier>,
}

/// A worker that a reload has left behind.
struct Earlier {
    pid: u32,
    in_flight: BTreeMap<Place, u64>,
}

impl Look {
    /// What earlier workers have under way at a place.
    fn left_behind(&self, place: &Place) -> u64 {
        self.earlier.iter().filter_map(|worker| worker.in_flight.get(place)).sum()
    }
}

impl Haproxy {
    pub(super) fn new(config: HaproxyConfig) -> Self {
        Self { config, drains: BTreeMap::new(), saved: None, unsaved: None }
    }

    /// One round: looks, takes at most one step per server, looks again if it took any.
    pub(super) async fn drive(&mut self, wanted: &Wanted) -> Result<BTreeMap<NodeId, Seen>, BalancerError> {
        self.drains.retain(|node, _| matches!(wanted.servers.get(node), Some(Want::Out { .. })));
        let mut look = self.look(wanted).await?;
        self.check(wanted, &look.view)?;
        let mut changed = false;
        for (node, want) in &wanted.servers {
            let overdue = self.overdue(node, *want);
            for place in self.places(node) {
                changed |= self.bring(wanted.number, node, &place, overdue, &look).await?;
            }
        }
        if changed {
            look = self.look(wanted).await?;
            self.check(wanted, &look.view)?;
        }
        self.save(&look.view).await;
        Ok(wanted.servers.iter().map(|(node, want)| (node.clone(), self.seen(node, *want, &look))).collect())
    }

    fn socket(&self) -> Socket<'_> {
        Socket { path: &self.config.socket, key: "socket", what: "its `stats socket`" }
    }

    /// The socket that reaches workers of before a reload.
    fn workers(&self) -> Option<Socket<'_>> {
        let path = self.config.workers.as_deref()?;
        Some(Socket { path, key: "workers", what: "the socket of `haproxy -W -S`" })
    }

    /// Where a node's servers are.
    fn places(&self, node: &NodeId) -> Vec<Place> {
        let server = self.config.server(node);
        self.config.backends.iter().map(|backend| (backend.clone(), server.to_owned())).collect()
    }

    async fn look(&self, wanted: &Wanted) -> Result<Look, BalancerError> {
        let view = View::read(&self.socket().ask(VIEW).await?)?;
        let mut earlier = Vec::new();
        let out = wanted.servers.values().any(|want| matches!(want, Want::Out { .. }));
        if let Some(socket) = self.workers().filter(|_| out) {
            for pid in earlier_workers(&socket.ask("show proc").await?) {
                let answer = socket.ask(&format!("@!{pid} {COUNTERS}")).await?;
                // Without counters it has ended in the meantime.
                earlier.extend(in_flight(&answer).map(|in_flight| Earlier { pid, in_flight }));
            }
        }
        Ok(Look { view, earlier })
    }

    /// Every wanted server must be there.
    fn check(&self, wanted: &Wanted, view: &View) -> Result<(), BalancerError> {
        for place in wanted.servers.keys().flat_map(|node| self.places(node)) {
            if view.servers.contains_key(&place) {
                continue;
            }
            let (backend, server) = place;
            let there = view.servers.keys().filter(|(found, _)| *found == backend);
            let there: Vec<&String> = there.map(|(_, server)| server).collect();
            if there.is_empty() {
                let backends: BTreeSet<&String> = view.servers.keys().map(|(backend, _)| backend).collect();
                return Err(BalancerError::NoBackend { backend, existing: list(backends) });
            }
            return Err(BalancerError::NoServer { backend, server, existing: list(there) });
        }
        Ok(())
    }

    /// `None` if the node is wanted in; else whether its deadline is over. Starts the clock at the first call.
    fn overdue(&mut self, node: &NodeId, want: Want) -> Option<bool> {
        match want {
            Want::In => None,
            Want::Out { within } => {
                let fresh = || Drain { since: Instant::now(), done: false, cut: BTreeMap::new() };
                let drain = self.drains.entry(node.clone()).or_insert_with(fresh);
                Some(drain.since.elapsed() >= within)
            }
        }
    }

    /// Takes the next step at one place, if there is one.
    async fn bring(
        &mut self,
        number: u64,
        node: &NodeId,
        place: &Place,
        overdue: Option<bool>,
        look: &Look,
    ) -> Result<bool, BalancerError> {
        let Some(server) = look.view.servers.get(place) else { return Ok(false) };
        let step = step(overdue, *server);
        let cut = overdue == Some(true) && look.left_behind(place) > 0;
        // Noted before it is done: a call may be dropped half-way, and a cut that is not counted would be hidden.
        if let Some(drain) = self.drains.get_mut(node) {
            drain.note(place, step, *server, look.earlier.iter().filter(|_| cut));
        }
        if let Some(step) = step {
            let (backend, name) = place;
            self.socket().tell(&step.command(backend, name)).await?;
            tracing::info!(number, %node, %backend, server = %name, step = %step, "balancer");
        }
        if cut {
            self.cut_left_behind(place, look).await?;
        }
        Ok(step.is_some() || cut)
    }

    /// Ends what earlier workers have under way at a place.
    async fn cut_left_behind(&self, place: &Place, look: &Look) -> Result<(), BalancerError> {
        let Some(socket) = self.workers() else { return Ok(()) };
        for worker in look.earlier.iter().filter(|worker| worker.in_flight.get(place).is_some_and(|n| *n > 0))
        {
            let pid = worker.pid;
            let answer = socket.ask(&format!("@!{pid} show sess")).await?;
            for id in sessions(&answer, place).into_iter().take(CUT_MAX) {
                // It may have ended, and the worker with it: the next look tells.
                socket.ask(&format!("@!{pid} shutdown session {id}")).await?;
            }
        }
        Ok(())
    }

    fn seen(&mut self, node: &NodeId, want: Want, look: &Look) -> Seen {
        let standing = |place: &Place| {
            let server = look.view.servers.get(place)?;
            Some(Standing { server: *server, left_behind: look.left_behind(place) })
        };
        let all: Vec<Standing> = self.places(node).iter().filter_map(standing).collect();
        match (want, self.drains.get_mut(node)) {
            (Want::Out { .. }, Some(drain)) => {
                let seen = seen_out(&all, drain.cut.values().sum());
                drain.done = matches!(seen, Seen::Out { .. });
                seen
            }
            (Want::Out { .. }, None) => seen_out(&all, 0),
            (Want::In, _) => seen_in(&all),
        }
    }

    /// Keeps the state file as things are. Its failure holds nothing up: the file only shortens the time after a reload.
    async fn save(&mut self, view: &View) {
        let Some(path) = self.config.state_file.clone() else { return };
        let lasting = view.lasting();
        if self.saved.as_ref() == Some(&lasting) && self.unsaved.is_none() && path.exists() {
            return;
        }
        let (shown, text) = (path.display().to_string(), view.state.clone());
        let written = tokio::task::spawn_blocking(move || write(&path, &text)).await;
        let failure = match written {
            Ok(Ok(())) => {
                self.saved = Some(lasting);
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = failure.as_ref().filter(|why| self.unsaved.as_ref() != Some(*why)) {
            tracing::warn!(
                "cannot write {shown} (state_file in [balancer]): {why}; after a reload HAProxy begins with every server in"
            );
        }
        self.unsaved = failure;
    }
}

/// HAProxy reads the file as root before it gives its rights up.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    durable::write(path, text.as_bytes())
}
