//! Upgrades and the way back, the real program.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::{process::Output, time::Duration};

use assert_cmd::Command;
use soloist_proto::v1::{self, request::Request as Kind};
use support::{Fake, Script};

fn with(fake: &Fake, arguments: &[&str]) -> Output {
    let mut command = Command::cargo_bin("soloist").unwrap();
    for name in ["SOLOIST_FLEET", "SOLOIST_OUTPUT", "SOLOIST_OPERATION", "SOLOIST_FENCING_TOKEN"] {
        command.env_remove(name);
    }
    command.env("SOLOIST_ENDPOINTS", fake.address.to_string()).env("TZ", "UTC");
    command.args(arguments).timeout(Duration::from_secs(30)).output().unwrap()
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

/// What was asked for last.
fn asked(fake: &Fake) -> Kind {
    fake.seen().submitted.pop().unwrap().request.unwrap().request.unwrap()
}

fn upgrade(status: &str, ended: bool) -> v1::OperationView {
    v1::OperationView {
        id: "backup-1".into(),
        request: "upgrade --to 2.2.16".into(),
        status: status.into(),
        ended,
        attempt: 1,
        ..v1::OperationView::default()
    }
}

fn showing(shown: v1::OperationView) -> Fake {
    Fake::start(Script { shown: Some(shown), ..Script::default() })
}

#[test]
fn requests_have_what_was_said() {
    let fake = Fake::start(Script::default());
    let detached = with(&fake, &["upgrade", "--to", "v2.2.16", "--on", "node-2", "--approve", "--detach"]);
    assert!(stdout(&detached).starts_with("upgrade-"), "{}", stderr(&detached));
    let on = Some("node-2".into());
    assert_eq!(asked(&fake), Kind::Upgrade(v1::Upgrade { to: "2.2.16".into(), on, approve: true }));
    assert_eq!(code(&with(&fake, &["upgrade", "--to", "2.2.16", "--on", "node-9"])), 77);
    let detached = with(&fake, &["upgrade", "prepare", "--to", "2.2.16", "--detach"]);
    assert!(stdout(&detached).starts_with("prepare-"), "{}", stderr(&detached));
    assert_eq!(asked(&fake), Kind::Prepare(v1::Prepare { to: "2.2.16".into() }));
    with(&fake, &["verify", "--detach"]);
    assert_eq!(asked(&fake), Kind::Verify(v1::Verify {}));
    for plan in [&["upgrade", "--to", "2.2.16"][..], &["upgrade", "prepare", "--to", "2"], &["verify"]] {
        let planned = with(&fake, &[&["plan"], plan].concat());
        assert_eq!(code(&planned), 0, "{}", stderr(&planned));
    }
}

#[test]
fn an_upgrade_to_what_is_there_is_done_at_once() {
    let fake = showing(upgrade("succeeded", true));
    let done = with(&fake, &["upgrade", "--to", "2.2.16"]);
    assert_eq!(code(&done), 0);
    assert!(stderr(&done).contains("fleet shop has version 2.2.16 already"), "{}", stderr(&done));
}

#[test]
fn an_upgrade_that_went_back_is_1_and_tells_its_outage() {
    let part = v1::OutagePart { step: "stop node-1, node-2".into(), took_ms: 12_000 };
    let outage = v1::OutageView {
        took_ms: 12_000,
        over: true,
        parts: vec![part],
        users_saw: "nothing answered".into(),
    };
    let detail = "the app on node-1 failed".into();
    let fake = showing(v1::OperationView { outage: Some(outage), detail, ..upgrade("rolled_back", true) });
    let done = with(&fake, &["upgrade", "--to", "2.2.16"]);
    assert_eq!(code(&done), 1);
    let text = stderr(&done);
    for part in [
        "outage: no node for users for 12.0 s\n",
        "12.0 s  stop node-1, node-2\n",
        "users saw: nothing answered\n",
        "error: upgrade --to 2.2.16 was rolled back, and the old version runs again: the app on node-1 failed\n",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn what_waits_for_approval_is_not_followed() {
    let choices = vec!["go on: soloist operation approve upgrade-1".into()];
    let (cause, detail) = ("approval".into(), "a person must approve".into());
    let fake = showing(v1::OperationView { cause, detail, choices, ..upgrade("blocked", false) });
    // The time for a blocked operation is longer than this test may take.
    let left = with(&fake, &["upgrade", "--to", "2.2.16", "--approve", "--blocked-timeout", "1h"]);
    assert_eq!(code(&left), 1);
    let text = stderr(&left);
    assert!(text.contains("a person must approve; the operation keeps the lock"), "{text}");
    assert!(text.contains("hint: go on: soloist operation approve"), "{text}");
}

#[test]
fn an_older_version_comes_back_with_a_backup_only() {
    let fake = Fake::start(Script { version: Some("2.2.16".into()), ..Script::default() });
    let refused = with(&fake, &["upgrade", "--to", "2.2.15"]);
    assert_eq!(code(&refused), 77);
    assert!(stderr(&refused).contains("--to 2.2.15 --allow-downgrade"), "{}", stderr(&refused));
    let none = with(&fake, &["upgrade", "--to", "2.2.14", "--allow-downgrade"]);
    assert_eq!(code(&none), 77);
    assert!(stderr(&none).contains("no backup of version 2.2.14, and a database cannot go back without one"));
    let asks = with(&fake, &["upgrade", "--to", "2.2.15", "--allow-downgrade"]);
    assert_eq!(code(&asks), 64);
    let text = stderr(&asks);
    assert!(text.contains("the code goes back to 2.2.15") && text.contains("--confirm backup-1"), "{text}");
    assert!(fake.seen().submitted.is_empty());
    let options = ["--allow-downgrade", "--confirm", "backup-1", "--detach"];
    let back = with(&fake, &[&["upgrade", "--to", "2.2.15"], &options[..]].concat());
    assert!(stdout(&back).starts_with("rollback-"), "{}", stderr(&back));
    assert_eq!(asked(&fake), Kind::Restore(v1::Restore { backup: "backup-1".into(), code: true }));
}

#[test]
fn a_rollback_goes_to_the_backup_of_the_last_upgrade() {
    let fake = showing(upgrade("succeeded", true));
    let asks = with(&fake, &["rollback"]);
    assert_eq!(code(&asks), 64);
    let lost = "everything written since 2023-11-14 22:13:20 will be lost";
    assert!(stderr(&asks).contains(lost), "{}", stderr(&asks));
    let back = with(&fake, &["rollback", "--confirm", "backup-1", "--detach"]);
    assert!(stdout(&back).starts_with("rollback-"), "{}", stderr(&back));
    assert_eq!(asked(&fake), Kind::Restore(v1::Restore { backup: "backup-1".into(), code: true }));
    let named = with(&fake, &["rollback", "backup-1", "--confirm", "backup-2"]);
    assert_eq!(code(&named), 64, "{}", stderr(&named));
    let none = with(&Fake::start(Script::default()), &["rollback"]);
    assert_eq!(code(&none), 77);
    assert!(stderr(&none).contains("no upgrade is remembered"), "{}", stderr(&none));
}

#[test]
fn decisions_are_passed_on_and_lost_writes_are_confirmed() {
    let since = Some(1_700_000_000_000);
    let fake = showing(v1::OperationView { writes_since_wall_ms: since, ..upgrade("blocked", false) });
    assert_eq!(code(&with(&fake, &["operation", "approve", "backup-1"])), 0);
    assert_eq!(code(&with(&fake, &["operation", "reject", "backup-1", "--reason", "slow"])), 0);
    assert_eq!(code(&with(&fake, &["operation", "rollback", "backup-1"])), 0);
    let asks = with(&fake, &["operation", "rollback", "backup-1", "--lose-writes"]);
    assert_eq!(code(&asks), 64);
    let text = stderr(&asks);
    assert!(text.contains("everything that users wrote since 2023-11-14 22:13:20 will be lost"), "{text}");
    assert_eq!(fake.seen().decided.len(), 3);
    let confirmed =
        with(&fake, &["operation", "rollback", "backup-1", "--lose-writes", "--confirm", "backup-1"]);
    assert_eq!(code(&confirmed), 0, "{}", stderr(&confirmed));
    let decided = fake.seen().decided;
    let decisions: Vec<_> = decided.iter().map(|request| request.decision.unwrap()).collect();
    let of = |kind: v1::decision::Kind, lose_writes| v1::Decision { kind: kind.into(), lose_writes };
    assert_eq!(
        decisions,
        [
            of(v1::decision::Kind::Approve, false),
            of(v1::decision::Kind::Reject, false),
            of(v1::decision::Kind::Rollback, false),
            of(v1::decision::Kind::Rollback, true),
        ]
    );
    assert_eq!((decided[1].reason.as_str(), decided[1].operation.as_str()), ("slow", "backup-1"));
}

#[test]
fn a_policy_is_shown_edited_and_applied() {
    let fake = Fake::start(Script::default());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.toml");
    let file = path.to_str().unwrap();
    let shown = stdout(&with(&fake, &["fleet", "show"]));
    assert!(shown.starts_with("# The policy of fleet shop, version 4."), "{shown}");
    std::fs::write(&path, &shown).unwrap();
    let same = with(&fake, &["fleet", "apply", file]);
    assert_eq!((code(&same), stdout(&same).as_str()), (0, "nothing to change\n"), "{}", stderr(&same));

    std::fs::write(&path, shown.replace("start_timeout = \"10m\"", "start_timeout = \"5m\"")).unwrap();
    let change = "start_timeout: 10 min -> 5 min";
    let dry = with(&fake, &["fleet", "apply", file, "--dry-run"]);
    assert_eq!((code(&dry), stdout(&dry)), (0, format!("{change}\n")));
    assert!(fake.seen().set.is_empty());
    let applied = with(&fake, &["fleet", "apply", file, "--reason", "faster", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&applied)).unwrap();
    assert_eq!((&json["applied"], &json["version"]), (&true.into(), &5.into()), "{}", stderr(&applied));
    let set = fake.seen().set.pop().unwrap();
    assert_eq!((set.seen, set.reason.as_str(), set.changes), (4, "faster", vec![change.to_owned()]));
    assert_eq!(set.policy.unwrap().start_timeout_ms, 300_000);

    std::fs::write(&path, "leese = \"30s\"\n").unwrap();
    let wrong = with(&fake, &["fleet", "apply", file]);
    assert_eq!(code(&wrong), 64);
    let text = format!("{file}:1: there is no key \"leese\" here\nhint: did you mean lease?\n");
    assert!(stderr(&wrong).contains(&text), "{}", stderr(&wrong));
    assert_eq!(code(&with(&fake, &["fleet", "apply", "no/such/file"])), 64);
    let table = stdout(&with(&fake, &["fleet", "show", "-o", "table"]));
    let line = table.lines().find_map(|line| line.strip_prefix("start_timeout "));
    assert!(line.is_some_and(|line| line.trim_start().starts_with("5 min ")), "{table}");
    let json = stdout(&with(&fake, &["fleet", "show", "-o", "json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["start_timeout"], 300_000);
}
