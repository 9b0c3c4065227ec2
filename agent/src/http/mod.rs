//! The agent's HTTP side: `/ready` for load balancers, `/health`, `/live`, and `/status` for people.
//!
//! | path | 200 means | else |
//! |---|---|---|
//! | `/ready` | send traffic here | 503 |
//! | `/health` | the app serves | 503 |
//! | `/live` | the agent's loop goes round | 503 |
//! | `/status` | always: the agent's state as JSON | – |
//!
//! HEAD answers like GET without a body.

mod asks;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use soloist_core::assignment::AppState;
use soloist_proto::door::{Caller, Calls, Door, STUCK_MAX, Terms};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::asks::Asks;
use crate::status::Status;

/// A loop that has not gone round for so long hangs; its longest single wait is a facts query of some seconds.
const ROUND_MAX: Duration = Duration::from_secs(30);

/// What holds for those who ask. A connection that has not asked for anything after 30 s is closed, also in the middle of a
/// head; when there are too many, the one that has asked for nothing the longest goes, and a load balancer is answered.
const TERMS: Terms = Terms {
    port: "http",
    connections_max: 128,
    greeting_max: Duration::ZERO,
    greeting_bytes: 0,
    idle_max: Duration::from_secs(30),
    stuck_max: STUCK_MAX,
};

/// Why no traffic is sent to an app that serves.
const HOLDS: &str =
    "no traffic: this node is about to be stopped, or waits for its verification or for a person's approval";

type Shared = State<Told>;

/// What is told.
#[derive(Debug, Clone)]
struct Told {
    status: watch::Receiver<Status>,
    asks: Arc<Asks>,
}

/// Serves until told to stop; notes in `asks` who asks `/ready`.
pub async fn serve(
    listener: TcpListener,
    status: watch::Receiver<Status>,
    asks: Arc<Asks>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/ready", get(ready))
        .route("/health", get(health))
        .route("/live", get(live))
        .route("/status", get(show))
        .layer(Calls)
        .with_state(Told { status, asks })
        .into_make_service_with_connect_info::<Caller>();
    axum::serve(Door::new(listener, TERMS), router).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn answer(good: bool, text: String) -> (StatusCode, String) {
    (if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text + "\n")
}

async fn ready(State(told): Shared) -> (StatusCode, String) {
    let status = told.status.borrow();
    told.asks.note(status.hold);
    let held = status.hold && status.observed.app == AppState::Serving;
    let why = match status.waiting.as_str() {
        "" if held => HOLDS.to_owned(),
        "" => format!("{:?}", status.observed.app),
        waiting => waiting.to_owned(),
    };
    answer(status.ready(), if status.ready() { "ready".to_owned() } else { why })
}

async fn health(State(told): Shared) -> (StatusCode, String) {
    let status = told.status.borrow();
    answer(status.observed.app == AppState::Serving, format!("{:?}", status.observed.app))
}

async fn live(State(told): Shared) -> (StatusCode, String) {
    let age = told.status.borrow().round.elapsed();
    answer(age < ROUND_MAX, format!("the loop last went round {} ms ago", age.as_millis()))
}

async fn show(State(told): Shared) -> Json<Status> {
    Json(told.status.borrow().clone())
}
