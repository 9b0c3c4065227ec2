//! Profiles against an imitated installation. Needs the `node` program, like every NocoBase node.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use soloist_agent::profile::{GenericConfig, NocoBaseConfig, NodeContext, Profile, ProfileConfig};
use soloist_core::assignment::{DatabaseFacts, RunMode};
use soloist_core::ids::{FleetId, NodeId, Right, Version};

/// Like the launcher's code: reads `.env` without replacing what is set, and finds the app's package.
const UTIL: &str = r#"
const fs = require("fs"), path = require("path");
exports.initEnv = () => {
  console.log("a library says hello");
  process.env.NODE_OPTIONS = ((process.env.NODE_OPTIONS || "") + " --preserve-symlinks").trim();
  for (const line of fs.readFileSync(".env", "utf8").split("\n")) {
    const at = line.indexOf("=");
    if (at > 0 && !(line.slice(0, at) in process.env)) process.env[line.slice(0, at)] = line.slice(at + 1);
  }
  process.env.STORAGE_PATH = path.resolve(process.env.STORAGE_PATH || "storage");
  if (process.env.FAIL) throw new Error("DB_TIMEZONE and TZ are different");
};
exports.generateAppDir = () => { process.env.APP_PACKAGE_ROOT = path.resolve("node_modules/@nocobase/app"); };
"#;

struct Installation {
    temp: tempfile::TempDir,
    config: NocoBaseConfig,
}

impl Installation {
    fn new(settings: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let app_folder = temp.path().join("app");
        for (path, text) in [
            (".env", settings),
            ("node_modules/@nocobase/cli-v1/src/util.js", UTIL),
            ("node_modules/@nocobase/app/lib/index.js", ""),
            (
                "node_modules/@nocobase/server/package.json",
                r#"{"name":"@nocobase/server","version":"2.2.15"}"#,
            ),
            ("storage/keep", ""),
        ] {
            let path = app_folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let config = NocoBaseConfig {
            app_folder,
            env: BTreeMap::new(),
            node: None,
            credential: None,
            plugin_routes: BTreeMap::new(),
            known_sessions: Vec::new(),
        };
        Self { temp, config }
    }

    fn profile(&self) -> Profile {
        Profile::new(ProfileConfig::NocoBase(self.config.clone()), context(self.temp.path().join("data")))
            .unwrap()
    }
}

fn context(data_folder: PathBuf) -> NodeContext {
    NodeContext { fleet: FleetId::new("crm").unwrap(), node: NodeId::new("n1").unwrap(), data_folder }
}

#[tokio::test]
async fn the_apps_environment_is_its_own() {
    let settings = "DB_DIALECT=mysql\nAPP_PORT=13000\nSKIP_SAME_VERSION_UPGRADE=true\nNODE_ARGS=--max-old-space-size=900\nSOCKET_PATH=/shared/x\n";
    let mut installation = Installation::new(settings);
    installation.config.env.insert("APP_PORT".into(), "13007".into());
    let profile = installation.profile();
    let plain = profile.command(RunMode::Plain).await.unwrap();
    let get = |key: &str| plain.env.get(key).map(String::as_str);
    assert_eq!(get("APP_PORT"), Some("13007"));
    assert_eq!(get("SOLOIST_NODE"), Some("crm/n1"));
    assert_eq!(get("PGAPPNAME"), Some("soloist-n1"));
    assert_eq!(
        get("NODE_OPTIONS"),
        Some("--preserve-symlinks"),
        "the agent's own options are not taken over"
    );
    assert_eq!(get("DISABLE_PKG_DOWNLOAD"), Some("true"));
    assert!(get("SOCKET_PATH").unwrap().ends_with("data/nocobase/gateway.sock"));
    assert_eq!(get("SKIP_SAME_VERSION_UPGRADE"), Some("true"));
    assert_eq!(get("CARGO_MANIFEST_DIR"), None);
    assert!(plain.argv[0].ends_with("/node") && plain.argv[2].ends_with("@nocobase/app/lib/index.js"));
    assert_eq!(
        (plain.argv[1].as_str(), &plain.argv[3..]),
        ("--max-old-space-size=900", &["start".to_owned()][..])
    );
    let migrate = profile.command(RunMode::Migrate(Right(4))).await.unwrap();
    assert_eq!(migrate.argv.last().unwrap(), "--quickstart");
    assert!(!migrate.env.contains_key("SKIP_SAME_VERSION_UPGRADE"));
    assert_eq!(profile.api().await.unwrap().unwrap().base(), "http://127.0.0.1:13007/api/");
}

#[tokio::test]
async fn facts_of_disk_and_storage() {
    let installation = Installation::new("DB_DIALECT=mysql\n");
    let profile = installation.profile();
    let facts = profile.facts().await;
    assert_eq!((facts.code, facts.upgrading, facts.refusal), (Some(Version("2.2.15".into())), false, None));
    assert!(facts.database_error.unwrap().contains("mysql"));
    std::fs::write(installation.config.app_folder.join("storage/.upgrading"), "").unwrap();
    assert!(profile.facts().await.upgrading);
}

#[tokio::test]
async fn cluster_mode_is_refused_with_its_place() {
    let installation = Installation::new("DB_DIALECT=postgres\nCLUSTER_MODE=2\n");
    let profile = installation.profile();
    let refusal = profile.facts().await.refusal.unwrap();
    assert!(refusal.contains("CLUSTER_MODE=2") && refusal.contains(".env, line 2"), "{refusal}");
    assert!(profile.command(RunMode::Plain).await.is_err());
    // Removed from the file, it is noticed at once.
    std::fs::write(installation.config.app_folder.join(".env"), "DB_DIALECT=mysql\nCLUSTER_MODE=\n").unwrap();
    assert_eq!(profile.facts().await.refusal, None);
}

#[tokio::test]
async fn what_the_launcher_says_is_passed_on() {
    let mut installation = Installation::new("DB_DIALECT=mysql\n");
    installation.config.env.insert("FAIL".into(), "1".into());
    let refusal = installation.profile().facts().await.refusal.unwrap();
    assert!(refusal.contains("DB_TIMEZONE and TZ are different"), "{refusal}");
    installation.config.app_folder = "/nonexistent".into();
    assert!(installation.profile().facts().await.refusal.unwrap().contains("/nonexistent"));
}

#[tokio::test]
async fn a_generic_app_tells_its_facts() {
    let temp = tempfile::tempdir().unwrap();
    let facts =
        r#"{"code":"1.0","database":{"identity":"d","version":"1.0","empty":false},"upgrading":true}"#;
    let text =
        format!("command = [\"app\"]\ncwd = {:?}\nfacts_command = [\"echo\", {facts:?}]\n", temp.path());
    let config: GenericConfig = toml::from_str(&text).unwrap();
    let profile = Profile::new(ProfileConfig::Generic(config), context(temp.path().join("data"))).unwrap();
    let facts = profile.facts().await;
    let version = Some(Version("1.0".into()));
    let database = DatabaseFacts { identity: "d".into(), version: version.clone(), empty: false };
    assert_eq!((facts.code, facts.database, facts.upgrading), (version, Some(database), true));
    assert!(
        profile
            .command(RunMode::Migrate(Right(1)))
            .await
            .unwrap_err()
            .to_string()
            .contains("migrate_command")
    );
    assert_eq!(profile.command(RunMode::Plain).await.unwrap().env["SOLOIST_NODE"], "crm/n1");
}
