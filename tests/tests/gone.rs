//! A machine that does not come back: a person says so, operations go on without it, and it leaves the fleet.

use std::time::Duration;

use serde_json::Value;
use soloist_tests::harness::{Fleet, FleetOptions, kill_marked, until};

const POLICY: &str = "contact_timeout = \"3s\"\npre_grant_timeout = \"5m\"\n";

/// What is shown of node-3.
fn third(status: &Value) -> Value {
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    nodes.into_iter().find(|node| node["node"] == "node-3").unwrap_or_default()
}

/// Switches the machine of node-3 off: nobody asks its agent any more, and nothing of its app is left.
fn switch_off(fleet: &mut Fleet) {
    if let Some(mut agent) = fleet.agents[2].take() {
        agent.kill();
    }
    kill_marked(&fleet.marker(2));
}

#[test]
fn operations_go_on_without_a_machine_that_burned_and_it_is_removed() {
    let mut fleet = Fleet::start(&FleetOptions { policy: POLICY.into(), ..FleetOptions::default() });
    let cli = fleet.cli();
    let _ = cli.run(&["start", "--install"]).expect(0);
    fleet.until_whole();
    let assume = ["node", "assume-stopped", "node-3", "--reason", "it burned"];
    let unsure = cli.run(&assume).expect(64);
    assert!(unsure.stderr.contains("its machine must be off and stay off"), "{unsure:?}");
    assert!(unsure.stderr.contains("--confirm node-3"), "{unsure:?}");
    let sure = [assume.as_slice(), &["--confirm", "node-3"]].concat();
    let heard = cli.run(&sure).expect(77);
    assert!(heard.stderr.contains("is in contact"), "{heard:?}");
    let typo = cli.run(&[assume.as_slice(), &["--confirm", "node-2"]].concat()).expect(64);
    assert!(typo.stderr.contains("nothing was done"), "{typo:?}");

    switch_off(&mut fleet);
    let _ = cli.run(&["plugin", "enable", "map", "--detach"]).expect(0);
    fleet.until("the change to wait for node-3", 30, |status| status["current"]["status"] == "blocked");
    let said = cli.run(&sure).expect(0);
    assert!(said.stdout.contains("node-3 counts as stopped until its agent is heard"), "{said:?}");
    let status = fleet.until("the change to end", 60, |status| status["lock"]["held"] == false);
    assert!(third(&status)["assumed"].as_str().is_some_and(|who| who.contains("it burned")), "{status}");
    assert_eq!(third(&status)["proven_stopped"], false, "nothing proves it");
    let page = cli.run(&["status"]).expect(0).stdout;
    assert!(page.contains("ASSUMED stopped by") && page.contains("it burned"), "{page}");
    let last = cli.run(&["operation", "list", "-o", "json"]).expect(0).json();
    assert_eq!(last["operations"][0]["status"], "succeeded", "{last}");
    assert!(last["operations"][0]["left_out"].to_string().contains("it burned"), "{last}");

    // It leaves the fleet, and its agent does not come back by itself.
    let plan = cli.run(&["plan", "node", "remove", "node-3"]).expect(0);
    assert!(plan.stdout.contains("stop node-3"), "{plan:?}");
    let _ = cli.run(&["node", "remove", "node-3", "--confirm", "node-3"]).expect(0);
    fleet.until("two nodes", 10, |status| status["nodes"].as_array().is_some_and(|nodes| nodes.len() == 2));
    std::fs::write(fleet.boot_id(2), "another\n").expect("the boot id can be written");
    fleet.start_agent(2);
    let refused = || {
        let log = fleet.agents[2].as_ref()?.log();
        log.contains("was removed from fleet").then_some(())
    };
    until("the agent to be refused", Duration::from_secs(20), || fleet.logs(), refused);

    // With an empty data folder it joins as a new node.
    switch_off(&mut fleet);
    std::fs::remove_dir_all(fleet.folder.join("agent-3")).expect("its data folder can be deleted");
    fleet.start_agent(2);
    fleet.until("node-3 to join", 30, |status| third(status)["node"] == "node-3");
    let _ = cli.run(&["start"]).expect(0);
    fleet.until_whole();

    // A node that is there is stopped in order before it leaves.
    let _ = cli.run(&["node", "remove", "node-3", "--confirm", "node-3"]).expect(0);
    assert!(soloist_tests::harness::marked(&fleet.marker(2)).is_empty(), "nothing of its app runs");
}
