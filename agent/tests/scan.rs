//! Looking for processes, with real ones.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use soloist_agent::host::{
    AppPattern, DatabaseAddress, Marker, Scan, ScanQuery, scan, scan_marked, scan_twice, tree,
};
use soloist_core::ids::{FleetId, NodeId, Token};
use support::until;

/// Kills what a test started.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Place {
    temp: tempfile::TempDir,
    query: ScanQuery,
}

impl Place {
    fn new(fleet: &str) -> Self {
        let fleet = FleetId::new(format!("{fleet}-{}", std::process::id())).unwrap();
        let temp = tempfile::tempdir().unwrap();
        let database =
            DatabaseAddress { host: "db".into(), port: "5432".into(), database: fleet.to_string() };
        let app = AppPattern::NocoBase {
            app_folders: vec![temp.path().canonicalize().unwrap()],
            database: Some(database),
        };
        let marker = Marker::new(&fleet, &NodeId::new("n1").unwrap());
        Self { temp, query: ScanQuery { fleet, marker, app } }
    }

    /// A sleeping process that looks as asked. The name becomes its first argument.
    fn process(&self, argv0: &str, inside: bool, env: &[(&str, &str)]) -> Guard {
        let mut command = Command::new("/bin/sh");
        // A builtin that waits for its input: no child that a kill would leave behind.
        command
            .arg0(argv0)
            .arg("-c")
            .arg("read x")
            .stdin(Stdio::piped())
            .env_clear()
            .env("PATH", "/usr/bin:/bin");
        command.envs(env.iter().copied()).current_dir(if inside { self.temp.path() } else { "/".as_ref() });
        Guard(command.spawn().unwrap())
    }

    fn scan(&self) -> Scan {
        scan(&self.query).unwrap()
    }

    fn foreign(&self) -> Vec<u32> {
        self.scan().foreign.iter().map(|foreign| foreign.pid).collect()
    }
}

#[tokio::test]
async fn tells_own_foreign_and_holders_apart() {
    let place = Place::new("scan-kinds");
    let fleet = place.query.fleet.to_string();
    let own_value = format!("{fleet}/n1");
    let other_value = format!("{fleet}/n10");
    let own = place.process("pm2-runtime", true, &[("SOLOIST_NODE", &own_value)]);
    let sibling = place.process("pm2-runtime", true, &[("SOLOIST_NODE", &other_value)]);
    let foreign = place.process("pm2-runtime", true, &[]);
    let elsewhere = place.process("pm2-runtime", false, &[]);
    let database = [("DB_HOST", "db"), ("DB_PORT", "5432"), ("DB_DATABASE", fleet.as_str())];
    let same_database = place.process("pm2-runtime", false, &database);
    let holder =
        place.process("pm2-runtime", true, &[("SOLOIST_FLEET", &fleet), ("SOLOIST_FENCING_TOKEN", "42")]);
    let other_fleet = place.process("pm2-runtime", true, &[("SOLOIST_NODE", "other/n1")]);

    let mut expected = vec![foreign.0.id(), same_database.0.id(), other_fleet.0.id()];
    expected.sort_unstable();
    until(|| {
        let mut found = place.foreign();
        found.sort_unstable();
        (found == expected).then_some(())
    })
    .await;
    let found = place.scan();
    assert_eq!(found.marked.iter().map(|id| id.pid).collect::<Vec<_>>(), [own.0.id()]);
    assert_eq!(found.holders, [Token(42)]);
    assert_eq!(scan_twice(&place.query).unwrap().holders, [Token(42)]);
    let shown = found.foreign.iter().find(|shown| shown.pid == foreign.0.id()).unwrap();
    assert!(shown.command.starts_with("pm2-runtime") && !shown.owner.is_empty(), "{shown:?}");
    drop((sibling, elsewhere, holder));
}

#[tokio::test]
async fn a_marker_is_matched_whole_and_zombies_do_not_count() {
    let place = Place::new("scan-marker");
    let value = place.query.marker.value().to_owned();
    let longer = format!("{value}0");
    let _longer = place.process("sh", false, &[("SOLOIST_NODE", &longer)]);
    let mut own = place.process("sh", false, &[("SOLOIST_NODE", &value)]);
    let found = until(|| scan_marked(&place.query.marker).ok().filter(|found| !found.is_empty())).await;
    assert!(found.iter().any(|id| id.pid == own.0.id()), "{found:?}");
    own.0.kill().unwrap();
    // Not waited for: it stays a zombie.
    until(|| scan_marked(&place.query.marker).unwrap().iter().all(|id| id.pid != own.0.id()).then_some(()))
        .await;
}

#[tokio::test]
async fn a_command_is_foreign_only_in_its_folder() {
    let mut place = Place::new("scan-command");
    let argv = vec!["my-app".to_owned(), "-c".to_owned()];
    let app_folders = vec!["/nonexistent".into(), place.temp.path().canonicalize().unwrap()];
    place.query.app = AppPattern::Command { app_folders, argv };
    let inside = place.process("my-app", true, &[]);
    let _outside = place.process("my-app", false, &[]);
    let _other = place.process("other-app", true, &[]);
    until(|| (place.foreign() == [inside.0.id()]).then_some(())).await;
}

#[tokio::test]
async fn a_tree_has_all_descendants() {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "sh -c 'sleep 60 & wait' & wait"]).process_group(0);
    let guard = Guard(command.spawn().unwrap());
    let found = until(|| tree(guard.0.id()).ok().filter(|found| found.len() == 2)).await;
    for id in found {
        id.signal(rustix::process::Signal::KILL).unwrap();
    }
}
