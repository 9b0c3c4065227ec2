//! Upgrades of the real thing when something else fails.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use soloist_tests::harness::{Output, head};

use crate::releases::{GOOD, STATEMENT, time};
use crate::upgrades::{READY, begin, migrated_alone, one_migrated};
use crate::world::{NODES, VERSION, World, wait, wall_ms};

/// In place of `pg_dump`: says that it went well, and has written three quarters: the list at the beginning is whole.
const CUT: &str = r#"#!/bin/sh
PATH=${PATH#*:}
case " $* " in
*' -Fc '*)
    whole=$(mktemp)
    pg_dump "$@" >"$whole"
    head -c $(($(stat -c %s "$whole") * 3 / 4)) "$whole"
    rm "$whole"
    ;;
*) exec pg_dump "$@" ;;
esac
"#;

/// The backup is damaged: nothing is upgraded, and the old version is back in service.
pub(crate) fn damaged_backup(world: &mut World) {
    let from = begin(world, READY);
    let before = world.backups();
    let output = with_damaged_backups(world, &["upgrade", "--to", GOOD, "--on", "node-1"]).expect(1);
    assert!(output.stderr.contains("damaged"), "{}", output.stderr);
    world.is_back("before");
    let operation = world.last_operation();
    assert_eq!(operation["status"], "rolled_back", "{operation}");
    assert_eq!(world.backups(), before, "what is damaged is no backup");
    one_migrated(world, from, "being ended early", 0);
}

/// Runs a command while the program that dumps the database leaves half of it out.
pub(crate) fn with_damaged_backups(world: &World, args: &[&str]) -> Output {
    let program = world.lab.join("bin/pg_dump");
    std::fs::create_dir_all(world.lab.join("bin")).expect("the lab can be written");
    std::fs::write(&program, CUT).expect("the lab can be written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("a mode can be set");
    let output = world.cli.run(args);
    std::fs::remove_file(&program).expect("it was written a moment ago");
    output
}

/// No backup can be made: nothing is stopped, and it is said why.
pub(crate) fn no_backup(world: &mut World) {
    let _ = begin(world, READY);
    let before: Vec<_> = (0..NODES).map(|at| world.app_pids(at)).collect();
    let refused = |world: &mut World, path: &str, why: &str| {
        drop(world.agents[0].take());
        world.start_agent_in(0, path);
        world.until_whole();
        let output = world.cli.run(&["upgrade", "--to", GOOD, "--on", "node-1"]).expect(1);
        assert!(output.stderr.contains("node-1") && output.stderr.contains(why), "{}", output.stderr);
        let operation = world.last_operation();
        assert_eq!(operation["status"], "aborted", "{operation}");
        assert!(operation["outage"].is_null(), "nobody was kept out: {operation}");
    };
    // All programs that there are, but one.
    let all = std::env::var("PATH").expect("the test has a PATH");
    let without = world.lab.join("without-pg_dump");
    std::fs::create_dir_all(&without).expect("the lab can be written");
    for program in std::env::split_paths(&all).filter_map(|folder| folder.read_dir().ok()).flatten().flatten()
    {
        let name = program.file_name();
        if name != "pg_dump" && !without.join(&name).exists() {
            std::os::unix::fs::symlink(program.path(), without.join(name)).expect("the lab can be written");
        }
    }
    refused(world, &without.to_string_lossy(), "pg_dump is not installed on this node");

    let tiny = Tiny::mount(world.lab.join("data/agent-1/backups"));
    refused(world, &all, "needs about");
    drop(tiny);

    drop(world.agents[0].take());
    world.start_agent(0);
    world.serves(VERSION);
    let after: Vec<_> = (0..NODES).map(|at| world.app_pids(at)).collect();
    assert_eq!(after, before, "nothing was started anew");
}

/// A disk that is too small for a backup.
struct Tiny(PathBuf);

impl Tiny {
    fn mount(at: PathBuf) -> Self {
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tiny"]).arg(&at).status();
        assert!(mount.is_ok_and(|status| status.success()), "{} can be mounted on", at.display());
        Self(at)
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        // Whoever is in it at this moment does not keep it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// The power fails while the database is migrated: the fleet ends on one version, with its rows.
pub(crate) fn power_cut(world: &mut World) {
    let from = begin(world, READY);
    let _ = world.cli.run(&["upgrade", "--to", GOOD, "--on", "node-1", "--detach"]).expect(0);
    world.until_migrating();
    world.power_cut();
    world.start_members(&[0, 1, 2]);
    (0..NODES).for_each(|at| world.start_agent(at));
    world.leader();
    let id = world.last_operation()["id"].as_str().expect("an operation has an id").to_owned();
    let operation = world.until_ended(&id);
    let alone = match operation["status"].as_str() {
        Some("rolled_back") => "being ended early",
        Some("succeeded") => "done: verify on node-1",
        _ => panic!("{operation}"),
    };
    let mut seen = world.seen();
    // The database goes on with the statement of a process that was killed.
    seen.tolerance.linger += STATEMENT;
    migrated_alone(world, &seen, from, alone, 1);
    if operation["status"] == "succeeded" {
        world.serves(GOOD);
        let _ = world.cli.run(&["rollback", &id, "--confirm", &id]).expect(0);
    }
    world.is_back("before");
}

/// A later node fails when users may have written already: a person decides.
pub(crate) fn writes_at_stake(world: &mut World) {
    let from = begin(world, READY);
    let command = world
        .cli
        .command(&["upgrade", "--to", GOOD, "--on", "node-1", "--blocked-timeout", "1s"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let down = || head(world.agent_port(0), "/ready") == Some(503);
    wait("the outage", 60, down);
    // Every node has said by now that it has the release.
    let releases = world.lab.join("nodes/node-2/releases");
    let (release, away) = (releases.join(GOOD), releases.join("away"));
    std::fs::rename(&release, &away).expect("the lab can be written");
    wait("users let in", 120, || !down());
    world.write("by a user");
    let written = wall_ms();
    let output = command.wait_with_output().expect("the command line ends");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("users may have written") && stderr.contains("--lose-writes"), "{stderr}");
    let operation = world.last_operation();
    assert_eq!(
        (&operation["status"], &operation["cause"]),
        (&"blocked".into(), &"writes_at_stake".into()),
        "{operation}"
    );
    let since = operation["writes_since_wall_ms"].as_u64().expect("since when users may have written");
    assert!(since >= time(world, from, "done: verify on node-1") && since <= written, "{since}, {written}");
    assert_eq!(world.words(), "before,by a user");
    assert_eq!(head(world.agent_port(0), "/ready"), Some(200), "what was verified stays in service");

    let id = operation["id"].as_str().expect("an operation has an id");
    let kept = world.cli.run(&["operation", "rollback", id]);
    assert!(kept.code == 77 && kept.stderr.contains("--lose-writes"), "{kept:?}");
    let unconfirmed = world.cli.run(&["operation", "rollback", id, "--lose-writes"]);
    assert!(unconfirmed.code == 64 && unconfirmed.stderr.contains("will be lost"), "{unconfirmed:?}");
    std::fs::rename(&away, &release).expect("the lab can be written");
    let decided = ["operation", "rollback", id, "--lose-writes", "--confirm", id, "--reason", "it is bad"];
    let _ = world.cli.run(&decided).expect(0);
    let operation = world.until_ended(id);
    assert_eq!(operation["status"], "rolled_back", "{operation}");
    world.is_back("before");
    one_migrated(world, from, "done: verify on node-1", 1);
    // For what follows: the policy as the coordinators have it by themselves.
    world.policy("");
    assert_eq!(world.sql("nocobase", "select value from \"applicationVersion\""), VERSION);
}
