//! Keeps events for longer than the replicated state does, and finds them again.

use std::{sync::Arc, time::Duration};

use soloist_core::{event::Event, ids::FleetId};
use tokio::{task::spawn_blocking, time::sleep};

use crate::shared::Shared;

/// Between two looks at what is new, at the least: far less than a fleet's state takes to forget.
const PAUSE: Duration = Duration::from_millis(500);
/// How many events are read at once.
const CHUNK: usize = 500;

/// Runs until the coordinator stops.
pub(crate) async fn keeping(shared: Arc<Shared>) {
    let mut applied = shared.raft.storage().applied();
    loop {
        applied.mark_unchanged();
        let archive = shared.archive.clone();
        let new: Vec<(FleetId, Vec<Event>)> = shared.raft.storage().read(|state, _| {
            let fleets = state.fleets.iter().filter_map(|(id, fleet)| {
                let last = archive.last(id);
                // Those that share the last index may have been cut apart by a power cut: they are written again.
                let new: Vec<Event> =
                    fleet.events.iter().filter(|event| event.index >= last).cloned().collect();
                new.last().is_some_and(|event| event.index > last).then(|| (id.clone(), new))
            });
            fleets.collect()
        });
        if !new.is_empty() {
            let written =
                spawn_blocking(move || new.iter().for_each(|(fleet, events)| archive.add(fleet, events)))
                    .await;
            if let Err(error) = written {
                tracing::warn!(%error, "events are not archived any more");
                return;
            }
        }
        // Cancel-safe: all arms only wait.
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = async {
                sleep(PAUSE).await;
                // Its sender ends with the member.
                let _ = applied.changed().await;
            } => {}
        }
    }
}

/// The events of a fleet after an index that the state has forgotten and this member's archive has, in order, a few at a time; empty when
/// there are no more.
pub(crate) async fn forgotten(shared: &Shared, fleet: &FleetId, after: u64) -> Vec<Event> {
    let oldest = shared.raft.storage().read(|state, _| {
        let events = state.fleets.get(fleet).map(|fleet| &fleet.events);
        events.and_then(|events| events.front()).map_or(0, |event| event.index)
    });
    let (archive, fleet) = (shared.archive.clone(), fleet.clone());
    let read = spawn_blocking(move || archive.range(&fleet, after.saturating_add(1)..oldest, CHUNK)).await;
    let mut found = read.unwrap_or_default();
    // An index is not cut apart: the next call begins behind it.
    if found.len() == CHUNK {
        let last = found.last().map_or(0, |event| event.index);
        if found.first().is_some_and(|event| event.index < last) {
            found.retain(|event| event.index < last);
        }
    }
    found
}
