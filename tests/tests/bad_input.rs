//! Whatever a person gets wrong has a message that says what, where and what to do, an exit code of its own, and no effect.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use soloist_tests::harness::{Cli, Daemon, Fleet, FleetOptions, Output, bin, until};

fn contains(output: &Output, words: &[&str]) {
    for word in words {
        assert!(output.stderr.contains(word), "\"{word}\" is missing in:\n{}", output.stderr);
    }
}

/// Runs a program that must end by itself.
fn ends(program: &str, args: &[&str]) -> Output {
    let output =
        Command::new(bin(program)).args(args).stdin(Stdio::null()).output().expect("it can be started");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr),
    }
}

fn config(fleet: &Fleet, name: &str) -> (String, String) {
    let path = fleet.folder.join(name);
    let text = std::fs::read_to_string(&path).expect("the harness wrote it");
    (path.to_string_lossy().into_owned(), text)
}

#[test]
fn names_that_do_not_exist() {
    let fleet = Fleet::start(&FleetOptions { members: 1, nodes: 2, ..FleetOptions::default() });
    let cli = fleet.cli();
    let wrong = Cli { fleet: "mian".into(), ..cli.clone() };
    contains(&wrong.run(&["stop"]).expect(77), &["there is no fleet \"mian\"", &fleet.name]);
    contains(&cli.run(&["node", "show", "node-7"]).expect(77), &["node-7", "node-1"]);
    contains(
        &cli.run(&["operation", "show", "nothing"]).expect(77),
        &["there is no operation \"nothing\"", "operation list"],
    );
    contains(
        &cli.run(&["plugin", "enable", "@nocobase/plugin-map"]).expect(77),
        &["was never started", "soloist start"],
    );
    let differ = cli.run(&["start", "--install", "--nodes", "node-1,node-2,node-3"]).expect(77);
    contains(&differ, &["node-1, node-2", "node-1, node-2, node-3", "nothing was started"]);

    let _ = cli.run(&["start", "--install"]).expect(0);
    fleet.until_whole();
    contains(&cli.run(&["start", "--install"]).expect(77), &["was installed before", "soloist start"]);
    contains(&cli.run(&["run", "--solo", "--on", "node-9", "--", "true"]).expect(77), &["node-9", "node-1"]);
    // What plugins there are is told some moments after an app serves.
    let listed = || {
        let list = cli.run(&["plugin", "list"]);
        ["node-1", "node-2"]
            .iter()
            .all(|node| list.stdout.contains(node) && list.stdout.contains("plugin-map"))
            .then_some(())
    };
    until("the list of plugins", Duration::from_secs(30), || fleet.logs(), listed);
    let plugin = cli.run(&["plugin", "enable", "@nocobase/plugin-mapp"]).expect(77);
    contains(&plugin, &["plugin-mapp", "plugin-map"]);
    fleet.until_whole();
    contains(&cli.run(&["lock", "release", "--force", "--reason", "why not"]).expect(77), &["lock"]);
}

#[test]
fn no_quorum_and_wrong_endpoints() {
    let mut fleet = Fleet::start(&FleetOptions { nodes: 1, ..FleetOptions::default() });
    let cli = fleet.cli();
    fleet.members[0] = None;
    fleet.members[1] = None;
    let status = until(
        "a stale status",
        Duration::from_secs(20),
        || fleet.logs(),
        || cli.status().filter(|status| status["freshness"]["stale"] == true),
    );
    assert_eq!(status["nodes"][0]["node"], "node-1", "what was known is still shown: {status}");
    let refused = cli.run(&["stop"]).expect(69);
    contains(&refused, &["nothing can be decided now", "1 of 3 members answer", "2 are needed"]);
    let nowhere = Cli { endpoints: "127.0.0.1:1,127.0.0.1:2".into(), ..cli };
    contains(&nowhere.run(&["status"]).expect(69), &["127.0.0.1:1", "127.0.0.1:2", "--endpoints"]);
    let _ = nowhere.run(&["no-such-command"]).expect(64);
}

#[test]
fn malformed_configurations() {
    let fleet = Fleet::prepare(&FleetOptions { members: 1, nodes: 1, ..FleetOptions::default() });
    let (path, text) = config(&fleet, "agent-1.toml");
    std::fs::write(&path, text.replace("coordinators", "cordinators")).expect("it can be written");
    contains(
        &ends("soloist-agent", &["--config", &path]).expect(78),
        &["agent-1.toml:4", "cordinators", "did you mean \"coordinators\""],
    );
    std::fs::write(&path, text.replace("fleet = \"", "fleet = \"A ")).expect("it can be written");
    contains(&ends("soloist-agent", &["--config", &path]).expect(78), &["agent-1.toml:1", "is not valid"]);
    contains(
        &ends("soloist-agent", &["--config", "/nowhere.toml"]).expect(78),
        &["/nowhere.toml", "--config"],
    );

    let (path, text) = config(&fleet, "coordinator-1.toml");
    std::fs::write(&path, text.replace("listen", "lisen")).expect("it can be written");
    contains(
        &ends("soloist-coordinator", &["--config", &path]).expect(78),
        &["coordinator-1.toml", "lisen", "listen"],
    );
}

#[test]
fn ports_and_folders_in_use() {
    let mut fleet = Fleet::start(&FleetOptions { members: 1, nodes: 1, ..FleetOptions::default() });
    let (agent, text) = config(&fleet, "agent-1.toml");
    // The same data folder a second time.
    contains(&ends("soloist-agent", &["--config", &agent]).expect(78), &["in use", "process"]);
    // The same HTTP port with another folder.
    let other = agent.replace("agent-1", "agent-2");
    std::fs::write(&other, text.replace("agent-1\"", "agent-2\"")).expect("it can be written");
    contains(&ends("soloist-agent", &["--config", &other]).expect(1), &["cannot listen on", "key http"]);

    let (member, text) = config(&fleet, "coordinator-1.toml");
    fleet.members[0] = None;
    let taken = TcpListener::bind(("127.0.0.1", fleet.grpc[0])).expect("the port is free now");
    let output = ends("soloist-coordinator", &["--config", &member]);
    assert_ne!(output.code, 0);
    contains(&output, &[&fleet.grpc[0].to_string(), "listen"]);
    drop(taken);
    // The data folder of another member.
    std::fs::write(&member, text.replace("id = 1", "id = 2").replace("\n1 = ", "\n2 = "))
        .expect("it can be written");
    let output = ends("soloist-coordinator", &["--config", &member]);
    assert_ne!(output.code, 0);
    contains(&output, &["member 1", "member 2"]);
}

#[test]
fn two_agents_with_one_name() {
    let fleet = Fleet::start(&FleetOptions { members: 1, nodes: 1, ..FleetOptions::default() });
    let (agent, text) = config(&fleet, "agent-1.toml");
    let other = agent.replace("agent-1", "agent-2");
    let text = text
        .replace("agent-1\"", "agent-2\"")
        .replace(&format!("http = \"127.0.0.1:{}\"\n", fleet.agent_http[0]), "");
    std::fs::write(&other, text).expect("it can be written");
    let log = fleet.folder.join("second.log");
    let mut second = Daemon::start(&bin("soloist-agent"), &["--config", &other], &log);
    let status = second.wait(Duration::from_secs(60));
    assert_eq!(status.code(), Some(1), "{}", second.log());
    let text = second.log();
    assert!(
        text.contains("another agent is connected as") && text.contains("each node needs a name of its own"),
        "{text}"
    );
    let first = fleet.agent_status(0).expect("the first agent answers");
    assert_eq!(first["registered"], true, "the first agent goes on: {first}");
}

#[test]
fn an_app_that_never_becomes_healthy() {
    let mut options = FleetOptions { members: 1, nodes: 2, ..FleetOptions::default() };
    options.app_args.extend(["--fail-start".into(), "Validation error".into()]);
    let fleet = Fleet::start(&options);
    let mut start = fleet
        .cli()
        .command(&["start", "--install"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let status = fleet.until("the block", 60, |status| status["current"]["status"] == "blocked");
    let detail = status["current"]["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains("Validation error") && detail.contains("node-1"), "{detail}");
    let choices = status["current"]["choices"].to_string();
    assert!(choices.contains("operation retry") && choices.contains("operation abort"), "{choices}");
    let id = status["current"]["id"].as_str().expect("an operation has an id").to_owned();
    let _ = fleet.cli().run(&["operation", "abort", &id, "--reason", "broken"]).expect(0);
    fleet.until("the free lock", 40, |status| status["lock"]["held"] == false);
    let status = start.wait().expect("it ends");
    assert_eq!(status.code(), Some(1));
}
