//! Fences around other nodes, put up and lifted beside the agent's own loop.
//!
//! ```text
//!  assignment ──orders──► Carrier ──► database fence (login role), machine fence (programs)
//!  report ◄──offers, how far──┘
//! ```
//!
//! What a call changes is decided where it acts: see [`soloist_core::agent::may_act`].

pub mod config;
mod machine;
mod mysql;
mod postgres;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use soloist_core::fence::{Covers, FENCES_MAX, FenceOffer, FenceOrder, FenceSeen, Fences};
use soloist_core::ids::{FleetId, NodeId};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use config::FencesConfig;

/// Between two tries at an order that is not carried out.
const AGAIN: Duration = Duration::from_millis(500);
/// Between two looks at a fence that is up: a database that has fallen back to an older copy has lost it.
const LOOK: Duration = Duration::from_secs(5);
/// Between two looks whether fences would hold.
const ARM: Duration = Duration::from_secs(20);
/// How long one look or one order at the database may take.
const DEADLINE: Duration = Duration::from_secs(15);
/// How long nobody must have been seen inside before that counts: a session that was just signing in is not seen yet.
const EMPTY_FOR: Duration = Duration::from_secs(1);
/// Longest reason that is reported, in characters.
const REASON_MAX: usize = 300;

/// One fence around one node.
trait Fence: Send {
    /// Looks at the real thing, whether it would hold; an error says why not.
    fn arm(&mut self) -> BoxFuture<'_, Result<(), String>>;

    /// Brings it nearer to what is ordered; whether that is done.
    fn carry<'a>(&'a mut self, order: &'a FenceOrder) -> BoxFuture<'a, Result<bool, String>>;

    /// How long each of the two may take.
    fn deadline(&self) -> Duration;
}

/// The agent's hold on its fences.
#[derive(Debug)]
pub struct Carrier {
    orders: watch::Sender<Vec<FenceOrder>>,
    found: watch::Receiver<Fences>,
}

impl Carrier {
    /// Begins to carry what is configured, until `stop` is cancelled.
    #[must_use]
    pub fn new(config: &FencesConfig, fleet: &FleetId, own: &NodeId, stop: CancellationToken) -> Self {
        let (orders, orders_in) = watch::channel(Vec::new());
        let (found_out, found) = watch::channel(Fences::default());
        let work = Work { fences: fences(config, fleet, own), armed: BTreeMap::new(), found: found_out };
        tokio::spawn(work.run(orders_in, stop));
        Self { orders, found }
    }

    /// Gives the orders of the assignment that counts.
    pub fn tell(&self, orders: &[FenceOrder]) {
        self.orders.send_if_modified(|current| {
            let news = current != orders;
            if news {
                *current = orders.to_vec();
            }
            news
        });
    }

    /// What is known of them.
    #[must_use]
    pub fn found(&self) -> Fences {
        self.found.borrow().clone()
    }

    /// Waits until more is known. Cancel-safe.
    pub async fn changed(&mut self) {
        // The sender ends with the agent only.
        if self.found.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

type Key = (NodeId, Covers);

fn fences(config: &FencesConfig, fleet: &FleetId, own: &NodeId) -> BTreeMap<Key, Box<dyn Fence>> {
    let mut fences: BTreeMap<Key, Box<dyn Fence>> = BTreeMap::new();
    for (node, machine) in &config.machine {
        let mark = format!("{fleet}/{own}");
        let fence = machine::MachineFence::new(machine.clone(), mark);
        fences.insert((node.clone(), Covers::Machine), Box::new(fence));
    }
    let Some(database) = &config.database else { return fences };
    for (node, role) in database.roles.iter().filter(|(node, _)| *node != own) {
        let fence: Box<dyn Fence> = if database.server.starts_with("mysql://") {
            Box::new(mysql::MysqlFence::new(database.clone(), role.clone()))
        } else {
            Box::new(postgres::PostgresFence::new(database.clone(), node, role.clone()))
        };
        fences.insert((node.clone(), Covers::Database), fence);
    }
    fences
}

struct Work {
    fences: BTreeMap<Key, Box<dyn Fence>>,
    armed: BTreeMap<Key, Result<(), String>>,
    found: watch::Sender<Fences>,
}

impl Work {
    async fn run(mut self, mut orders: watch::Receiver<Vec<FenceOrder>>, stop: CancellationToken) {
        let mut arm_at = Instant::now();
        loop {
            let current = orders.borrow_and_update().clone();
            // What is waited for comes first.
            let seen = self.carry(&current).await;
            if arm_at <= Instant::now() {
                self.arm(&current).await;
                arm_at = Instant::now() + ARM;
            }
            let settled = seen.iter().all(|seen| seen.done);
            self.tell(seen);
            let next = match (current.is_empty(), settled) {
                (true, _) => arm_at,
                (false, true) => arm_at.min(Instant::now() + LOOK),
                (false, false) => Instant::now() + AGAIN,
            };
            // Cancel-safe: a watch keeps its value.
            tokio::select! {
                () = stop.cancelled() => return,
                changed = orders.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = sleep_until(next) => {}
            }
        }
    }

    async fn carry(&mut self, orders: &[FenceOrder]) -> Vec<FenceSeen> {
        let about = |key: &Key| orders.iter().find(|order| (&order.node, order.covers) == (&key.0, key.1));
        let work = self.fences.iter_mut().filter_map(|(key, fence)| Some((about(key)?, fence)));
        let work = work.map(|(order, fence)| async move {
            let deadline = fence.deadline();
            let result = match timeout(deadline, fence.carry(order)).await {
                Ok(result) => result,
                Err(_) => Err(format!("it took longer than {} s", deadline.as_secs())),
            };
            let (done, trouble) = match result {
                Ok(done) => (done, None),
                Err(why) => (false, Some(clip(&why))),
            };
            let FenceOrder { node, covers, generation, .. } = order.clone();
            FenceSeen { node, covers, generation, done, trouble }
        });
        let mut seen = join_all(work).await;
        let unknown =
            orders.iter().filter(|order| !self.fences.contains_key(&(order.node.clone(), order.covers)));
        seen.extend(unknown.map(|order| FenceSeen {
            node: order.node.clone(),
            covers: order.covers,
            generation: order.generation,
            done: false,
            trouble: Some("no such fence is in this agent's configuration any more".into()),
        }));
        seen.truncate(FENCES_MAX);
        seen
    }

    /// A fence that is up is not tried.
    async fn arm(&mut self, orders: &[FenceOrder]) {
        let ordered = |key: &Key| orders.iter().any(|order| (&order.node, order.covers) == (&key.0, key.1));
        let idle = self.fences.iter_mut().filter(|(key, _)| !ordered(key));
        let work = idle.map(|(key, fence)| async move {
            let deadline = fence.deadline();
            let armed = match timeout(deadline, fence.arm()).await {
                Ok(armed) => armed.map_err(|why| clip(&why)),
                Err(_) => Err(format!("it did not answer within {} s", deadline.as_secs())),
            };
            (key.clone(), armed)
        });
        for (key, armed) in join_all(work).await {
            if let (Err(why), false) = (&armed, self.armed.get(&key) == Some(&armed)) {
                tracing::warn!(node = %key.0, covers = %key.1, %why, "a fence would not hold");
            }
            self.armed.insert(key, armed);
        }
    }

    fn tell(&self, seen: Vec<FenceSeen>) {
        let offers = self.armed.iter().map(|((node, covers), armed)| FenceOffer {
            node: node.clone(),
            covers: *covers,
            unarmed: armed.clone().err(),
        });
        let found = Fences { offers: offers.take(FENCES_MAX).collect(), seen };
        self.found.send_if_modified(|current| {
            let news = *current != found;
            if news {
                *current = found;
            }
            news
        });
    }
}

/// A password from its file, without the end of its line.
fn password(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn clip(why: &str) -> String {
    why.chars().take(REASON_MAX).collect()
}
