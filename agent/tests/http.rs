//! What the agent answers over HTTP.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::Arc;

use soloist_agent::http::{Asks, serve};
use soloist_agent::status::Status;
use soloist_core::assignment::{AppState, Assignment, Observed, Run, Spec};
use soloist_core::ids::{FleetId, Generation, NodeId};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

fn status(app: AppState, hold: bool) -> Status {
    let spec = Spec { run: Run::Plain, hold, ..Spec::default() };
    Status {
        fleet: FleetId::new("crm").unwrap(),
        node: NodeId::new("n1").unwrap(),
        member: Some(1),
        registered: true,
        waiting: String::new(),
        progress: String::new(),
        assignment: Some(Assignment { generation: Generation(1), token: None, spec }),
        hold,
        observed: Observed { app, ..Observed::default() },
        pids: Vec::new(),
        round: Instant::now(),
    }
}

#[tokio::test]
async fn a_held_node_serves_and_is_not_ready() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (told, seen) = watch::channel(status(AppState::Serving, true));
    let stop = CancellationToken::new();
    let asks = Arc::new(Asks::default());
    assert_eq!(asks.last(), None);
    let server = tokio::spawn(serve(listener, seen, Arc::clone(&asks), stop.clone()));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |path: &str| {
        let answer = client.get(format!("{base}{path}")).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (code, why) = get("/ready").await;
    assert!(code == 503 && why.contains("verification") && why.contains("approval"), "{code}: {why}");
    let head = client.head(format!("{base}/ready")).send().await.unwrap();
    assert_eq!(head.status().as_u16(), 503, "a balancer may ask with HEAD");
    assert_eq!(get("/health").await.0, 200, "the app itself serves");
    let shown: serde_json::Value = serde_json::from_str(&get("/status").await.1).unwrap();
    assert_eq!(shown["hold"], true);
    told.send_replace(status(AppState::Serving, false));
    assert_eq!(get("/ready").await, (200, "ready\n".into()));
    assert_eq!(asks.turned_away(), 2, "who keeps asking has been told");
    told.send_replace(status(AppState::Starting, false));
    assert_eq!(get("/ready").await.0, 503);
    stop.cancel();
    server.await.unwrap().unwrap();
}
