//! Fences at real database servers: `deploy/fences` sets them up, an agent's part carries them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use soloist_agent::fence::Carrier;
use soloist_agent::fence::config::{DatabaseFenceConfig, FencesConfig};
use soloist_core::fence::{Covers, FenceOrder, FenceSeen, Fences};
use soloist_core::ids::{FleetId, Generation, NodeId};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::server::{Kind, Server};

/// No wait is longer.
const PATIENCE: Duration = Duration::from_secs(60);
const APP: &str = "fenced";

fn node(number: u8) -> NodeId {
    NodeId::new(format!("n{number}")).unwrap()
}

fn order(generation: u64, up: bool) -> FenceOrder {
    FenceOrder { node: node(2), covers: Covers::Database, generation: Generation(generation), up }
}

/// An agent's hold on the fence of n2.
struct Agent {
    carrier: Carrier,
    _stop: tokio_util::sync::DropGuard,
}

impl Agent {
    fn new(server: &Server, password: PathBuf) -> Self {
        let config = DatabaseFenceConfig {
            server: server.fence_url(),
            password_file: password,
            app_database: APP.into(),
            roles: BTreeMap::from([(node(1), "fenced_1".to_owned()), (node(2), "fenced_2".to_owned())]),
        };
        let config = FencesConfig { database: Some(config), machine: BTreeMap::new() };
        assert_eq!(config.problem(&node(1)), None);
        let stop = CancellationToken::new();
        let carrier = Carrier::new(&config, &FleetId::new("main").unwrap(), &node(1), stop.clone());
        Self { carrier, _stop: stop.drop_guard() }
    }

    async fn until(&mut self, what: &str, is: impl Fn(&Fences) -> bool) -> Fences {
        let wait = async {
            while !is(&self.carrier.found()) {
                self.carrier.changed().await;
            }
        };
        if timeout(PATIENCE, wait).await.is_err() {
            panic!("{what}: {:?}", self.carrier.found());
        }
        self.carrier.found()
    }

    /// Carries an order out.
    async fn carry(&mut self, order: &FenceOrder) {
        self.carrier.tell(std::slice::from_ref(order));
        self.until(&format!("{order:?}"), |found| about(found, order).is_some_and(|seen| seen.done)).await;
    }

    /// Tries an order, and says why it is not carried out.
    async fn refused(&mut self, order: &FenceOrder) -> String {
        self.carrier.tell(std::slice::from_ref(order));
        let is = |found: &Fences| about(found, order).is_some_and(|seen| seen.trouble.is_some());
        let found = self.until("a refusal", is).await;
        about(&found, order).unwrap().trouble.clone().unwrap()
    }
}

fn about<'a>(found: &'a Fences, order: &FenceOrder) -> Option<&'a FenceSeen> {
    found.seen.iter().find(|seen| seen.generation == order.generation)
}

fn unarmed(found: &Fences) -> Option<String> {
    found.offers.iter().find(|offer| offer.node == node(2))?.unarmed.clone()
}

/// The life of a fence.
pub(crate) async fn keep_out(server: &Server) {
    server.set_up_fences(APP, &["fenced_1", "fenced_2"]);
    let password = server.secret("fence-secret");
    let mut agent = Agent::new(server, password.clone());
    let found = agent.until("the first look", |found| !found.offers.is_empty()).await;
    assert!(
        unarmed(&found).is_some_and(|why| why.contains("never seen to sign in as fenced_2")),
        "{found:?}"
    );
    assert_eq!(found.offers.len(), 1, "an agent does not fence itself: {found:?}");

    // What one node makes belongs to all: the other alters it.
    let made = "create table made (a int); insert into made values (1)";
    server.as_role("fenced_1", APP, "soloist-n1", made).unwrap();
    server
        .as_role("fenced_2", APP, "soloist-n2", "alter table made add column b int; drop table made")
        .unwrap();

    let mut inside = server.stay("fenced_2", APP, "soloist-n2");
    let mut other = server.stay("fenced_1", APP, "soloist-n1");
    let mut agent = Agent::new(server, password.clone());
    agent.until("it to be armed", |found| !found.offers.is_empty() && unarmed(found).is_none()).await;

    agent.carry(&order(10, true)).await;
    assert!(!inside.wait().unwrap().success(), "its session was ended");
    let refused = server.as_role("fenced_2", APP, "soloist-n2", "select 1").unwrap_err();
    let words = if server.kind == Kind::Postgres { "not permitted to log in" } else { "locked" };
    assert!(refused.contains(words), "{refused}");
    server.as_role("fenced_1", APP, "soloist-n1", "select 1").unwrap();
    assert!(other.try_wait().unwrap().is_none(), "another node's session goes on");

    // It is put up again where the server has lost it.
    server.unlock("fenced_2");
    let is_locked = || server.as_role("fenced_2", APP, "soloist-n2", "select 1").is_err();
    for _ in 0..100 {
        if is_locked() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(is_locked(), "it is looked at again and again");

    // Another agent lifts it; what the first one still wants comes too late, also after a newer fence.
    let mut second = Agent::new(server, password.clone());
    second.carry(&order(20, false)).await;
    let late = agent.refused(&order(10, true)).await;
    assert!(late.contains("order 10 comes too late: 20"), "{late}");
    server.as_role("fenced_2", APP, "soloist-n2", "select 1").unwrap();
    second.carry(&order(30, true)).await;
    let late = agent.refused(&order(20, false)).await;
    assert!(late.contains("order 20 comes too late: 30"), "{late}");
    assert!(is_locked());
    second.carry(&order(40, false)).await;
    other.kill().unwrap();
    other.wait().unwrap();

    if server.kind == Kind::Postgres {
        pooled(server).await;
    }

    // What could let itself in again is no fence.
    server.promote("fenced_2");
    let mut agent = Agent::new(server, password);
    let found = agent.until("a look", |found| !found.offers.is_empty()).await;
    assert!(unarmed(&found).is_some_and(|why| why.contains("let itself in again")), "{found:?}");

    let wrong = server.secret("another");
    let mut stranger = Agent::new(server, wrong.clone());
    let found = stranger.until("a look", |found| !found.offers.is_empty()).await;
    assert!(unarmed(&found).is_some_and(|why| !why.contains("another")), "{found:?}");
    fs::remove_file(wrong).unwrap();
}

/// A session that bears the node's name under another role disarms its fence.
async fn pooled(server: &Server) {
    let mut pooled = server.stay("fenced_1", APP, "soloist-n2");
    let mut agent = Agent::new(server, server.secret("fence-secret"));
    let found = agent.until("a look", |found| !found.offers.is_empty()).await;
    let why = unarmed(&found).unwrap();
    assert!(why.contains("its app signs in as fenced_1, not as fenced_2"), "{why}");
    pooled.kill().unwrap();
    pooled.wait().unwrap();
}
