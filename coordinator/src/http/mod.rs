//! HTTP beside gRPC, for probes and for Prometheus.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200: the process is alive |
//! | `/readyz` | 200 if this member hears a leader and its state is not behind; else 503 with the reason |
//! | `/metrics` | the metrics, as text |

mod metrics;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};

use soloist_proto::door::{Calls, STUCK_MAX, Terms};

use crate::shared::Shared;

/// What holds for the connections of probes and of Prometheus. One that has not asked for anything after 30 s is closed,
/// also in the middle of a head.
pub(crate) const TERMS: Terms = Terms {
    port: "http",
    connections_max: 128,
    greeting_max: Duration::ZERO,
    greeting_bytes: 0,
    idle_max: Duration::from_secs(30),
    stuck_max: STUCK_MAX,
};

/// Entries that a member's state may be behind its own log and still be ready.
const LAG_MAX: u64 = 1_000;

/// The HTTP routes of a member.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .layer(Calls)
        .with_state(shared)
}

async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    match unready(&shared) {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn unready(shared: &Shared) -> Option<String> {
    if shared.stop.is_cancelled() {
        return Some("stopping".to_owned());
    }
    if !shared.has_leader() {
        return Some("no leader is heard".to_owned());
    }
    let status = shared.status();
    let behind = status.last_log.unwrap_or(0).saturating_sub(status.applied.unwrap_or(0));
    (behind > LAG_MAX).then(|| format!("the state is {behind} entries behind the log"))
}

async fn scrape(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    match metrics::text(&shared) {
        Ok(text) => (StatusCode::OK, kind, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, kind, format!("# {error}\n")),
    }
}
