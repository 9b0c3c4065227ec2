//! A machine that hangs is switched off by the fleet itself, and comes back in order.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;
use soloist_tests::harness::{Fleet, FleetOptions, marked};

const POLICY: &str =
    "contact_timeout = \"3s\"\npre_grant_timeout = \"5m\"\nfence = \"automatic\"\nfence_after = \"1s\"\n";

/// What is shown of node-3.
fn third(status: &Value) -> Value {
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    nodes.into_iter().find(|node| node["node"] == "node-3").unwrap_or_default()
}

/// The state of node-3's only fence.
fn fence(status: &Value) -> String {
    third(status)["fences"][0]["state"].as_str().unwrap_or_default().to_owned()
}

/// A power switch: it ends all that runs on node-3, and says what it is asked. Its file is missing while the machine is on.
fn power_switch(fleet: &Fleet) -> PathBuf {
    let (program, state) = (fleet.folder.join("power"), fleet.folder.join("off"));
    let text = format!(
        "#!/bin/bash\nif [ \"$1\" = off ]; then\n  pkill -9 -f '{}' || true\n  for of in /proc/[0-9]*; do\n    \
         if tr '\\0' '\\n' <\"$of/environ\" 2>/dev/null | grep -qx '{}'; then kill -9 \"${{of#/proc/}}\"; fi\n  done\n  touch '{}'\nfi\n\
         if [ -e '{}' ]; then echo 'Power is off'; else echo 'Power is on'; fi\n",
        fleet.folder.join("agent-3.toml").display(),
        fleet.marker(2),
        state.display(),
        state.display(),
    );
    std::fs::write(&program, text).expect("a program in a temporary folder can be written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))
        .expect("it can be made executable");
    let config = fleet.folder.join("agent-1.toml");
    let told = std::fs::read_to_string(&config).expect("the agent has a configuration");
    let table = format!(
        "\n[fences.machine.node-3]\noff = [\"{0}\", \"off\"]\ncheck = [\"{0}\", \"state\"]\noff_says = \"is off\"\n",
        program.display()
    );
    std::fs::write(config, told + &table).expect("it can be written");
    state
}

/// Switches the machine of node-3 on again.
fn switch_on(fleet: &mut Fleet, state: &PathBuf, boot: &str) {
    drop(fleet.agents[2].take());
    std::fs::remove_file(state).expect("it was switched off");
    std::fs::write(fleet.boot_id(2), format!("{boot}\n")).expect("the boot id can be written");
    fleet.start_agent(2);
}

#[test]
fn a_machine_that_hangs_is_switched_off_and_comes_back_in_order() {
    let options = FleetOptions { policy: POLICY.into(), ..FleetOptions::default() };
    let mut fleet = Fleet::prepare(&options);
    let state = power_switch(&fleet);
    (0..3).for_each(|member| fleet.start_member(member));
    (0..3).for_each(|node| fleet.start_agent(node));
    fleet
        .until("three agents", 30, |status| status["nodes"].as_array().is_some_and(|nodes| nodes.len() == 3));
    let cli = fleet.cli();
    let _ = cli.run(&["start", "--install"]).expect(0);
    fleet.until_whole();
    fleet.until("an armed fence", 30, |status| fence(status) == "armed");
    let shown = cli.run(&["node", "show", "node-3"]).expect(0).stdout;
    assert!(shown.contains("machine by node-1: armed"), "{shown}");
    let refused =
        cli.run(&["node", "fence", "node-1", "--reason", "why not", "--confirm", "node-1"]).expect(77);
    assert!(refused.stderr.contains("no agent that is heard can fence \"node-1\""), "{refused:?}");
    assert!(refused.stderr.contains("docs/fences.md"), "{refused:?}");

    // Its agent hangs, and its app goes on: nobody knows.
    fleet.agents[2].as_ref().expect("it runs").signal(Signal::STOP);
    let app = marked(&fleet.marker(2));
    assert!(!app.is_empty(), "its app runs");
    let _ = cli.run(&["plugin", "enable", "map"]).expect(0);
    assert!(marked(&fleet.marker(2)).is_empty(), "the machine was switched off");
    let last = cli.run(&["operation", "list", "-o", "json"]).expect(0).json();
    let left_out = last["operations"][0]["left_out"]["node-3"].to_string();
    assert!(left_out.contains("fenced from the machine by soloist"), "{last}");
    let status = fleet.until("the fence to be shown", 10, |status| fence(status) == "holds");
    assert!(third(&status)["fences"][0]["detail"].to_string().contains("out of contact"), "{status}");
    let page = cli.run(&["status"]).expect(0).stdout;
    assert!(page.contains("FENCED from the machine"), "{page}");
    let unproven = cli.run(&["node", "unfence", "node-3"]).expect(77);
    assert!(unproven.stderr.contains("has not acknowledged a stop"), "{unproven:?}");

    // It comes back, asks first, and is started by itself.
    switch_on(&mut fleet, &state, "boot-2");
    fleet.until_whole();
    fleet.until("the fence to be armed again", 40, |status| fence(status) == "armed");

    // By hand, without any operation.
    fleet.agents[2].as_ref().expect("it runs").signal(Signal::STOP);
    let by_hand = ["node", "fence", "node-3", "--reason", "it burns", "--confirm", "node-3"];
    let said = cli.run(&by_hand).expect(0);
    assert!(said.stdout.contains("node-3 is fenced from the machine"), "{said:?}");
    assert!(marked(&fleet.marker(2)).is_empty());
    let unsure = cli.run(&["node", "fence", "node-3", "--reason", "it burns"]).expect(64);
    assert!(unsure.stderr.contains("--confirm node-3"), "{unsure:?}");
    switch_on(&mut fleet, &state, "boot-3");
    fleet.until_whole();
    let events = cli.run(&["events"]).expect(0).stdout;
    assert!(
        events.contains("fence around the machine holds") && events.contains("fence of the machine is over"),
        "{events}"
    );
}
