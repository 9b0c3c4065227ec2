//! The whole system as real processes with the stand-in app: what must hold whoever is killed.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use soloist_demo::monitor::{Monitor, MonitorOptions, Process, is_standin};
use soloist_tests::harness::{Fleet, FleetOptions, bin, get, head, kill_marked, marked, until};

fn monitor(fleet: &Fleet) -> Monitor {
    let prefix = format!("{}/", fleet.name);
    let label = move |process: &Process| {
        let node = process
            .variable("SOLOIST_NODE")
            .and_then(|value| value.strip_prefix(&prefix).map(ToOwned::to_owned));
        node.unwrap_or_else(|| "elsewhere".to_owned())
    };
    Monitor::start(MonitorOptions::new(is_standin).labelled(label)).expect("the process table can be watched")
}

fn installed(options: &FleetOptions) -> Fleet {
    let fleet = Fleet::start(options);
    let _ = fleet.cli().run(&["start", "--install"]).expect(0);
    fleet.until_whole();
    fleet
}

fn begin(fleet: &Fleet, args: &[&str]) -> Child {
    let mut command = fleet.cli().command(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command line can be started")
}

fn ends_well(command: Child) {
    let output = command.wait_with_output().expect("the command line ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn granted(fleet: &Fleet) -> Value {
    fleet.until("the grant", 30, |status| status["current"]["granted"] == true)
}

fn undamaged(fleet: &Fleet) {
    let damage = std::fs::read_to_string(fleet.folder.join("database.json.damage")).unwrap_or_default();
    assert!(damage.trim().is_empty(), "{damage}");
    assert!(fleet.database()["damage"].as_array().is_none_or(Vec::is_empty), "{}", fleet.database());
}

fn loaded(fleet: &Fleet, at: usize) -> bool {
    get(fleet.apps[at], "/api/map-configuration:get?type=amap").is_some_and(|(status, _)| status != 404)
}

#[test]
fn a_plugin_change_survives_the_death_of_leader_and_agent() {
    // Long enough that nobody looks at the grant when it is over.
    let app_args = ["--start-delay-ms", "600", "--task-delay-ms", "3000"].map(String::from).into();
    let mut fleet = installed(&FleetOptions { app_args, ..FleetOptions::default() });
    let monitor = monitor(&fleet);
    assert_eq!(head(fleet.agent_http[1], "/ready"), Some(200));
    let command = begin(&fleet, &["plugin", "enable", "@nocobase/plugin-map"]);
    let status = granted(&fleet);
    monitor.mark("granted");
    let solo = status["current"]["solo"].as_str().expect("a solo node").to_owned();
    let at: usize = solo.trim_start_matches("node-").parse::<usize>().expect("a number") - 1;
    let leader = fleet.leader();
    fleet.members[leader] = None;
    let before = marked(&fleet.marker(at));
    fleet.agents[at] = None;
    fleet.start_agent(at);
    ends_well(command);
    fleet.until_whole();
    assert_eq!(marked(&fleet.marker(at)), before, "the app of {solo} is the same process");
    assert!((0..3).all(|at| loaded(&fleet, at)), "every node has loaded the plugin");
    undamaged(&fleet);
    let recording = monitor.stop().only(|interval| interval.label != "elsewhere");
    let restart =
        recording.intervals.iter().filter(|interval| interval.label != solo).map(|interval| interval.start);
    let granted = recording.marks[0].at;
    let first = restart.filter(|start| *start > granted).min().expect("the others were started again");
    let window = soloist_demo::monitor::Window { from: granted, to: first - Duration::from_millis(40) };
    assert_eq!(recording.labels(window), [solo.as_str()], "{}", recording.timeline(recording.whole(), 80));
}

#[test]
fn a_killed_app_is_started_again_and_a_killed_keeper_harms_nothing() {
    let mut fleet = installed(&FleetOptions { nodes: 2, ..FleetOptions::default() });
    kill_marked(&fleet.marker(0));
    fleet.until("the app of node-1 gone", 20, |status| status["nodes"][0]["app"] != "serving");
    fleet.until_whole();
    // Without coordinators a crashed app is started again as well: the last assignment says run.
    fleet.members.iter_mut().for_each(|member| *member = None);
    let before = marked(&fleet.marker(1));
    kill_marked(&fleet.marker(1));
    let began = || get(fleet.apps[1], "/api/__health_check").is_some_and(|(status, _)| status == 200);
    until(
        "the restart without coordinators",
        Duration::from_secs(30),
        || fleet.logs(),
        || began().then_some(()),
    );
    assert_ne!(marked(&fleet.marker(1)), before);
    assert_eq!(head(fleet.agent_http[0], "/ready"), Some(200), "a healthy app stays in service");
    undamaged(&fleet);
}

#[test]
fn after_a_power_cut_one_node_serves_before_the_others_start() {
    let mut fleet = installed(&FleetOptions::default());
    let monitor = monitor(&fleet);
    fleet.power_cut();
    monitor.mark("cut");
    for at in 0..3 {
        fleet.start_agent(at);
    }
    // Agents alone start nothing, and say why.
    for at in 0..3 {
        until(
            "an agent's reason",
            Duration::from_secs(20),
            || fleet.logs(),
            || {
                let waiting = fleet.agent_status(at)?["waiting"].as_str()?.to_owned();
                waiting.contains("nothing is started").then_some(())
            },
        );
        assert!(marked(&fleet.marker(at)).is_empty());
    }
    for at in 0..3 {
        fleet.start_member(at);
    }
    fleet.until_whole();
    undamaged(&fleet);
    let recording = monitor.stop().only(|interval| interval.label != "elsewhere");
    let cut = recording.marks[0].at;
    let mut starts: Vec<Duration> =
        recording.intervals.iter().map(|interval| interval.start).filter(|start| *start > cut).collect();
    starts.sort();
    assert_eq!(starts.len(), 3);
    assert!(starts[1] - starts[0] >= Duration::from_millis(500), "the first one served before: {starts:?}");
}

#[test]
fn a_holder_that_dies_leaves_the_fleet_solo_until_a_person_decides() {
    let fleet = installed(&FleetOptions::default());
    let output = fleet.cli().run(&["run", "--solo", "--", "sh", "-c", "echo $SOLOIST_SOLO_NODE; exit 3"]);
    assert_eq!((output.code, output.stdout.trim()), (3, "node-1"), "{output:?}");
    fleet.until_whole();

    let mut job = begin(&fleet, &["run", "--all-stopped", "--reason", "nightly job", "--", "sleep", "120"]);
    let status = fleet.until("the holder at work", 40, |status| {
        status["current"]["waits"].to_string().contains("holder's work")
    });
    let token = status["lock"]["token"].to_string();
    assert_eq!(status["lock"]["reason"], "nightly job");
    job.kill().expect("it runs");
    let _ = job.wait();
    kill_marked(&format!("SOLOIST_FENCING_TOKEN={token}"));
    fleet.until("the lost holder", 30, |status| status["current"]["holder_lost"] == true);
    assert!((0..3).all(|at| marked(&fleet.marker(at)).is_empty()), "nothing runs beside work that may go on");
    let id = status["current"]["id"].as_str().expect("an operation has an id").to_owned();
    let refused = fleet.cli().run(&["operation", "abort", &id, "--reason", "give up"]).expect(77);
    assert!(refused.stderr.contains("may still run"), "{refused:?}");
    let _ = fleet.cli().run(&["lock", "release", "--force", "--reason", "the job is gone"]).expect(0);
    fleet.until_whole();
    undamaged(&fleet);
}

#[test]
fn one_coordinator_alone_is_enough_for_a_small_fleet() {
    let mut fleet = installed(&FleetOptions { members: 1, nodes: 2, ..FleetOptions::default() });
    fleet.members[0].as_mut().expect("it runs").stop();
    fleet.start_member(0);
    fleet.until_whole();
    let _ = fleet.cli().run(&["stop"]).expect(0);
    assert!((0..2).all(|at| marked(&fleet.marker(at)).is_empty()));
    let status = fleet.until("stop evidence", 20, |status| status["nodes"][1]["proven_stopped"] == true);
    assert_eq!(status["desired"], "stop");
    let _ = fleet.cli().run(&["start"]).expect(0);
    fleet.until_whole();
    undamaged(&fleet);
}

#[test]
fn the_demo_ends_with_a_clean_verdict_and_leaves_nothing_behind() {
    let output = std::process::Command::new(bin("soloist"))
        .arg("demo")
        .stdin(Stdio::null())
        .output()
        .expect("the demo can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("while the lock was held for the plugin change: 1 app process, node-1"), "{text}");
}

/// A restart waits for what is under way on each node, and says what its stop cut off.
#[test]
fn a_restart_waits_for_work_and_names_what_it_cut_off() {
    // Each node's work lies in a file of its own folder.
    let work = "work_command = [\"/bin/sh\", \"-c\", \"cat work 2>/dev/null || true\"]\n";
    let options = FleetOptions { nodes: 2, app_keys: work.into(), ..FleetOptions::default() };
    let fleet = installed(&options);
    let file = |at: usize| fleet.folder.join(format!("node-{}/work", at + 1));
    std::fs::write(file(0), "import of orders\n").expect("a file can be written");
    let before = marked(&fleet.marker(0));
    let command = begin(&fleet, &["restart"]);
    let waits = |status: &Value| status["current"]["waits"].to_string().contains("import of orders to end");
    fleet.until("the wait for the import", 20, waits);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(marked(&fleet.marker(0)), before, "it is not stopped under its work");
    // The leader dies, and nothing is lost by that.
    let mut fleet = fleet;
    let leader = fleet.leader();
    fleet.members[leader] = None;
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(marked(&fleet.marker(0)), before);
    fleet.start_member(leader);
    std::fs::remove_file(fleet.folder.join("node-1/work")).expect("a file can be removed");
    let output = command.wait_with_output().expect("the command line ends");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !told.contains("cut off"), "{told}");
    assert_ne!(marked(&fleet.marker(0)), before);
    fleet.until_whole();

    let policy = fleet.folder.join("policy.toml");
    let text = "quiet_timeout = \"1500ms\"\nstart_timeout = \"30s\"\nstop_timeout = \"20s\"\n";
    std::fs::write(&policy, text).expect("a file can be written");
    let _ = fleet.cli().run(&["fleet", "apply", &policy.to_string_lossy()]).expect(0);
    std::fs::write(fleet.folder.join("node-2/work"), "endless export\n").expect("a file can be written");
    let ended = fleet.cli().run(&["restart"]).expect(0);
    assert!(ended.stderr.contains("node-2: still under way: endless export"), "{}", ended.stderr);
    assert!(ended.stderr.contains("node-2: cut off: endless export"), "{}", ended.stderr);
    let events = fleet.cli().run(&["events"]).expect(0).stdout;
    assert!(events.contains("the stop cut off: endless export"), "{events}");
    fleet.until_whole();
    undamaged(&fleet);
}
