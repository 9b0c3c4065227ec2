//! A whole fleet behind a real HAProxy: users get the app or the maintenance page, and nothing else.

use std::process::{Child, Stdio};

use soloist_tests::harness::haproxy::{Behind, Haproxy};
use soloist_tests::harness::users::{Got, Users};
use soloist_tests::harness::{Fleet, FleetOptions};

const OLD: &str = "1.0.0";
const NEW: &str = "1.1.0";
/// The stand-in's answer has this in it.
const MARK: &str = "version";

const POLICY: &str = "traffic = \"balancer\"\ndrain_timeout = \"3s\"\nstart_timeout = \"30s\"\nstop_timeout = \"20s\"\n\
                      task_timeout = \"2m\"\ncontact_timeout = \"4s\"\ngather_timeout = \"5s\"\npre_grant_timeout = \"60s\"\n";
const TABLES: &str = r#"
[backup.external]
create = ["/bin/sh", "-c", "cp DATABASE DATABASE.$SOLOIST_BACKUP"]
check = ["/bin/sh", "-c", "test -s DATABASE.$SOLOIST_BACKUP"]
restore = ["/bin/sh", "-c", "cp DATABASE.$SOLOIST_BACKUP DATABASE"]
remove = ["/bin/rm", "-f", "DATABASE.none"]
"#;

fn world() -> (Fleet, Haproxy) {
    let options = FleetOptions {
        agent_tables: TABLES.into(),
        releases: [OLD, NEW].map(String::from).into(),
        ..FleetOptions::default()
    };
    let fleet = Fleet::start(&options);
    let nodes = fleet.apps.iter().copied().zip(fleet.agent_http.iter().copied()).collect();
    let coordinators = fleet.grpc.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let behind = Behind { fleet: fleet.name.clone(), coordinators, nodes };
    let haproxy = Haproxy::start(&fleet.folder.join("haproxy"), &behind);
    let file = fleet.folder.join("policy.toml");
    std::fs::write(&file, POLICY).expect("a file can be written");
    let _ = fleet.cli().run(&["fleet", "apply", &file.to_string_lossy()]).expect(0);
    fleet.until("the enrolment of the balancer", 30, |status| status["balancers"][0]["acknowledged"] == true);
    let _ = fleet.cli().run(&["start", "--install"]).expect(0);
    fleet.until_whole();
    (fleet, haproxy)
}

/// Kills the leader whenever a step of this kind begins, once for each.
fn kill_at_steps(fleet: &mut Fleet, command: &mut Child, kinds: &[&str]) -> usize {
    let mut killed = 0;
    let mut last = String::new();
    while command.try_wait().expect("it can be asked").is_none() {
        let status = fleet.cli().status().unwrap_or_default();
        let steps = status["current"]["steps"].as_array().cloned().unwrap_or_default();
        let now = steps.iter().find(|step| step["state"] == "now").and_then(|step| step["step"].as_str());
        let Some(now) = now.filter(|now| *now != last) else { continue };
        last = now.to_owned();
        if kinds.iter().any(|kind| now.starts_with(kind)) {
            let leader = fleet.leader();
            drop(fleet.members[leader].take());
            let other = |status: &serde_json::Value| {
                status["freshness"]["leader"].as_u64().is_some_and(|found| found != leader as u64 + 1)
            };
            fleet.until("another leader", 20, other);
            fleet.start_member(leader);
            killed += 1;
        }
    }
    killed
}

fn begin(fleet: &Fleet, args: &[&str]) -> Child {
    let mut command = fleet.cli().command(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command line can be started")
}

#[test]
fn users_get_the_app_or_the_page() {
    let (fleet, haproxy) = world();
    let users = Users::start(haproxy.port, "/api/app:getInfo", MARK);
    let _ = fleet.cli().run(&["upgrade", "--to", NEW]).expect(0);
    fleet.until_whole();
    let story = users.stop();
    assert!(story.is_clean(), "{:?}", story.counts());
    let counts = story.counts();
    assert!(counts[&Got::App] > 10 && counts[&Got::Page] > 10, "{counts:?}");
    assert_eq!(fleet.code(0), NEW);

    let users = Users::start(haproxy.port, "/api/app:getInfo", MARK);
    let command = begin(&fleet, &["run", "--solo", "--", "sleep", "1"]);
    let output = command.wait_with_output().expect("the command line ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fleet.until_whole();
    let counts = users.stop().counts();
    assert_eq!(counts.keys().collect::<Vec<_>>(), [&Got::App], "one node is there all the time: {counts:?}");
}

#[test]
fn nodes_are_restarted_one_after_the_other_and_nobody_notices() {
    let (fleet, haproxy) = world();
    let before: Vec<u64> = (0..3).map(|at| launched(&fleet, at)).collect();
    let users = Users::start(haproxy.port, "/api/app:getInfo", MARK);
    let _ = fleet.cli().run(&["restart"]).expect(0);
    let counts = users.stop().counts();
    assert_eq!(counts.keys().collect::<Vec<_>>(), [&Got::App], "{counts:?}");
    for (at, before) in before.into_iter().enumerate() {
        assert!(launched(&fleet, at) > before, "node-{} is a new process", at + 1);
    }
    let none = fleet.cli().run(&["restart", "--nodes", "node-9"]).expect(77);
    assert!(none.stderr.contains("node-9") && none.stderr.contains("node-1"), "{none:?}");
}

/// Generation under which a node's app was launched.
fn launched(fleet: &Fleet, at: usize) -> u64 {
    fleet.agent_status(at).and_then(|status| status["observed"]["launched"].as_u64()).expect("it runs")
}

#[test]
fn whoever_is_killed_users_get_the_app_or_the_page() {
    let (mut fleet, mut haproxy) = world();
    let users = Users::start(haproxy.port, "/api/app:getInfo", MARK);
    let mut upgrade = begin(&fleet, &["upgrade", "--to", NEW]);
    let killed = kill_at_steps(&mut fleet, &mut upgrade, &["drain", "bring the nodes back"]);
    let output = upgrade.wait_with_output().expect("the command line ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(killed, 2, "drained once, brought back once");
    fleet.until_whole();

    // The balancer's agent: away before, so that nothing is stopped; then back, and away at the end.
    haproxy.agent = None;
    let mut restart = begin(&fleet, &["run", "--solo", "--on", "node-1", "--", "true"]);
    let status = fleet.until("the block", 60, |status| status["current"]["status"] == "blocked");
    assert!(status["current"]["detail"].as_str().is_some_and(|text| text.contains("haproxy")), "{status}");
    let serving = |node: &serde_json::Value| node["app"] == "serving";
    assert!(status["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(serving)), "{status}");
    haproxy.start_agent();
    fleet.until("the work", 60, |status| {
        let steps = status["current"]["steps"].as_array().cloned().unwrap_or_default();
        steps.iter().any(|step| {
            step["state"] == "now" && step["step"].as_str().is_some_and(|step| step.starts_with("start"))
        })
    });
    haproxy.agent = None;
    let status = fleet.until("the block at the end", 60, |status| status["current"]["status"] == "blocked");
    assert!(status["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(serving)), "{status}");
    assert!(restart.try_wait().expect("it can be asked").is_none(), "it is not done before users are back");
    haproxy.start_agent();
    let output = restart.wait_with_output().expect("the command line ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let story = users.stop();
    // An agent whose coordinator is killed before it passes the news on shows its page without them.
    let counts = story.counts();
    assert!(counts.keys().all(|got| matches!(got, Got::App | Got::Page | Got::BarePage)), "{counts:?}");
}
