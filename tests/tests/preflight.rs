//! `soloist preflight` with real coordinators, agents and the stand-in app: what is asked for comes back at once, through any
//! member, and differences are named.

use serde_json::Value;
use soloist_tests::harness::{Fleet, FleetOptions, Output, until};

/// A preflight and what it found.
fn preflight(fleet: &Fleet) -> (Output, Value) {
    let output = fleet.cli().run(&["preflight", "-o", "json"]);
    let found = serde_json::from_str(&output.stdout).unwrap_or_default();
    (output, found)
}

fn checks_of(found: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = found["findings"].as_array().cloned().unwrap_or_default();
    findings.iter().map(|finding| (text(&finding["severity"]), text(&finding["check"]))).collect()
}

#[test]
fn differences_are_named_through_any_member_whoever_leads() {
    let mut fleet = Fleet::start(&FleetOptions::default());
    let _ = fleet.cli().run(&["start", "--install"]).expect(0);
    fleet.until_whole();
    let clean = fleet.cli().run(&["preflight"]);
    assert_eq!(clean.code, 0, "{}\n{}\n{}", clean.stdout, clean.stderr, fleet.logs());
    assert!(clean.stdout.contains("all 3 nodes agree on "), "{}", clean.stdout);
    let (output, found) = preflight(&fleet);
    assert_eq!(output.code, 0, "{found:#}");
    for node in found["nodes"].as_array().expect("nodes") {
        assert!(node["told"]["age"].as_u64().is_some_and(|age| age < 10_000), "asked just now: {found:#}");
        assert!(
            node["told"]["facts"]["spaces"].as_array().is_some_and(|spaces| spaces.len() == 2),
            "{found:#}"
        );
        // What this kind of app cannot tell is left out.
        assert!(node["told"]["facts"]["settings"].is_null(), "{found:#}");
    }

    // The stand-in's marker on the shared storage, seen by all the next time they are asked.
    std::fs::write(fleet.folder.join("storage/.upgrading"), "").expect("the storage can be written");
    let (output, found) = preflight(&fleet);
    assert_eq!(output.code, 1, "{found:#}");
    assert_eq!(checks_of(&found), [("problem".to_owned(), "upgrading".to_owned())], "{found:#}");
    assert!(output.stderr.contains("there is a problem"), "{}", output.stderr);
    let page = fleet.cli().run(&["preflight"]).stdout;
    assert!(page.contains("node-1, node-2, node-3") && page.contains("-> "), "{page}");
    std::fs::remove_file(fleet.folder.join("storage/.upgrading")).expect("it can be removed");

    // A new leader is told again, and asks.
    let leader = fleet.leader();
    fleet.members[leader] = None;
    let state = || fleet.logs();
    until("a clean preflight at the next leader", std::time::Duration::from_secs(20), state, || {
        let (output, found) = preflight(&fleet);
        (output.code == 0 && checks_of(&found).is_empty()).then_some(())
    });
    fleet.start_member(leader);

    // A node whose agent is gone has told something before, which grows old; a node that has told nothing is named at once.
    fleet.agents[2] = None;
    let lost = fleet.until("the loss of node-3", 20, |status| status["nodes"][2]["lost"] == true);
    assert_eq!(lost["nodes"][2]["node"], "node-3");
    let leader = fleet.leader();
    fleet.members[leader] = None;
    let state = || fleet.logs();
    let found = until("node-3 named", std::time::Duration::from_secs(30), state, || {
        let (output, found) = preflight(&fleet);
        let only = checks_of(&found) == [("problem".to_owned(), "contact".to_owned())];
        (output.code == 1 && only).then_some(found)
    });
    assert_eq!(found["findings"][0]["nodes"], serde_json::json!(["node-3"]), "{found:#}");
}
