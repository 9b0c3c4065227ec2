//! What an agent gathers for preflight on an imitated installation. Needs the `node` program, like every NocoBase node.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use soloist_agent::preflight::Gatherer;
use soloist_agent::profile::{GenericConfig, NocoBaseConfig, NodeContext, Profile, ProfileConfig};
use soloist_core::ids::{FleetId, NodeId, Version};
use soloist_core::preflight::{Nodes, Place, Severity, Told, check, examine, examined};
use soloist_core::state::Fleet;
use soloist_core::time::Millis;
use soloist_proto::v1;

/// Like the launcher's code: reads `.env` without replacing what is set.
const UTIL: &str = r#"
const fs = require("fs"), path = require("path");
exports.initEnv = () => {
  for (const line of fs.readFileSync(".env", "utf8").split("\n")) {
    const at = line.indexOf("=");
    if (at > 0 && !(line.slice(0, at) in process.env)) process.env[line.slice(0, at)] = line.slice(at + 1);
  }
  process.env.STORAGE_PATH = path.resolve(process.env.STORAGE_PATH || "storage");
  if (process.env.FAIL) throw new Error("DB_TIMEZONE and TZ are different");
};
exports.generateAppDir = () => { process.env.APP_PACKAGE_ROOT = path.resolve("node_modules/@nocobase/app"); };
"#;

const SECRETS: [&str; 4] =
    ["secret-of-sessions", "secret-of-fields", "secret-of-the-database", "secret-of-redis"];

fn settings(zone: &str) -> String {
    format!(
        "APP_KEY={}\nAPP_AES_SECRET_KEY={}\nDB_PASSWORD={}\nCACHE_REDIS_URL=redis://:{}@127.0.0.1\nTZ={zone}\nDB_SCHEMA=\n\
         DB_DIALECT=postgres\nDB_HOST=127.0.0.1\nDB_PORT=1\nDB_DATABASE=shop\nDB_USER=noco\nWORKER_MODE=!\n",
        SECRETS[0], SECRETS[1], SECRETS[2], SECRETS[3]
    )
}

/// Nodes with folders of their own, one storage, and a host with no other supervisor.
struct Stage {
    temp: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        for folder in ["storage", "host", "bin"] {
            std::fs::create_dir(temp.path().join(folder)).unwrap();
        }
        let stage = Self { temp };
        stage.write("bin/pg_dump", "#!/bin/sh\necho 'pg_dump (PostgreSQL) 15.18 (Debian 15.18-0)'\n");
        let program = stage.path("bin/pg_dump");
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
        stage
    }

    fn path(&self, path: &str) -> PathBuf {
        self.temp.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Installs a node and returns what looks at it.
    fn node(&self, name: &str, settings: &str) -> (Gatherer, Profile) {
        for (path, text) in [
            (".env", settings),
            ("node_modules/@nocobase/cli-v1/src/util.js", UTIL),
            ("node_modules/@nocobase/server/package.json", r#"{"version":"2.2.15"}"#),
        ] {
            self.write(&format!("{name}/{path}"), text);
        }
        std::fs::create_dir_all(self.path(&format!("{name}-data"))).unwrap();
        let path = std::env::var("PATH").unwrap();
        let env = BTreeMap::from([
            ("PATH".to_owned(), format!("{}:{path}", self.path("bin").display())),
            ("STORAGE_PATH".to_owned(), self.path("storage").display().to_string()),
        ]);
        let config = NocoBaseConfig {
            app_folder: self.path(name),
            env_file: None,
            env,
            node: None,
            credential: None,
            plugin_routes: BTreeMap::new(),
            known_sessions: Vec::new(),
        };
        let profile = Profile::new(ProfileConfig::NocoBase(config), self.context(name)).unwrap();
        (Gatherer::with_root(self.context(name), self.path("host")), profile)
    }

    fn context(&self, name: &str) -> NodeContext {
        let (fleet, node) = (FleetId::new("crm").unwrap(), NodeId::new(name).unwrap());
        NodeContext { fleet, node, data_folder: self.path(&format!("{name}-data")), releases: None }
    }
}

fn told(facts: soloist_core::preflight::NodeFacts) -> Option<Told> {
    Some(Told { facts, age: Millis(0), sent_wall_ms: 0, heard_wall_ms: 0 })
}

#[tokio::test]
async fn values_never_leave_the_node() {
    let stage = Stage::new();
    let (gatherer, profile) = stage.node("n1", &settings("UTC"));
    let facts = gatherer.gather(&profile).await;
    let prints = facts.settings.as_ref().unwrap();
    assert!(prints.contains_key("APP_KEY") && prints.contains_key("CACHE_REDIS_URL"), "{prints:?}");
    assert!(!prints.contains_key("DB_PASSWORD") && !prints.contains_key("WORKER_MODE"), "{prints:?}");
    assert!(!prints.contains_key("DB_SCHEMA"), "empty is unset");
    let json = serde_json::to_string(&facts).unwrap();
    let wire = format!("{:?}", v1::NodeFacts::from(facts.clone()));
    for secret in SECRETS {
        assert!(!json.contains(secret) && !wire.contains(secret) && !format!("{facts:?}").contains(secret));
    }
    // Nor on the storage.
    let nonce = std::fs::read_to_string(stage.path("storage/.soloist/crm/n1")).unwrap();
    assert!(SECRETS.iter().all(|secret| !nonce.contains(secret)));
}

#[tokio::test]
async fn two_nodes_are_compared() {
    let stage = Stage::new();
    let (one, other) = (stage.node("n1", &settings("UTC")), stage.node("n2", &settings("Europe/Berlin")));
    let _ = one.0.gather(&one.1).await;
    let second = other.0.gather(&other.1).await;
    let first = one.0.gather(&one.1).await;
    assert_eq!(first.code, Some(Version("2.2.15".into())));
    assert!(first.node.as_ref().unwrap().major >= 18);
    assert_eq!(first.dump.as_ref().unwrap().major, 15);
    let places: Vec<Place> = first.spaces.iter().map(|space| space.place).collect();
    assert_eq!(places, [Place::App, Place::Data, Place::Storage]);
    assert_eq!(first.storage.as_ref().unwrap().seen.len(), 2);
    let nodes: Nodes = [("n1", first), ("n2", second)]
        .into_iter()
        .map(|(name, facts)| (NodeId::new(name).unwrap(), told(facts)))
        .collect();
    let findings = examine(&Fleet::default(), &nodes);
    let found = |word: &str| -> Vec<&str> {
        findings.iter().filter(|found| found.check == word).map(|found| found.text.as_str()).collect()
    };
    assert_eq!(found(check::SETTINGS), ["TZ differs: one value on n1; another on n2"], "{findings:#?}");
    assert_eq!(found(check::STORAGE), Vec::<&str>::new());
    // Nobody listens where the database should be.
    assert_eq!(found(check::DATABASE).len(), 2, "{findings:#?}");
    assert!(found(check::DATABASE)[0].contains("127.0.0.1:1/shop"));
}

#[tokio::test]
async fn what_concerns_one_node() {
    let stage = Stage::new();
    let (gatherer, profile) = stage.node("n1", &settings("UTC"));
    stage.write("storage/.upgrading", "");
    stage.write("storage/.license/license-key", "k");
    let folder = stage.path("n1");
    stage.write("host/etc/passwd", "web:x:7:7::/home/web:/bin/sh\n");
    stage.write("host/home/web/.pm2/dump.pm2", &format!("[{{\"pm_cwd\":\"{}\"}}]", folder.display()));
    let facts = gatherer.gather(&profile).await;
    assert!(facts.upgrading && facts.searched);
    assert_eq!(facts.commercial, ["a license key lies on the storage (.license/license-key)"]);
    assert_eq!(facts.supervisors, ["pm2's saved list /home/web/.pm2/dump.pm2"]);
    // Whoever has switched the downloads off has no commercial plugins fetched.
    stage.write("n1/.env", &format!("{}DISABLE_PKG_DOWNLOAD=true\n", settings("UTC")));
    assert_eq!(gatherer.gather(&profile).await.commercial, Vec::<String>::new());
}

#[tokio::test]
async fn what_cannot_be_found_out_is_said() {
    let stage = Stage::new();
    let (gatherer, profile) = stage.node("n1", &format!("{}FAIL=1\n", settings("UTC")));
    let facts = gatherer.gather(&profile).await;
    assert_eq!(facts.failed.keys().collect::<Vec<_>>(), [check::SETTINGS]);
    assert!(facts.failed[check::SETTINGS].contains("DB_TIMEZONE and TZ are different"), "{:?}", facts.failed);
    let (gatherer, profile) = stage.node("n2", &settings("UTC"));
    std::fs::remove_dir_all(stage.path("storage")).unwrap();
    let facts = gatherer.gather(&profile).await;
    assert!(facts.failed[check::STORAGE].contains("storage"), "{:?}", facts.failed);
    let nodes: Nodes = [(NodeId::new("n2").unwrap(), told(facts))].into();
    let storage =
        examine(&Fleet::default(), &nodes).into_iter().find(|found| found.check == check::STORAGE).unwrap();
    assert_eq!(storage.severity, Severity::Problem);
}

#[tokio::test]
async fn a_generic_app_has_fewer_facts() {
    let stage = Stage::new();
    std::fs::create_dir_all(stage.path("n1-data")).unwrap();
    let text = format!("command = [\"app\"]\ncwd = {:?}\n", stage.temp.path());
    let config: GenericConfig = toml::from_str(&text).unwrap();
    let profile = Profile::new(ProfileConfig::Generic(config), stage.context("n1")).unwrap();
    let facts = Gatherer::new(stage.context("n1"), false, Arc::default()).gather(&profile).await;
    assert_eq!(facts.failed, BTreeMap::new());
    assert_eq!((facts.spaces.len(), facts.searched, &facts.settings), (2, false, &None));
    let nodes: Nodes = [(NodeId::new("n1").unwrap(), told(facts))].into();
    assert_eq!(
        examined(&Fleet::default(), &nodes),
        [check::CONTACT, check::SPACE, check::CLOCK, check::UPGRADING]
    );
}
