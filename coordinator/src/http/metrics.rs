//! The metrics: gauges are read at the moment when they are asked for, counters are kept.

use std::{collections::BTreeMap, fmt};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::shared::Shared;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FleetLabels {
    fleet: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

/// All metrics as text.
pub(crate) fn text(shared: &Shared) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("soloist_coordinator");
    let mut gauge = |name: &str, help: &str, value: u64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    };
    let status = shared.status();
    gauge("is_leader", "Whether this member leads", u64::from(shared.leads().is_some()));
    gauge("has_leader", "Whether this member hears a leader", u64::from(shared.has_leader()));
    gauge("term", "Election term", status.term);
    gauge("last_log_index", "Index of the last entry in the log", status.last_log.unwrap_or(0));
    gauge("applied_index", "Index of the last entry in the state", status.applied.unwrap_or(0));
    gauge("snapshot_index", "Index up to which the newest snapshot reaches", status.snapshot.unwrap_or(0));
    gauge("voters", "Members that vote", status.voters.len() as u64);
    gauge("sessions", "Open sessions of agents at this member", shared.hearing.sessions() as u64);

    let held = Family::<FleetLabels, Gauge>::default();
    let nodes = Family::<FleetLabels, Gauge>::default();
    let stale = Family::<FleetLabels, Gauge>::default();
    let mut operations = BTreeMap::<&'static str, i64>::new();
    let fleets = shared.raft.storage().read(|state, _| {
        for (name, fleet) in &state.fleets {
            let labels = FleetLabels { fleet: name.to_string() };
            held.get_or_create(&labels).set(i64::from(fleet.lock.holder().is_some()));
            nodes.get_or_create(&labels).set(i64::try_from(fleet.nodes.len()).unwrap_or(i64::MAX));
            let old = fleet.nodes.values().filter(|node| !node.stale().is_empty()).count();
            stale.get_or_create(&labels).set(i64::try_from(old).unwrap_or(i64::MAX));
            for operation in &fleet.operations {
                *operations.entry(operation.status.word()).or_default() += 1;
            }
        }
        state.fleets.len()
    });
    gauge("fleets", "Fleets", fleets as u64);
    let by_status = Family::<StatusLabels, Gauge>::default();
    for (status, count) in operations {
        by_status.get_or_create(&StatusLabels { status }).set(count);
    }
    registry.register("lock_held", "Whether the fleet's maintenance lock is held", held);
    registry.register("nodes", "Nodes of the fleet", nodes);
    registry.register("stale_nodes", "Nodes whose app has not loaded what it should", stale);
    registry.register("operations", "Remembered operations by status", by_status);
    registry.register(
        "proposals",
        "Proposals that this member took on, by command and result",
        shared.metrics.proposals.clone(),
    );
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}
