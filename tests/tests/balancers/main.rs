//! A real HAProxy and a real nginx, with the configurations of `deploy`, steered by the agent's drivers while clients ask.
//!
//! Each test has its own balancer on ports of its own, never the distribution's service.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod client;
mod haproxy;
mod haproxy_trouble;
mod nginx;
mod nginx_trouble;
mod node;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use soloist_agent::balancer::{Balancer, BalancerError, Seen, Want, Wanted};
use soloist_core::ids::NodeId;

/// No wait is longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks, as an agent does it.
const LOOK: Duration = Duration::from_millis(25);
/// A drain that ends by itself.
const LONG: Want = Want::Out { within: Duration::from_secs(600) };
/// A drain that is cut.
const SHORT: Want = Want::Out { within: Duration::from_millis(300) };
const IN: Want = Want::In;

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

/// What is wanted of node-1 and node-2.
fn wanted(one: Want, two: Want) -> Wanted {
    Wanted { number: 7, servers: BTreeMap::from([(id("node-1"), one), (id("node-2"), two)]) }
}

/// Drives until both nodes are seen so, and gives all that was seen on the way.
async fn drive_until(balancer: &mut Balancer, wanted: &Wanted, one: Seen, two: Seen) -> Vec<(Seen, Seen)> {
    drive_while(balancer, wanted, |seen| seen == (one, two)).await
}

/// Drives until the condition holds.
async fn drive_while(
    balancer: &mut Balancer,
    wanted: &Wanted,
    mut done: impl FnMut((Seen, Seen)) -> bool,
) -> Vec<(Seen, Seen)> {
    let (began, mut all) = (Instant::now(), Vec::new());
    loop {
        let seen = balancer.drive(wanted).await.unwrap();
        let seen = (seen[&id("node-1")], seen[&id("node-2")]);
        if all.last() != Some(&seen) {
            all.push(seen);
        }
        if done(seen) {
            return all;
        }
        assert!(began.elapsed() < PATIENCE, "not seen in time: {wanted:?}; only {all:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Drives until it fails in a way, whatever comes before.
async fn drive_until_error(
    balancer: &mut Balancer,
    wanted: &Wanted,
    is: impl Fn(&BalancerError) -> bool,
) -> BalancerError {
    let (began, mut last) = (Instant::now(), String::new());
    while began.elapsed() < PATIENCE {
        match balancer.drive(wanted).await {
            Err(error) if is(&error) => return error,
            other => last = format!("{other:?}"),
        }
        tokio::time::sleep(LOOK).await;
    }
    panic!("no such error in time; last: {last}")
}

/// Waits for a condition.
async fn until<T>(what: &str, condition: impl AsyncFnMut() -> Option<T>) -> T {
    until_or(what, String::new, condition).await
}

/// Waits for a condition; says more if it does not come.
async fn until_or<T>(
    what: &str,
    state: impl Fn() -> String,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "{what} did not happen in time: {}", state());
        tokio::time::sleep(LOOK).await;
    }
}
