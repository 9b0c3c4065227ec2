//! Whatever stands in the agent's files, comes over its sockets or from the app: it is read or refused, nothing panics, and
//! an error says of which file it speaks.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use soloist_core::agent::{Hand, Ledger};
use soloist_core::evidence::{Fact, Record};
use soloist_core::ids::{BackupId, BootId, FleetId, Generation, Incarnation, Launch, NodeId};

use crate::backup::Folder;
use crate::config::Config;
use crate::coordinators::Coordinators;
use crate::evidence::Recorder;
use crate::glass::{self, Glass};
use crate::hell;
use crate::host::ProcessId;
use crate::keeper::protocol::{Cmd, Reply, Request};
use crate::keeper::{ExitHow, ExitInfo, KeeperFiles, KeeperRecord, KeeperState, Started};
use crate::ledger::{self, LedgerError, LedgerFile};
use crate::probe::{Credential, Health};

/// A value may take this many times the bytes that it is read from, and the smallest value of all.
const GROWTH_MAX: usize = 64;

/// What can be read can be written again, says the same then, and has not grown out of proportion.
fn survives<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let again = serde_json::to_vec(&value).unwrap();
    assert!(again.len() <= GROWTH_MAX * (bytes.len() + 64), "{} became {}", bytes.len(), again.len());
    assert_eq!(serde_json::from_slice::<T>(&again).unwrap(), value);
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

const APP: &str = "fleet = \"main\"\nnode = \"node-1\"\ndata_dir = \"/tmp/x\"\ncoordinators = [\"127.0.0.1:7401\"]\nhttp = \
                   \"127.0.0.1:7411\"\n[app]\nprofile = \"generic\"\ncommand = [\"true\"]\ncwd = \"/\"\n[checks]\nsmoke = \
                   [\"true\"]\n[release]\nfolder = \"/r\"\ncurrent = \"/c\"\nversion_file = \"version\"\nfetch = []\n";
const PAGE: &str = "fleet = \"main\"\nnode = \"node-1\"\ndata_dir = \"/tmp/x\"\ncoordinators = [\"a:1\", \"b:1\"]\n[app]\n\
                    profile = \"nocobase\"\ndirectory = \"/srv/nocobase\"\n[page]\nlisten = \"127.0.0.1:7412\"\n";
const BALANCER: &str = "fleet = \"main\"\nnode = \"lb-1\"\ndata_dir = \"/tmp/x\"\ncoordinators = [\"127.0.0.1:7401\"]\n\
                        [balancer]\nkind = \"haproxy\"\nsocket = \"/run/haproxy.sock\"\nbackend = \"nocobase\"\n\
                        [balancer.servers]\nnode-1 = \"a\"\n";

#[test]
fn a_configuration_or_an_error_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    hell::harm_texts(&[APP, PAGE, BALANCER], |text| {
        std::fs::write(&path, text).unwrap();
        let Err(error) = Config::load(&path, |_| None) else { return };
        let said = error.to_string();
        assert!(said.contains("agent.toml") && said.chars().count() < 4000, "{said}");
    });
}

#[test]
fn a_ledger_or_an_error_that_helps() {
    let folder = tempfile::tempdir().unwrap();
    let path = LedgerFile::path_in(folder.path());
    let ledger = Ledger { floor: Generation(7), lineage: vec![Incarnation(3)], ..Ledger::default() };
    let whole = json(&serde_json::json!({ "format": 1, "ledger": ledger }));
    let deep = [b"{\"format\":1,\"ledger\":".as_slice(), &b"[".repeat(200_000)].concat();
    hell::harm_all(&[whole, deep], |bytes| {
        std::fs::write(&path, bytes).unwrap();
        match ledger::read(&path) {
            Ok(found) => assert!(found.is_some()),
            Err(LedgerError::Corrupt { path: named, why }) => assert!(named == path && !why.is_empty()),
            Err(other) => panic!("{other}"),
        }
    });
}

#[test]
fn a_glass_that_cannot_be_read_counts_as_broken() {
    let folder = tempfile::tempdir().unwrap();
    let broken = Glass { by: "kim".into(), reason: "no quorum".into(), since_wall_ms: 1_700_000_000_000 };
    glass::smash(folder.path(), &broken).unwrap();
    let _ = glass::take(folder.path(), Hand::Start, BootId("boot-1".into()), broken.clone()).unwrap();
    let files = ["break-glass.json", "break-glass-app.json"].map(|name| folder.path().join(name));
    let seeds = files.clone().map(|file| std::fs::read(file).unwrap());
    hell::harm_all(&seeds, |bytes| {
        files.iter().for_each(|file| std::fs::write(file, bytes).unwrap());
        let found = glass::read(folder.path()).expect("somebody wanted it");
        assert!(found.text().chars().count() < 1000);
        if let Some(by_hand) = glass::by_hand(folder.path()) {
            assert!(by_hand.text.chars().count() < 1000);
        }
    });
}

#[test]
fn what_agent_and_keeper_say_and_write() {
    let folder = tempfile::tempdir().unwrap();
    let files = KeeperFiles::new(folder.path().to_owned());
    let process = ProcessId { pid: 7, start_time_ticks: 8 };
    let boot = || BootId("boot-1".into());
    let reply = Reply {
        v: 1,
        launch: Launch(7),
        state: KeeperState::Lingering,
        app: Some(process),
        pids: vec![7, 8],
        error: None,
    };
    let record = KeeperRecord {
        v: 1,
        launch: Launch(7),
        generation: Some(Generation(3)),
        boot: boot(),
        keeper: process,
        app: None,
        started_unix_ms: 9,
    };
    let exit = ExitInfo {
        v: 1,
        launch: Launch(7),
        boot: boot(),
        how: ExitHow::Code(1),
        asked: true,
        ended_unix_ms: 9,
    };
    let launch = serde_json::json!({
        "v": 1, "launch": 7, "marker": "main/node-1", "argv": ["true"], "env": {"A": "b"}, "cwd": "/",
        "grace_ms": 1000, "boot_id_path": "/proc/sys/kernel/random/boot_id"
    });
    let seeds = [
        json(&Request { v: 1, cmd: Cmd::Stop { grace_ms: u64::MAX, kill: true } }),
        json(&Request { v: 1, cmd: Cmd::Status }),
        json(&reply),
        json(&Started::Running { app: process }),
        json(&Started::Refused { reason: "why".into() }),
        json(&record),
        json(&exit),
        json(&launch),
    ];
    hell::harm_all(&seeds, |bytes| {
        survives::<Request>(bytes);
        survives::<Reply>(bytes);
        survives::<Started>(bytes);
        for name in ["launch.json", "keeper.json", "exit.json"] {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let _ = (files.read_launch(), files.read_keeper(), files.read_exit());
    });
}

#[test]
fn a_manifest_or_an_error_that_names_it() {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::open(root.path()).unwrap();
    let id = BackupId::new("one").unwrap();
    std::fs::create_dir(folder.path().join("one")).unwrap();
    let file = |bytes: u64| serde_json::json!({ "name": "database.dump", "bytes": bytes, "sha256": "00" });
    let manifest = serde_json::json!({
        "format": 1, "id": "one", "node": "node-1", "started_at_ms": 1, "duration_ms": 1, "dialect": "postgres",
        "place": "db", "schema": null, "schemas": [], "prefix": "", "version_table": "v", "version": null, "tables": 1,
        "server": "s", "programs": {}, "kept": {}, "uploads": { "entries": 1, "bytes": u64::MAX },
        "files": [file(u64::MAX), file(u64::MAX)], "checked": null, "damage": null
    });
    let path = folder.path().join("one").join("manifest.json");
    std::fs::write(&path, json(&manifest)).unwrap();
    assert_eq!(folder.show(&id).unwrap().bytes(), u64::MAX, "it is added up without an overflow");
    let note = serde_json::json!({ "place": "db", "began_at_ms": 1, "ended_at_ms": null });
    hell::harm_all(&[json(&manifest), json(&note)], |bytes| {
        std::fs::write(&path, bytes).unwrap();
        std::fs::write(folder.path().join("one/restore.json"), bytes).unwrap();
        match folder.show(&id) {
            Ok(manifest) => drop((manifest.bytes(), manifest)),
            Err(error) => assert!(error.to_string().contains("manifest.json"), "{error}"),
        }
        let _ = (folder.restore_note(&id), folder.list().unwrap());
    });
}

#[test]
fn what_an_app_says_of_itself_is_short() {
    let seeds: [&[u8]; 2] = [
        br#"{"error":{"status":503,"message":"load plugin [ai], 48/77","command":{"name":"start"},"code":"APP_COMMANDING"}}"#,
        br#"{"error":{"message":{"a":[1,2,3]},"code":["E"]}}"#,
    ];
    let brief = |health: &Health| {
        assert!(health.text().chars().count() < 700, "{health:?}");
        assert!(!health.text().contains('\n'), "{health:?}");
    };
    hell::harm_all(&seeds, |bytes| {
        [200, 404, 503].into_iter().for_each(|status| brief(&Health::parse(status, bytes)));
    });
    let code = "E".repeat(1 << 20);
    brief(&Health::parse(503, &json(&serde_json::json!({ "error": { "code": code, "message": code } }))));
}

#[test]
fn a_record_is_what_was_recorded_or_the_chain_ends() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let (fleet, node) = (FleetId::new("shop").unwrap(), NodeId::new("node-1").unwrap());
        Recorder::open(folder.path(), (&fleet, &node), &BootId("b".into()), Incarnation(7)).unwrap()
    };
    let (recorder, _) = open();
    (1..4).for_each(|number| recorder.append(Fact::Resting { generation: Generation(number) }).unwrap());
    drop(recorder);
    let path = folder.path().join("evidence.jsonl");
    let whole = std::fs::read(&path).unwrap();
    let (_, recorded) = open();
    assert_eq!(recorded.len(), 4);
    hell::harm_all(&[&whole], |bytes| {
        std::fs::write(&path, bytes).unwrap();
        let (_, found) = open();
        assert!(found.iter().all(|record: &Record| recorded.contains(record)), "{found:?} was believed");
    });
}

#[test]
fn files_that_people_write_or_that_are_remembered() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let credential: PathBuf = folder.path().join("credential");
    std::fs::write(&credential, "").unwrap();
    std::fs::set_permissions(&credential, std::fs::Permissions::from_mode(0o600)).unwrap();
    let configured = ["a:1".to_owned()];
    let memory = br#"{"cluster":"c","configured":["a:1"],"members":["b:1","c:1"]}"#;
    let account = b"account = \"admin@nocobase.com\"\npassword = \"admin123\"\n";
    hell::harm_all(&[&memory[..], &account[..]], |bytes| {
        std::fs::write(folder.path().join("coordinators.json"), bytes).unwrap();
        let known = Coordinators::open(folder.path(), &configured);
        assert_eq!(known.candidates()[0].address, "a:1", "the configured ones are always tried");
        std::fs::write(&credential, bytes).unwrap();
        if let Err(error) = Credential::read(&credential) {
            assert!(names(&error.to_string(), &credential), "{error}");
        }
    });
}

fn names(text: &str, path: &Path) -> bool {
    text.contains(&path.display().to_string())
}
