//! Streams that follow the state: a fleet's status, and its events.

use std::{sync::Arc, time::Duration};

use soloist_core::ids::FleetId;
use soloist_proto::{
    errors::{Problem, STOPPING},
    v1,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tonic::{Code, Status};

use crate::{history, reader::Extras, shared::Shared};

/// Between two messages of a status stream at the least.
const PAUSE: Duration = Duration::from_millis(200);
/// How often a status is looked at without an entry: agents' progress and silence are not in the log.
const LOOK: Duration = Duration::from_millis(800);
/// Between two messages of a status stream at the most.
const REFRESH: Duration = Duration::from_secs(2);
/// How long a client may take to accept a message.
const SLOW: Duration = Duration::from_secs(10);
/// Messages that wait for a client.
pub(crate) const QUEUE: usize = 16;

/// Sends a fleet's status at once and whenever it has changed, until the client goes.
pub(crate) async fn statuses(
    shared: Arc<Shared>,
    fleet: FleetId,
    local: bool,
    to: mpsc::Sender<Result<v1::StatusReply, Status>>,
) {
    let mut changes = shared.raft.storage().changes(&fleet);
    let mut last: Option<(v1::StatusReply, Instant)> = None;
    loop {
        changes.mark_unchanged();
        let reading = if local {
            shared.local("only this member was asked".to_owned())
        } else {
            shared.read(Some(&fleet), Extras::NONE).await
        };
        match shared.status_reply(&fleet, &reading) {
            Ok(reply) => {
                let shape = timeless(&reply);
                let news = last.as_ref().is_none_or(|(sent, at)| *sent != shape || at.elapsed() >= REFRESH);
                if news {
                    if !offer(&to, Ok(reply)).await {
                        return;
                    }
                    last = Some((shape, Instant::now()));
                }
            }
            Err(status) => {
                offer(&to, Err(status)).await;
                return;
            }
        }
        // Cancel-safe: all arms only wait.
        tokio::select! {
            () = shared.stop.cancelled() => {
                offer(&to, Err(stopping())).await;
                return;
            }
            () = to.closed() => return,
            () = async {
                sleep(PAUSE).await;
                let _ = timeout(LOOK - PAUSE, changes.changed()).await;
            } => {}
        }
    }
}

/// Sends a fleet's events after an index, `older` also those that the state has forgotten, and to one who follows then what happens,
/// until the client goes.
pub(crate) async fn events(
    shared: Arc<Shared>,
    fleet: FleetId,
    mut after: u64,
    (older, follow): (bool, bool),
    to: mpsc::Sender<Result<v1::Event, Status>>,
) {
    if older && !forgotten(&shared, &fleet, &mut after, &to).await {
        return;
    }
    let mut changes = shared.raft.storage().changes(&fleet);
    loop {
        changes.mark_unchanged();
        let events: Vec<_> = shared.raft.storage().read(|state, _| {
            let found = state.fleets.get(&fleet).map(|fleet| &fleet.events);
            found.into_iter().flatten().filter(|event| event.index > after).cloned().collect()
        });
        for event in events {
            after = event.index;
            if !offer(&to, Ok(event.into())).await {
                return;
            }
        }
        if !follow {
            return;
        }
        // Cancel-safe: all arms only wait.
        tokio::select! {
            () = shared.stop.cancelled() => {
                offer(&to, Err(stopping())).await;
                return;
            }
            () = to.closed() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

/// Sends the events after an index that the state has forgotten; `false` if the client is gone.
async fn forgotten(
    shared: &Shared,
    fleet: &FleetId,
    after: &mut u64,
    to: &mpsc::Sender<Result<v1::Event, Status>>,
) -> bool {
    loop {
        let events = history::forgotten(shared, fleet, *after).await;
        if events.is_empty() {
            return true;
        }
        for event in events {
            *after = event.index;
            if !offer(to, Ok(event.into())).await {
                return false;
            }
        }
    }
}

/// Sends to a client that takes it in time; `false` if it does not, or is gone.
pub(crate) async fn offer<T>(to: &mpsc::Sender<T>, message: T) -> bool {
    to.send_timeout(message, SLOW).await.is_ok()
}

/// The error of a stream that ends because this member stops.
pub(crate) fn stopping() -> Status {
    Problem::new(Code::Unavailable, STOPPING, "this member is stopping", "go to another member").into()
}

/// A status without what only shows that time goes by.
fn timeless(reply: &v1::StatusReply) -> v1::StatusReply {
    let mut reply = reply.clone();
    if let Some(freshness) = &mut reply.freshness {
        freshness.applied = 0;
        freshness.last_contact_ms = None;
    }
    let Some(view) = &mut reply.view else { return reply };
    view.now_ms = 0;
    for node in &mut view.nodes {
        node.heard_ms = None;
    }
    for balancer in &mut view.balancers {
        balancer.heard_ms = None;
    }
    if let Some(lock) = &mut view.lock {
        lock.age_ms = None;
    }
    for operation in view.current.iter_mut().chain(&mut view.queue) {
        operation.age_ms = 0;
        for step in &mut operation.steps {
            step.took_ms = None;
        }
    }
    reply
}
