//! Somebody on a host starts or stops its app by hand, because the coordinators cannot be asked; they hear of it afterwards.

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use soloist_tests::harness::{Fleet, FleetOptions, bin, get, kill_marked, marked, until};

const POLICY: &str = "contact_timeout = \"3s\"\nstop_timeout = \"20s\"\n";

fn break_glass(fleet: &Fleet, at: usize, args: &[&str]) -> Output {
    let config = fleet.folder.join(format!("agent-{}.toml", at + 1));
    let mut agent = Command::new(bin("soloist-agent"));
    agent.arg("--config").arg(config).arg("break-glass").args(args);
    agent.output().expect("the agent's program can be run")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn node(status: &Value, at: usize) -> Value {
    let name = format!("node-{}", at + 1);
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    nodes.into_iter().find(|node| node["node"] == name.as_str()).unwrap_or_default()
}

fn serves(fleet: &Fleet, at: usize) -> bool {
    get(fleet.apps[at], "/api/__health_check").is_some_and(|(code, _)| code == 200)
}

fn started() -> Fleet {
    let fleet = Fleet::start(&FleetOptions { policy: POLICY.into(), ..FleetOptions::default() });
    let _ = fleet.cli().run(&["start", "--install"]).expect(0);
    fleet.until_whole();
    fleet
}

#[test]
fn without_coordinators_somebody_starts_an_app_after_a_power_cut() {
    let mut fleet = started();
    fleet.power_cut();
    fleet.start_agent(0);
    let asks = || {
        let status = fleet.agent_status(0)?;
        status["waiting"]
            .as_str()
            .filter(|text| text.contains("before the coordinators were asked"))
            .map(drop)
    };
    until("the agent to ask first", Duration::from_secs(20), || fleet.logs(), asks);
    assert!(marked(&fleet.marker(0)).is_empty(), "it starts nothing by itself");

    let silent = break_glass(&fleet, 0, &["start"]);
    assert!(!silent.status.success() && text(&silent).contains("--reason"), "{silent:?}");
    // Since the power came back nobody has said that it may run: whoever starts it says that they looked.
    let unsure = break_glass(&fleet, 0, &["start", "--reason", "no quorum for hours"]);
    assert!(!unsure.status.success() && text(&unsure).contains("--confirm node-1"), "{unsure:?}");
    assert!(marked(&fleet.marker(0)).is_empty(), "nothing was started");
    let sure = ["start", "--reason", "no quorum for hours", "--confirm", "node-1"];
    let done = break_glass(&fleet, 0, &sure);
    assert!(done.status.success() && text(&done).contains("started by hand"), "{done:?}");
    until("the app", Duration::from_secs(30), || fleet.logs(), || serves(&fleet, 0).then_some(()));
    // It is kept running.
    kill_marked(&fleet.marker(0));
    until("the app again", Duration::from_secs(60), || fleet.logs(), || serves(&fleet, 0).then_some(()));

    // The coordinators come back, hear of it, and bring the rest up in order; from then on they decide again.
    (0..fleet.members.len()).for_each(|at| fleet.start_member(at));
    (1..fleet.agents.len()).for_each(|at| fleet.start_agent(at));
    fleet.until_whole();
    let over = || {
        let log = fleet.agents[0].as_ref()?.log();
        log.contains("the start by hand is over").then_some(())
    };
    until("the end of the start by hand", Duration::from_secs(20), || fleet.logs(), over);
    assert!(text(&break_glass(&fleet, 0, &["follow"])).contains("nobody else decides"));
    let _ = fleet.cli().run(&["stop"]).expect(0);
    let unsure = break_glass(&fleet, 0, &["start", "--reason", "I want to"]);
    assert!(!unsure.status.success() && text(&unsure).contains("--confirm node-1"), "{unsure:?}");
    // Whoever insists is told by the agent: the coordinators can be asked.
    let sure = break_glass(&fleet, 0, &["start", "--reason", "I want to", "--confirm", "node-1"]);
    assert!(sure.status.success(), "{sure:?}");
    let refused = || {
        let log = fleet.agents[0].as_ref()?.log();
        (log.matches("the start by hand is over").count() == 2).then_some(())
    };
    until("the agent to refuse", Duration::from_secs(20), || fleet.logs(), refused);
    assert!(marked(&fleet.marker(0)).is_empty(), "nothing was started");
}

#[test]
fn an_app_that_was_stopped_by_hand_stays_so_until_somebody_lets_go() {
    let fleet = started();
    let done = break_glass(&fleet, 1, &["stop", "--reason", "it eats the disk"]);
    assert!(done.status.success() && text(&done).contains("stopped by hand"), "{done:?}");
    let told = |status: &Value| {
        let node = node(status, 1);
        node["app"] == "refused"
            && node["detail"].as_str().is_some_and(|why| why.contains("it eats the disk"))
    };
    fleet.until("the news", 30, told);
    assert!(marked(&fleet.marker(1)).is_empty(), "nothing of it runs");
    // What needs that node says why it cannot go on.
    let _ = fleet.cli().run(&["restart", "--nodes", "node-2", "--detach"]).expect(0);
    let blocked = |status: &Value| {
        let current = &status["current"];
        current["status"] == "blocked"
            && current["detail"].as_str().is_some_and(|why| why.contains("it eats the disk"))
    };
    fleet.until("the restart to wait for node-2", 30, blocked);
    let follow = break_glass(&fleet, 1, &["follow"]);
    assert!(text(&follow).contains("the coordinators decide about the app again"), "{follow:?}");
    fleet.until_whole();
}
