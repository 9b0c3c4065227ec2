//! The real program: exit codes and messages.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::{process::Output, time::Duration};

use assert_cmd::Command;
use support::{Fake, Script};

fn soloist(arguments: &[&str]) -> Output {
    let mut command = Command::cargo_bin("soloist").unwrap();
    for name in
        ["SOLOIST_ENDPOINTS", "SOLOIST_FLEET", "SOLOIST_OUTPUT", "SOLOIST_OPERATION", "SOLOIST_FENCING_TOKEN"]
    {
        command.env_remove(name);
    }
    command.args(arguments).timeout(Duration::from_secs(30)).output().unwrap()
}

fn with(fake: &Fake, arguments: &[&str]) -> Output {
    let endpoint = fake.address.to_string();
    soloist(&[&["--endpoints", &endpoint], arguments].concat())
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_wrong_command_line_is_64() {
    for wrong in [
        &["statsu"][..],
        &["run", "--solo"],
        &["run", "--", "ls"],
        &["run", "--solo", "--all-stopped", "--", "ls"],
        &["--fleet", "Not A Name", "status"],
        &["lock", "release", "--reason", "x"],
        &["lock", "release", "--force"],
        &["start", "--wait", "soon"],
        &["upgrade"],
        &["upgrade", "prepare"],
        &["upgrade", "--to", "2.2.16", "prepare", "--to", "2.2.16"],
        &["upgrade", "--to", "2.2.16", "--confirm", "backup-1"],
        &["plan", "upgrade"],
        &["operation", "rollback", "upgrade-1", "--confirm", "upgrade-1"],
        &["status", "-o", "toml"],
        &["--endpoints", "nonsense", "status"],
        &[],
    ] {
        let output = soloist(wrong);
        assert_eq!(code(&output), 64, "{wrong:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty() && stdout(&output).is_empty(), "{wrong:?}");
    }
    assert_eq!(code(&soloist(&["--help"])), 0);
    assert_eq!(code(&soloist(&["--version"])), 0);
}

#[test]
fn endpoints_that_nobody_serves_are_named_with_their_errors() {
    // Ports that were just free.
    let closed = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (one, other) = (closed(), closed());
    let output = soloist(&["--endpoints", &format!("{one},{other}"), "status"]);
    assert_eq!(code(&output), 69);
    assert_eq!(
        stderr(&output),
        format!(
            "error: no coordinator answers\n  {one}: Connection refused (os error 111)\n  {other}: Connection refused (os error \
             111)\nhint: name the coordinators with --endpoints host:port,... or SOLOIST_ENDPOINTS\n"
        )
    );
}

#[test]
fn an_endpoint_that_answers_is_found_behind_one_that_does_not() {
    let fake = Fake::start(Script::default());
    let endpoints = format!("127.0.0.1:1,{}", fake.address);
    let output = soloist(&["--endpoints", &endpoints, "lock", "status"]);
    assert_eq!((code(&output), stdout(&output).as_str()), (0, "free\n"), "{}", stderr(&output));
}

#[test]
fn names_that_do_not_exist_come_with_what_was_meant() {
    let fake = Fake::start(Script::default());
    let output = with(&fake, &["--fleet", "shpo", "status"]);
    assert_eq!(code(&output), 77);
    assert_eq!(
        stderr(&output),
        "error: there is no fleet \"shpo\"\nhint: known fleets: shop; choose one with --fleet\nhint: did you mean shop?\n"
    );
    let output = with(&fake, &["node", "show", "nod-1"]);
    assert_eq!(code(&output), 77);
    assert!(stderr(&output).contains("did you mean node-1?"), "{}", stderr(&output));
    let output = with(&fake, &["plugin", "enable", "mapp"]);
    assert_eq!(code(&output), 77);
    assert!(stderr(&output).contains("did you mean @nocobase/plugin-map?"), "{}", stderr(&output));
    let output = with(&fake, &["run", "--solo", "--on", "node-9", "--", "true"]);
    assert_eq!(code(&output), 77);
    let output = with(&fake, &["operation", "show", "nope"]);
    assert_eq!(code(&output), 77);
    assert!(fake.seen().submitted.is_empty());
}

#[test]
fn data_is_on_stdout_in_the_format_that_was_asked_for() {
    let fake = Fake::start(Script::default());
    let plugins = stdout(&with(&fake, &["plugin", "list"]));
    assert_eq!(
        plugins,
        "NAME   PACKAGE                 node-1   node-2\n\
         map    @nocobase/plugin-map    -        ?\n\
         users  @nocobase/plugin-users  enabled  ?\n"
    );
    let plan = with(&fake, &["plan", "plugin", "enable", "map"]);
    let expected = "\
#  STEP                  WAITS FOR  TAKES
1  reach node-1, node-2  an answer  1.3 s
2  grant                 an answer  -

about 1.3 s for 1 of 2 steps, by the last times here
";
    assert_eq!(stdout(&plan), expected, "{}", stderr(&plan));
    let plan = stdout(&with(&fake, &["plan", "verify", "-o", "json"]));
    let json: serde_json::Value = serde_json::from_str(&plan).unwrap();
    assert_eq!((&json["known"], &json["steps"][1]["expected"]), (&1300.into(), &serde_json::Value::Null));
    let status = stdout(&with(&fake, &["status", "-o", "json"]));
    let json: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!((&json["fleet"], &json["freshness"]["stale"]), (&"shop".into(), &false.into()));
    let events = stdout(&with(&fake, &["events", "-o", "json"]));
    let indices: Vec<u64> = events
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["index"].as_u64().unwrap())
        .collect();
    assert_eq!(indices, [1, 2]);
    let detached = with(&fake, &["stop", "--detach"]);
    assert!(stdout(&detached).starts_with("stop-"), "{}", stderr(&detached));
    assert_eq!(stdout(&detached).trim(), fake.seen().submitted[0].operation);
}

#[test]
fn a_restore_is_confirmed_with_the_backups_name() {
    let fake = Fake::start(Script::default());
    let list = stdout(&with(&fake, &["backup", "list"]));
    assert!(list.contains("backup-1  node-1") && list.contains("34.1 MiB"), "{list}");
    let unknown = with(&fake, &["restore", "bakup-1"]);
    assert_eq!(code(&unknown), 77);
    assert!(stderr(&unknown).contains("did you mean backup-1?"), "{}", stderr(&unknown));
    let asked = with(&fake, &["restore", "backup-1"]);
    assert_eq!(code(&asked), 64);
    let text = stderr(&asked);
    assert!(text.contains("will be lost") && text.contains("--confirm backup-1"), "{text}");
    let wrong = with(&fake, &["restore", "backup-1", "--confirm", "backup-2"]);
    assert_eq!(code(&wrong), 64, "{}", stderr(&wrong));
    assert_eq!(code(&with(&fake, &["restore", "--accept-database"])), 64, "a reason is needed");
    assert!(fake.seen().submitted.is_empty());
    let right = with(&fake, &["restore", "backup-1", "--confirm", "backup-1", "--detach"]);
    assert!(stdout(&right).starts_with("restore-"), "{}", stderr(&right));
    let accepted = with(&fake, &["restore", "--accept-database", "--reason", "mended by hand", "--detach"]);
    assert!(stdout(&accepted).starts_with("accept-"), "{}", stderr(&accepted));
}

#[test]
fn preflight_names_differences_and_fails_only_for_problems() {
    let fake = Fake::start(Script::default());
    let output = with(&fake, &["preflight"]);
    assert_eq!((code(&output), stdout(&output).as_str()), (0, "all 2 nodes agree on 2 checks\n"));
    let fake = Fake::start(Script { differs: true, ..Script::default() });
    let output = with(&fake, &["preflight"]);
    assert_eq!((code(&output), stderr(&output).as_str()), (1, "error: there is a problem\n"));
    assert_eq!(
        stdout(&output),
        "SEVERITY  CHECK     NODES   WHAT\n\
         PROBLEM   settings  node-2  TZ differs\n\
         \x20                             -> make it the same\n\
         \n2 nodes, 2 checks: 1 problem, 0 warnings\n"
    );
    let output = with(&fake, &["preflight", "-o", "json"]);
    assert_eq!(code(&output), 1);
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(json["findings"][0]["severity"], "problem");
    assert_eq!(
        (&json["nodes"][0]["told"]["age"], &json["nodes"][1]["told"]),
        (&0.into(), &serde_json::Value::Null)
    );
}
