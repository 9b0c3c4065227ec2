//! Signs that people put up: no new operations for a while, no users for a node.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use soloist_tests::harness::balancer::{Balancer, Kind};
use soloist_tests::harness::users::Users;
use soloist_tests::harness::{Fleet, FleetOptions, bin, get, until};

const POLICY: &str =
    "traffic = \"balancer\"\ndrain_timeout = \"3s\"\nquiet_timeout = \"0s\"\ncontact_timeout = \"4s\"\n";

/// What users ask for.
const APP: &str = "/api/app:getInfo";

const EXTERNAL: &str = r#"
[backup.external]
create = ["/bin/sh", "-c", "cp DATABASE DATABASE.$SOLOIST_BACKUP"]
check = ["/bin/sh", "-c", "test -s DATABASE.$SOLOIST_BACKUP"]
restore = ["/bin/sh", "-c", "cp DATABASE.$SOLOIST_BACKUP DATABASE"]
remove = ["/bin/rm", "-f", "DATABASE.none"]
"#;

fn fleet(policy: &str) -> Fleet {
    Fleet::start(&FleetOptions { policy: policy.into(), ..FleetOptions::default() })
}

fn started(policy: &str) -> Fleet {
    let fleet = fleet(policy);
    let _ = fleet.cli().run(&["start", "--install"]).expect(0);
    fleet.until_whole();
    fleet
}

#[test]
fn a_frozen_fleet_begins_nothing_new_and_is_brought_back_all_the_same() {
    let mut fleet = started("");
    let cli = fleet.cli();
    let empty = cli.run(&["freeze", "--for", "1h", "--reason", ""]).expect(77);
    assert!(empty.stderr.contains("reason"), "{empty:?}");
    let long = cli.run(&["freeze", "--for", "1000days", "--reason", "fair"]).expect(77);
    assert!(long.stderr.contains("no length for a freeze"), "{long:?}");
    let _ = cli.run(&["freeze", "--for", "1h", "--reason", "the fair"]).expect(0);
    for args in [["plugin", "enable", "map"].as_slice(), &["restart"], &["stop"], &["backup"]] {
        let refused = cli.run(args).expect(77);
        assert!(
            refused.stderr.contains("is frozen for another") && refused.stderr.contains("the fair"),
            "{refused:?}"
        );
        assert!(refused.stderr.contains("soloist unfreeze"), "{refused:?}");
    }
    let page = cli.run(&["status"]).expect(0).stdout;
    assert!(page.contains("frozen") && page.contains("the fair"), "{page}");
    let _ = cli.run(&["verify"]).expect(0);

    // A power cut is no new operation: what should run comes back.
    fleet.power_cut();
    (0..fleet.members.len()).for_each(|at| fleet.start_member(at));
    (0..fleet.agents.len()).for_each(|at| fleet.start_agent(at));
    fleet.until_whole();
    let _ = fleet.cli().run(&["restart"]).expect(77);
    let _ = fleet.cli().run(&["unfreeze"]).expect(0);
    let _ = fleet.cli().run(&["restart", "--nodes", "node-1"]).expect(0);
    let events = fleet.cli().run(&["events"]).expect(0).stdout;
    assert!(events.contains("freeze for") && events.contains("freeze ended"), "{events}");

    // It ends by itself.
    let _ = fleet.cli().run(&["freeze", "--for", "2s", "--reason", "a moment"]).expect(0);
    fleet.until("the end of the freeze", 20, |status| status["freeze"].is_null());
    let _ = fleet.cli().run(&["restart", "--nodes", "node-1"]).expect(0);
}

#[test]
fn a_drained_node_gets_no_users_until_it_is_undrained() {
    let fleet = fleet(POLICY);
    let balancer = Balancer::before(Kind::Haproxy, &fleet);
    let _ = fleet.cli().run(&["start", "--install"]).expect(0);
    fleet.until_whole();
    let lane = |status: &Value, node: &str| status["balancers"][0]["servers"][node].clone();
    let is_in = |status: &Value| ["node-1", "node-2", "node-3"].iter().all(|node| lane(status, node) == "in");
    fleet.until("every node at the balancer", 30, is_in);

    let users = Users::start(balancer.port, APP, "version");
    let done = fleet.cli().run(&["node", "drain", "node-2", "--reason", "a look at its disk"]).expect(0);
    assert!(done.stdout.contains("node-2 is drained"), "{done:?}");
    let status = fleet.cli().status().expect("an answer");
    assert!(lane(&status, "node-2")["out"].is_object() && lane(&status, "node-1") == "in", "{status}");
    assert_eq!(get(fleet.agent_http[1], "/ready").map(|(code, _)| code), Some(503));
    assert_eq!(
        get(fleet.apps[1], "/api/__health_check").map(|(code, _)| code),
        Some(200),
        "it goes on running"
    );
    let page = fleet.cli().run(&["status"]).expect(0).stdout;
    assert!(page.contains("DRAINED by a person"), "{page}");

    // It stays drained whatever is done with it.
    let _ = fleet.cli().run(&["restart"]).expect(0);
    let status = fleet.cli().status().expect("an answer");
    assert!(lane(&status, "node-2")["out"].is_object(), "{status}");

    let _ = fleet.cli().run(&["node", "undrain", "node-2"]).expect(0);
    let ready = || get(fleet.agent_http[1], "/ready").filter(|(code, _)| *code == 200);
    let _ = until("node-2 to be ready", Duration::from_secs(20), || fleet.logs(), ready);
    let story = users.stop();
    assert!(story.is_app_only(), "{story}");

    let unknown = fleet.cli().run(&["node", "drain", "node-9"]).expect(77);
    assert!(unknown.stderr.contains("node-9") && unknown.stderr.contains("node-1"), "{unknown:?}");
}

#[test]
fn preflight_tells_who_comes_to_a_node_that_is_out_of_service() {
    let fleet = started("traffic = \"ready\"\n");
    let _ = fleet.cli().run(&["node", "drain", "node-2"]).expect(0);
    // These users come to the node whatever it says.
    let users = Users::start(fleet.apps[1], APP, "version");
    let all_the_same = "connections are opened to its app all the same, from 127.0.0.1";
    let told = || {
        let report = fleet.cli().run(&["preflight"]);
        report.stdout.contains(all_the_same).then_some(report.stdout)
    };
    let report = until("preflight to see them", Duration::from_secs(60), || fleet.logs(), told);
    assert!(report.contains("node-2 says 503 to whoever asks /ready"), "{report}");
    drop(users.stop());
    let report = fleet.cli().run(&["preflight"]).stdout;
    assert!(!report.contains(all_the_same), "nobody comes any more: {report}");
}

#[test]
fn nobody_drains_where_users_come_directly() {
    let fleet = started("");
    let refused = fleet.cli().run(&["node", "drain", "node-1"]).expect(77);
    assert!(refused.stderr.contains("traffic") && refused.stderr.contains("fleet apply"), "{refused:?}");
}

/// The same on node-1.
fn break_glass(fleet: &Fleet, what: &str) {
    let mut command = Command::new(bin("soloist-agent"));
    command.arg("--config").arg(fleet.folder.join("agent-1.toml"));
    let output = command.args(["break-glass", "traffic", what, "--reason", "no quorum"]).output();
    let output = output.expect("the agent's program can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn without_coordinators_somebody_lets_users_in_and_it_is_known_afterwards() {
    let options = FleetOptions {
        agent_tables: EXTERNAL.into(),
        releases: ["1.0.0", "1.1.0"].map(String::from).into(),
        policy: POLICY.into(),
        ..FleetOptions::default()
    };
    let mut fleet = Fleet::start(&options);
    let balancer = Balancer::before(Kind::Haproxy, &fleet);
    let port = balancer.port;
    let _ = fleet.cli().run(&["start", "--install"]).expect(0);
    fleet.until_whole();
    let _ = fleet.cli().run(&["upgrade", "--to", "1.1.0", "--approve"]).expect(1);
    let status = fleet.until("the question", 60, |status| status["current"]["status"] == "blocked");
    let operation = status["current"]["id"].as_str().expect("an operation").to_owned();
    assert_eq!(get(balancer.port, APP).map(|(code, _)| code), Some(503), "users have to wait");

    // In the middle of it every coordinator dies, and nobody can wait for that.
    fleet.members.iter_mut().for_each(|member| drop(member.take()));
    balancer.break_glass("on");
    // The balancer's checks ask the node, which waits for the answer.
    break_glass(&fleet, "on");
    let answers = |wanted: u16| move || get(port, APP).filter(|(code, _)| *code == wanted);
    let _ =
        until("users to be let in", Duration::from_secs(30), || balancer.log() + &fleet.logs(), answers(200));

    // They come back, hear of it, and know that users may have written: the way back is no longer a matter of course.
    (0..fleet.members.len()).for_each(|at| fleet.start_member(at));
    let by_hand = |status: &Value| {
        status["balancers"][0]["unsteered"].as_str().is_some_and(|text| text.contains("by hand"))
    };
    let status = fleet.until("the news", 60, by_hand);
    assert!(
        status["balancers"][0]["unsteered"].as_str().is_some_and(|text| text.contains("no quorum")),
        "{status}"
    );
    assert_eq!(get(port, APP).map(|(code, _)| code), Some(200), "they stay in");
    balancer.break_glass("off");
    break_glass(&fleet, "off");
    fleet.until("the end of it", 60, |status| !by_hand(status));
    let _ = until("users to wait again", Duration::from_secs(30), || fleet.logs(), answers(503));
    let _ = fleet.cli().run(&["operation", "approve", &operation]).expect(0);
    fleet.until_whole();
    let _ = until("the app", Duration::from_secs(30), || fleet.logs(), answers(200));
    let events = fleet.cli().run(&["events"]).expect(0).stdout;
    assert!(events.contains("by hand"), "{events}");
}
