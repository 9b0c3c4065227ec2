//! `soloist run`, the real program, against a coordinator that follows a script.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use support::{Fake, Script, TOKEN};

fn command(fake: &Fake, options: &[&str], script: &str) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("soloist"));
    for name in ["SOLOIST_FLEET", "SOLOIST_OUTPUT", "SOLOIST_OPERATION", "SOLOIST_FENCING_TOKEN"] {
        command.env_remove(name);
    }
    command.env("SOLOIST_ENDPOINTS", fake.address.to_string()).args(["run", "--solo"]).args(options);
    command.args(["--", "sh", "-c", script]).stdin(Stdio::null());
    command
}

fn run(fake: &Fake, options: &[&str], script: &str) -> Output {
    command(fake, options, script).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Starts it and waits until its command says that it is `ready`.
fn start(fake: &Fake, script: &str) -> Child {
    let mut child = command(fake, &[], script).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

#[test]
fn the_command_runs_under_the_lock_and_its_status_is_passed_on() {
    let fake = Fake::start(Script::default());
    let output = run(&fake, &["--reason", "try"], "env | grep ^SOLOIST_ | sort; exit 7");
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    let seen = fake.seen();
    let operation = &seen.submitted[0].operation;
    let expected = [
        "SOLOIST_FENCING_TOKEN=41".to_owned(),
        "SOLOIST_FLEET=shop".to_owned(),
        "SOLOIST_LEASE_DEADLINE=".to_owned(),
        format!("SOLOIST_OPERATION={operation}"),
        "SOLOIST_SOLO_NODE=node-1".to_owned(),
    ];
    let all = text(&output);
    for line in expected {
        assert!(all.contains(&line), "{line} in {all}");
    }
    assert_eq!(seen.released.as_deref(), Some("exit status 7"));
    let submission = seen.submitted[0].submission.clone().unwrap();
    assert!(submission.by.contains('@') && submission.reason == "try");
}

#[test]
fn a_command_that_does_not_exist_asks_for_nothing() {
    let fake = Fake::start(Script::default());
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("soloist"));
    command.env("SOLOIST_ENDPOINTS", fake.address.to_string());
    let output = command.args(["run", "--solo", "--", "no-such-command"]).output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(fake.seen().submitted.is_empty());
}

#[test]
fn signals_are_passed_on_and_the_lock_is_released() {
    let fake = Fake::start(Script::default());
    let mut child = start(&fake, "trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done");
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(9));
    let mut child = start(&fake, "echo ready; exec sleep 60");
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(fake.seen().released.as_deref(), Some("ended by signal 15"));
}

#[test]
fn the_lease_is_renewed_while_the_command_runs() {
    let fake = Fake::start(Script { lease_ms: 3000, ..Script::default() });
    let output = run(&fake, &[], "sleep 5");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!((4..=8).contains(&fake.seen().renewals), "{}", fake.seen().renewals);
}

#[test]
fn a_refused_renewal_stops_the_command() {
    let fake = Fake::start(Script { lease_ms: 1200, renewals_max: 2, ..Script::default() });
    let output = run(&fake, &[], "trap '' TERM; sleep 60 & wait; sleep 60");
    assert_eq!(output.status.code(), Some(76), "{}", text(&output));
    assert!(text(&output).contains("the lock was lost"), "{}", text(&output));
    assert!(fake.seen().released.unwrap().contains("stopped"));
}

#[test]
fn a_command_whose_lease_cannot_be_renewed_is_stopped_before_it_ends() {
    let fake =
        Fake::start(Script { lease_ms: 3000, renewals_max: 1, renewals_hang: true, ..Script::default() });
    let folder = tempfile::tempdir().unwrap();
    let (deadline, tick) = (folder.path().join("deadline"), folder.path().join("tick"));
    // It tells the end of its lease, and how long it lived, by the same clock.
    let script = format!(
        "echo $SOLOIST_LEASE_DEADLINE > {}; while :; do touch {}; sleep 0.02; done",
        deadline.display(),
        tick.display()
    );
    let output = run(&fake, &[], &script);
    assert_eq!(output.status.code(), Some(76), "{}", text(&output));
    let seconds: u64 = std::fs::read_to_string(deadline).unwrap().trim().parse().unwrap();
    let lived = std::fs::metadata(tick).unwrap().modified().unwrap();
    // The deadline is told in whole seconds.
    let end = std::time::UNIX_EPOCH + Duration::from_secs(seconds + 1);
    assert!(lived < end, "it lived until {lived:?}, its lease until {end:?}");
}

#[test]
fn an_abort_by_somebody_stops_the_command() {
    let fake = Fake::start(Script { aborts: true, ..Script::default() });
    let output = run(&fake, &[], "sleep 60");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("by somebody: enough"), "{}", text(&output));
    assert!(fake.seen().released.is_some());
}

#[test]
fn an_interrupt_before_the_grant_aborts_the_operation() {
    let fake = Fake::start(Script { grants: false, ..Script::default() });
    let mut child = command(&fake, &[], "true").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("waits for node-2: its stop")));
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(fake.seen().aborted.as_deref(), Some("interrupted by its client"));
}

#[test]
fn not_granted_in_time_is_75_and_says_what_it_waited_for() {
    let ends = "not granted in time: stop node-2".to_owned();
    let fake = Fake::start(Script { grants: false, ..Script::default() });
    let mut child = command(&fake, &["--wait", "1s"], "true").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(|line| line.unwrap());
    assert!(lines.any(|line| line.contains("waits for node-2: its stop")));
    fake.set(|script| script.ends_with = Some(ends));
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(75), "{rest:?}");
    let told =
        |line: &String| line.contains("not granted in time: stop node-2; it waited for: node-2: its stop");
    assert!(rest.iter().any(told), "{rest:?}");
    assert_eq!(fake.seen().submitted[0].submission.clone().unwrap().wait_ms, Some(1000));
}

#[test]
fn inside_a_holder_the_outer_lock_is_used_and_others_are_refused() {
    let fake = Fake::start(Script::default());
    let soloist = assert_cmd::cargo::cargo_bin("soloist").display().to_string();
    let output = run(
        &fake,
        &[],
        &format!("{soloist} run --solo -- sh -c 'echo token $SOLOIST_FENCING_TOKEN; exit 5'"),
    );
    assert_eq!(output.status.code(), Some(5), "{}", text(&output));
    assert!(text(&output).contains(&format!("token {TOKEN}")), "{}", text(&output));
    assert_eq!(fake.seen().submitted.len(), 1);
    let output = run(&fake, &[], &format!("{soloist} stop"));
    assert_eq!(output.status.code(), Some(77), "{}", text(&output));
    assert!(text(&output).contains("would wait for itself"), "{}", text(&output));
    let output = run(&fake, &[], &format!("{soloist} run --all-stopped -- true"));
    assert_eq!(output.status.code(), Some(77), "{}", text(&output));
}

#[test]
fn a_lock_that_is_no_longer_held_is_not_used() {
    let fake = Fake::start(Script::default());
    let output = command(&fake, &[], "true")
        .env("SOLOIST_FLEET", "shop")
        .env("SOLOIST_OPERATION", "old")
        .env("SOLOIST_FENCING_TOKEN", "3")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(76), "{}", text(&output));
    assert!(fake.seen().submitted.is_empty());
}
