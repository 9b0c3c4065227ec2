//! A plugin that somebody changes in the app's own interface: the other nodes are reported, and healed.

use std::time::Duration;

use soloist_tests::harness::{Fleet, FleetOptions, get, get_signed_in, until};

const POLICY: &str = "start_timeout = \"30s\"\nstop_timeout = \"20s\"\ncontact_timeout = \"4s\"\n";
const MAP: &str = "@nocobase/plugin-map";

/// Changes the policy; a member that has just ceased to lead says so, and is asked again.
fn apply(fleet: &Fleet, more: &str) {
    let file = fleet.folder.join("policy.toml");
    std::fs::write(&file, format!("{POLICY}{more}")).expect("a file can be written");
    let apply = || fleet.cli().run(&["fleet", "apply", &file.to_string_lossy()]);
    let done = || Some(apply()).filter(|output| output.code != 69);
    let _ = until("a leader", Duration::from_secs(20), || fleet.logs(), done).expect(0);
}

fn started() -> Fleet {
    let fleet = Fleet::start(&FleetOptions { policy: POLICY.into(), ..FleetOptions::default() });
    let _ = fleet.cli().run(&["start", "--install"]).expect(0);
    fleet.until_whole();
    fleet
}

/// Somebody clicks, on one node.
fn click(fleet: &Fleet, at: usize, verb: &str) {
    let token = format!("stand-in-{}", fleet.database()["identity"].as_str().expect("it was installed"));
    let path = format!("/api/pm:{verb}?filterByTk=map&awaitResponse=true");
    let (status, body) = get_signed_in(fleet.apps[at], &path, &token).expect("the app answers");
    assert_eq!(status, 200, "{body}");
}

/// The nodes that count as stale, with what is said of them.
fn stale(status: &serde_json::Value) -> Vec<(String, String)> {
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    let said = |node: &serde_json::Value| {
        let what = node["stale"].as_array()?.first()?.as_str()?.to_owned();
        Some((node["node"].as_str()?.to_owned(), what))
    };
    nodes.iter().filter_map(said).collect()
}

/// When the agents have told which app process runs where.
fn launched(fleet: &Fleet) -> Vec<u64> {
    let generation = |at| fleet.agent_status(at)?["observed"]["launched"].as_u64();
    (0..3).map(|at| generation(at).expect("it runs")).collect()
}

#[test]
fn nodes_that_a_click_has_left_stale_are_named_and_healed() {
    let fleet = started();
    let nothing = fleet.cli().run(&["heal"]).expect(0);
    assert!(nothing.stderr.contains("has loaded what it should"), "{nothing:?}");

    let before = launched(&fleet);
    click(&fleet, 0, "enable");
    let status = fleet.until("two stale nodes", 60, |status| stale(status).len() == 2);
    let what = format!("{MAP} is enabled and not loaded");
    assert_eq!(stale(&status), [("node-2".into(), what.clone()), ("node-3".into(), what)]);
    let people = fleet.cli().run(&["status"]).expect(0);
    assert!(people.stdout.contains("STALE since") && people.stdout.contains(MAP), "{people:?}");
    let metrics = get(fleet.http[0], "/metrics").expect("metrics").1;
    let line = format!("soloist_coordinator_stale_nodes{{fleet=\"{}\"}} 2", fleet.name);
    assert!(metrics.contains(&line), "{metrics}");
    let events = fleet.cli().run(&["events"]).expect(0);
    assert!(events.stdout.contains("stale: @nocobase/plugin-map"), "{events:?}");

    let _ = fleet.cli().run(&["heal"]).expect(0);
    let after = launched(&fleet);
    assert!(after[0] == before[0] && after[1] > before[1] && after[2] > before[2], "{before:?} {after:?}");
    let status = fleet.until("no stale node", 60, |status| stale(status).is_empty());
    assert!(status["nodes"][1]["stale_wall_ms"].is_null(), "{status}");

    // The other way round: what is not enabled any more is still loaded elsewhere.
    click(&fleet, 1, "disable");
    let status = fleet.until("two stale nodes again", 60, |status| stale(status).len() == 2);
    assert!(stale(&status)[0].1.contains("is not enabled and still loaded"), "{status}");

    // A fleet may heal by itself; it tells that it did.
    apply(&fleet, "heal = \"automatic\"\n");
    fleet.until("no stale node", 60, |status| stale(status).is_empty());
    fleet.until_whole();
    let list = fleet.cli().run(&["operation", "list", "-o", "json"]).expect(0);
    assert!(list.stdout.contains("nodes have not loaded what they should"), "{list:?}");
}
