//! The witness for operators, on real processes: what agents record agrees with an independent monitor, is proven in words,
//! exported and checked; and it is honest where an agent dies, or somebody starts the app by hand.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use soloist_demo::monitor::{Monitor, MonitorOptions, Process, Recording, Window, is_standin};
use soloist_tests::harness::{Fleet, FleetOptions, Held, Output, bin, until};

fn monitor(fleet: &Fleet) -> Monitor {
    let prefix = format!("{}/", fleet.name);
    let label = move |process: &Process| {
        let node = process.variable("SOLOIST_NODE");
        let node = node.and_then(|value| value.strip_prefix(&prefix).map(ToOwned::to_owned));
        node.unwrap_or_else(|| "elsewhere".to_owned())
    };
    Monitor::start(MonitorOptions::new(is_standin).labelled(label)).expect("the process table can be watched")
}

/// The operation that ended last, with what is proven about it once the agents' last records have come.
fn last(fleet: &Fleet, wanted: &str) -> Value {
    let cli = fleet.cli();
    let list = cli.run(&["operation", "list", "-o", "json"]).expect(0).json();
    let id = list["operations"][0]["id"].as_str().expect("an operation has an id").to_owned();
    let show = || cli.run(&["operation", "show", &id, "-o", "json"]).expect(0).json();
    until(
        "the proof",
        Duration::from_secs(20),
        || show().to_string() + &fleet.logs(),
        || Some(show()).filter(|shown| shown["evidence"]["verdict"] == wanted),
    )
}

fn lines(shown: &Value) -> String {
    let lines = shown["evidence"]["lines"].as_array().into_iter().flatten().filter_map(Value::as_str);
    lines.collect::<Vec<_>>().join("\n")
}

/// Exports an operation's evidence.
fn export(fleet: &Fleet, shown: &Value) -> PathBuf {
    let id = shown["id"].as_str().expect("an operation has an id");
    let file = fleet.folder.join(format!("{id}.json"));
    let _ = fleet.cli().run(&["evidence", id, "--file", &file.to_string_lossy()]).expect(0);
    file
}

/// Checks a file, with no coordinator to ask.
fn check(file: &Path) -> Output {
    let output = Command::new(bin("soloist"))
        .args(["--endpoints", "127.0.0.1:1", "evidence", "check"])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .expect("the command line can be started");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The main processes that an exported file says have run, by node: a process and its start. Both are 0 for a run that began and
/// ended between two looks of its agent, which knows of it from the keeper.
fn exported(file: &Path) -> Vec<(String, u64, u64)> {
    let text = std::fs::read_to_string(file).expect("it was exported");
    let export: Value = serde_json::from_str(&text).expect("it is JSON");
    let chains = export["chains"].as_object().expect("it has chains");
    let began = chains.iter().flat_map(|(node, chain)| {
        let records = chain["records"].as_array().into_iter().flatten();
        let runs = records.filter_map(|record| record["fact"].get("began"));
        runs.map(move |run| {
            let number = |name: &str| run[name].as_u64().expect("a number");
            (node.clone(), number("pid"), number("start_ticks"))
        })
    });
    began.collect()
}

/// Every tree that the monitor saw between two marks is in the file, and every one in the file was seen by the monitor.
fn agrees(recording: &Recording, file: &Path, window: Window) {
    let seen = |interval: &soloist_demo::monitor::Interval| {
        (interval.label.clone(), u64::from(interval.pid), interval.start_ticks)
    };
    let told = exported(file);
    let known: Vec<_> = recording.intervals.iter().map(seen).collect();
    let missed = |node: &str| told.iter().filter(|(other, pid, _)| other == node && *pid == 0).count();
    let unnamed = |node: &str| known.iter().filter(|run| run.0 == node && !told.contains(run)).count();
    for run in told.iter().filter(|run| run.1 != 0) {
        assert!(known.contains(run), "only the agents saw {run:?}\n{known:?}");
    }
    for (node, ..) in told.iter().filter(|run| run.1 == 0) {
        assert!(missed(node) <= unnamed(node), "only the agents saw so many of {node}\n{told:?}\n{known:?}");
    }
    for interval in recording.within(window) {
        let named = told.contains(&seen(interval)) || missed(&interval.label) > 0;
        assert!(named, "only the monitor saw {interval:?}\n{told:?}");
    }
}

fn changed(file: &Path, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let text = std::fs::read_to_string(file).expect("it was exported");
    let mut export: Value = serde_json::from_str(&text).expect("it is JSON");
    change(&mut export);
    let other = file.with_file_name(name);
    std::fs::write(&other, export.to_string()).expect("a file can be written");
    other
}

#[test]
fn operations_are_proven_exported_and_checked_and_what_breaks_the_promise_is_named() {
    let mut fleet = Fleet::start(&FleetOptions::default());
    // From before the first start: then it knows every tree.
    let monitor = monitor(&fleet);
    let _ = fleet.cli().run(&["start", "--install"]).expect(0);
    fleet.until_whole();

    // A holder alone.
    let held = Held::begin(&fleet, "solo", "true");
    let granted = monitor.mark("granted");
    let watched = || (monitor.so_far().duration > granted + Duration::from_secs(1)).then_some(());
    until("a second of it watched", Duration::from_secs(20), || fleet.logs(), watched);
    let alone = Window { from: granted, to: monitor.mark("let go") };
    let said = held.let_go().expect(0).stderr;
    monitor.mark("over");
    assert!(said.contains("only node-1 ran"), "the proof comes with the end: {said}");
    fleet.until_whole();
    let shown = last(&fleet, "proven");
    assert!(lines(&shown).contains("the app is not NocoBase"), "no sessions are claimed: {}", lines(&shown));
    assert!(lines(&shown).contains("clocks to within"), "{}", lines(&shown));
    let solo_file = export(&fleet, &shown);
    let checked = check(&solo_file).expect(0);
    assert!(checked.stdout.contains("verdict: at most one node ran"), "{checked:?}");

    // A file that was changed.
    let gone = changed(&solo_file, "gone.json", |export| {
        let records = export["chains"]["node-2"]["records"].as_array_mut().expect("a chain has records");
        let ended = records.iter().position(|record| record["fact"].get("ended").is_some());
        let _ = records.remove(ended.expect("node-2 was stopped"));
    });
    let refused = check(&gone).expect(1);
    assert!(refused.stdout.contains("TAMPERED: node-2: record"), "{refused:?}");

    // A plugin change.
    let _ = fleet.cli().run(&["plugin", "enable", "@nocobase/plugin-map"]).expect(0);
    fleet.until_whole();
    let shown = last(&fleet, "proven");
    assert!(lines(&shown).contains("only node-1 ran"), "{}", lines(&shown));
    let _ = check(&export(&fleet, &shown)).expect(0);

    // The agent of a stopped node is killed in the middle, and somebody starts the app on another one.
    let held = Held::begin(&fleet, "solo", "true");
    fleet.agents[1] = None;
    let config = std::fs::read_to_string(fleet.folder.join("agent-3.toml")).expect("the agent has one");
    let mut foreign = by_hand(&fleet, &config);
    fleet.until("its discovery", 20, |status| {
        status["nodes"][2]["foreign"].as_array().is_some_and(|found| !found.is_empty())
    });
    let pid = foreign.id();
    foreign.kill().expect("it runs");
    let _ = foreign.wait();
    fleet.start_agent(1);
    // Once something else has run, what comes next may wait for a person.
    drop(held.let_go());
    let shown = last(&fleet, "broken");
    assert!(lines(&shown).contains(&format!("BROKEN: node-3: process {pid} of ")), "{}", lines(&shown));
    assert!(!lines(&shown).contains("BROKEN: node-2"), "{}", lines(&shown));
    let refused = check(&export(&fleet, &shown)).expect(1);
    assert!(refused.stdout.contains(&format!("process {pid}")), "{refused:?}");

    let recording = monitor.stop().only(|interval| interval.label != "elsewhere");
    let window = Window { from: recording.marks[0].at, to: recording.marks[2].at };
    agrees(&recording, &solo_file, window);
    assert_eq!(recording.labels(alone), ["node-1"], "{}", recording.timeline(recording.whole(), 80));
}

/// The stand-in of node-3, as somebody would start it from a shell.
fn by_hand(fleet: &Fleet, config: &str) -> Child {
    let line = config.lines().find(|line| line.starts_with("command = ")).expect("it has a command");
    let argv: Vec<String> = serde_json::from_str(line.trim_start_matches("command = ")).expect("a list");
    let cwd = fleet.folder.join("node-3");
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).current_dir(cwd).env_remove("SOLOIST_NODE");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the stand-in can be started")
}
