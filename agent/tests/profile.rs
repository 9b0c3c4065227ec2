//! Profiles against an imitated installation. Needs the `node` program, like every NocoBase node.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use soloist_agent::host::AppPattern;
use soloist_agent::profile::{GenericConfig, NocoBaseConfig, NodeContext, Profile, ProfileConfig};
use soloist_agent::release::ReleaseConfig;
use soloist_agent::task::release::ReleaseTasks;
use soloist_core::assignment::{DatabaseFacts, Needs, RunMode, Task, TaskKey, TaskPhase, TaskResult};
use soloist_core::ids::{FleetId, NodeId, OperationId, Right, Version};
use tokio::sync::watch;

/// Like the launcher's code: reads `.env` without replacing what is set, and finds the app's package.
const UTIL: &str = r#"
const fs = require("fs"), path = require("path");
exports.initEnv = () => {
  console.log("a library says hello");
  process.env.NODE_OPTIONS = ((process.env.NODE_OPTIONS || "") + " --preserve-symlinks").trim();
  for (const line of fs.readFileSync(process.env.APP_ENV_PATH || ".env", "utf8").split("\n")) {
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
        release(&app_folder, "2.2.15");
        put(&app_folder.join(".env"), settings);
        put(&app_folder.join("storage/keep"), "");
        let config = NocoBaseConfig {
            app_folder,
            env_file: None,
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

fn put(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// The code of a version, without settings and storage.
fn release(folder: &Path, version: &str) {
    put(&folder.join("node_modules/@nocobase/cli-v1/src/util.js"), UTIL);
    put(&folder.join("node_modules/@nocobase/app/lib/index.js"), "");
    let server = format!("{{\"name\":\"@nocobase/server\",\"version\":\"{version}\"}}");
    put(&folder.join("node_modules/@nocobase/server/package.json"), &server);
}

fn context(data_folder: PathBuf) -> NodeContext {
    let (fleet, node) = (FleetId::new("crm").unwrap(), NodeId::new("n1").unwrap());
    NodeContext { fleet, node, data_folder, releases: None }
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
    let installation = Installation::new("DB_DIALECT=oracle\n");
    let profile = installation.profile();
    let facts = profile.facts().await;
    assert_eq!((facts.code, facts.upgrading, facts.refusal), (Some(Version("2.2.15".into())), false, None));
    assert!(facts.database_error.unwrap().contains("oracle"));
    std::fs::write(installation.config.app_folder.join("storage/.upgrading"), "").unwrap();
    assert!(profile.facts().await.upgrading);
}

/// Runs as one process, executed directly.
async fn runs_alone(profile: &Profile, mode: RunMode) {
    let command = profile.command(mode).await.unwrap();
    assert_eq!(command.processes, 1);
    assert!(command.argv[1].ends_with("@nocobase/app/lib/index.js"), "{:?}", command.argv);
    assert_eq!(command.env["CLUSTER_MODE"], "", "nobody reads it from the file again");
    assert!(command.env["PM2_HOME"].ends_with("nocobase/pm2"));
}

#[tokio::test]
async fn several_processes_run_under_pm2_and_one_does_not() {
    let installation = Installation::new("");
    let folder = installation.config.app_folder.clone();
    put(&folder.join("node_modules/pm2/bin/pm2-runtime"), "");
    let profile = installation.profile();
    for (value, processes) in [("", 1), ("1", 1), ("2", 2), ("max", 0)] {
        let settings =
            format!("DB_DIALECT=mysql\nNODE_ARGS=--max-old-space-size=900\nCLUSTER_MODE={value}\n");
        std::fs::write(folder.join(".env"), settings).unwrap();
        let facts = profile.facts().await;
        assert_eq!(facts.refusal, None, "{value}");
        let told = facts.processes.unwrap();
        assert!(told == processes || (processes == 0 && told >= 1), "{value}: {told}");
        if told > 1 {
            under_pm2(&profile, &installation, told).await;
        }
        for mode in [RunMode::Single, RunMode::Migrate(Right(1))] {
            let command = profile.command(mode).await.unwrap();
            let (program, rest) = (&command.argv[2], &command.argv[3..]);
            assert!(program.ends_with("@nocobase/app/lib/index.js"), "{:?}", command.argv);
            assert_eq!(rest.len(), if mode == RunMode::Single { 1 } else { 2 });
            assert_eq!((command.processes, command.env["CLUSTER_MODE"].as_str()), (1, ""), "{value}");
        }
    }
    std::fs::write(folder.join(".env"), "DB_DIALECT=mysql\nCLUSTER_MODE=1\n").unwrap();
    runs_alone(&profile, RunMode::Plain).await;
}

/// A plain run of several processes.
async fn under_pm2(profile: &Profile, installation: &Installation, processes: u32) {
    let command = profile.command(RunMode::Plain).await.unwrap();
    assert_eq!(command.processes, processes);
    let data = installation.temp.path().join("data/nocobase");
    let text = |path: PathBuf| path.display().to_string();
    let list = data.join("processes.json");
    let app_folder = installation.config.app_folder.canonicalize().unwrap();
    let program = app_folder.join("node_modules/pm2/bin/pm2-runtime");
    assert_eq!(
        command.argv[1..],
        [text(program), "start".into(), "--no-auto-exit".into(), text(list.clone())]
    );
    assert_eq!(command.env["PM2_HOME"], text(data.join("run")), "not where the app looks for pm2");
    assert_eq!(command.env["PM2_KILL_SIGNAL"], "SIGTERM");
    assert_eq!(command.env["SOLOIST_NODE"], "crm/n1");
    let list: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(list).unwrap()).unwrap();
    let app = &list["apps"][0];
    assert_eq!((&app["instances"], &app["args"]), (&processes.into(), &serde_json::json!(["start"])));
    assert!(app["script"].as_str().unwrap().ends_with("@nocobase/app/lib/index.js"));
    let preload = text(data.join("worker.js"));
    assert_eq!(app["node_args"], serde_json::json!(["--require", preload, "--max-old-space-size=900"]));
    assert!(app["kill_timeout"].as_u64().unwrap() > 3_600_000, "the keeper has the grace");
    assert_eq!((&app["out_file"], &app["error_file"]), (&"/dev/null".into(), &"/dev/null".into()));
    assert!(std::fs::read_to_string(preload).unwrap().contains("\".upgrading\""));
}

#[tokio::test]
async fn a_number_of_processes_that_cannot_be_is_refused_with_its_place() {
    let mut installation = Installation::new("DB_DIALECT=mysql\nCLUSTER_MODE=many\n");
    let profile = installation.profile();
    let refusal = profile.facts().await.refusal.unwrap();
    assert!(refusal.contains("CLUSTER_MODE=many in ") && refusal.contains(".env, line 2"), "{refusal}");
    assert!(refusal.contains("write how many processes"), "{refusal}");
    assert!(profile.command(RunMode::Plain).await.is_err());
    // Without pm2 there is one process at most.
    std::fs::write(installation.config.app_folder.join(".env"), "DB_DIALECT=mysql\nCLUSTER_MODE=2\n")
        .unwrap();
    let refused = profile.command(RunMode::Plain).await.unwrap_err().to_string();
    assert!(refused.contains("pm2/bin/pm2-runtime does not exist"), "{refused}");
    assert_eq!(
        profile.facts().await.refusal,
        Some(refused),
        "noticed at once, and before anything is stopped"
    );
    assert!(profile.command(RunMode::Single).await.is_ok());
    std::fs::write(installation.config.app_folder.join(".env"), "DB_DIALECT=mysql\nCLUSTER_MODE=\n").unwrap();
    assert_eq!(profile.facts().await.refusal, None);
    installation.config.env.insert("CLUSTER_MODE".into(), "99".into());
    let refusal = installation.profile().facts().await.refusal.unwrap();
    assert!(refusal.contains("CLUSTER_MODE=99 in the agent's configuration of this node"), "{refusal}");
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

/// Releases of a node, and a profile whose app folder is the link to one of them.
struct Switched {
    installation: Installation,
    profile: Profile,
    tasks: ReleaseTasks,
}

impl Switched {
    fn new(storage: &str) -> Self {
        let mut installation = Installation::new("");
        let at = |path: &str| installation.temp.path().canonicalize().unwrap().join(path);
        for version in ["2.2.15", "2.2.99"] {
            release(&at("releases").join(version), version);
        }
        std::os::unix::fs::symlink(at("releases/2.2.15"), at("current")).unwrap();
        let storage = if storage.is_empty() { at("kept").display().to_string() } else { storage.to_owned() };
        put(&at("app.env"), &format!("DB_DIALECT=mysql\nSTORAGE_PATH={storage}\n"));
        put(&at("kept/keep"), "");
        (installation.config.app_folder, installation.config.env_file) = (at("current"), Some(at("app.env")));
        let text = format!("folder = {:?}\ncurrent = {:?}\n", at("releases"), at("current"));
        let config: ReleaseConfig = toml::from_str(&text).unwrap();
        let context = NodeContext { releases: Some(at("releases")), ..context(at("data")) };
        let make =
            || Profile::new(ProfileConfig::NocoBase(installation.config.clone()), context.clone()).unwrap();
        let (fleet, node) = (context.fleet.clone(), context.node.clone());
        let tasks = ReleaseTasks::new(Arc::new(make()), Some(&config), fleet, node);
        Self { profile: make(), installation, tasks }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.installation.temp.path().canonicalize().unwrap().join(path)
    }

    async fn perform(&self, phase: TaskPhase, version: &str) -> TaskResult {
        let task = Task {
            key: TaskKey { operation: OperationId::new("op").unwrap(), step: 1, attempt: 1 },
            phase,
            needs: Needs::Stopped,
            name: "release".into(),
            params: [("version".to_owned(), version.to_owned())].into(),
            checks: Vec::new(),
        };
        self.tasks.perform(&task, &watch::channel(String::new()).0).await.0
    }
}

#[tokio::test]
async fn a_switch_is_noticed_at_once() {
    let place = Switched::new("");
    let before = place.profile.command(RunMode::Plain).await.unwrap();
    assert_eq!(before.cwd, place.at("releases/2.2.15"), "the release itself, not the link");
    assert_eq!(place.profile.facts().await.code, Some(Version("2.2.15".into())));
    assert_eq!(place.perform(TaskPhase::Check, "2.2.99").await, TaskResult::Done);
    assert_eq!(place.profile.facts().await.code, Some(Version("2.2.15".into())), "a check changes nothing");
    assert_eq!(place.perform(TaskPhase::Run, "2.2.99").await, TaskResult::Done);
    assert_eq!(place.profile.facts().await.code, Some(Version("2.2.99".into())));
    let after = place.profile.command(RunMode::Plain).await.unwrap();
    assert_eq!(after.cwd, place.at("releases/2.2.99"));
    let entry = place.at("releases/2.2.99/node_modules/@nocobase/app/lib/index.js");
    assert!(after.argv.contains(&entry.display().to_string()), "{:?}", after.argv);
    assert_eq!(after.env["STORAGE_PATH"], place.at("kept").display().to_string());
    assert_eq!(after.env["APP_ENV_PATH"], place.at("app.env").display().to_string());
}

#[tokio::test]
async fn a_process_of_any_release_is_the_app() {
    let place = Switched::new("");
    let AppPattern::NocoBase { app_folders, .. } = place.profile.pattern().await else { panic!("NocoBase") };
    for folder in ["current", "releases/2.2.15", "releases"] {
        assert!(app_folders.contains(&place.at(folder)), "{folder}: {app_folders:?}");
    }
}

#[tokio::test]
async fn what_would_be_left_behind_is_refused_before() {
    let place = Switched::new("storage");
    let TaskResult::Failed(why) = place.perform(TaskPhase::Check, "2.2.99").await else { panic!("good") };
    let inside = place.at("releases/2.2.15/storage");
    assert!(why.contains(&inside.display().to_string()) && why.contains("set STORAGE_PATH in"), "{why}");

    let mut place = Switched::new("");
    std::fs::write(place.at("current/.env"), "DB_DIALECT=mysql\n").unwrap();
    place.installation.config.env_file = None;
    let text = format!("folder = {:?}\ncurrent = {:?}\n", place.at("releases"), place.at("current"));
    let config: ReleaseConfig = toml::from_str(&text).unwrap();
    let (profile, context) = (Arc::new(place.installation.profile()), context("/nonexistent".into()));
    place.tasks = ReleaseTasks::new(profile, Some(&config), context.fleet, context.node);
    let TaskResult::Failed(why) = place.perform(TaskPhase::Check, "2.2.99").await else { panic!("good") };
    assert!(why.contains("/current/.env") && why.contains("env_file"), "{why}");
}

#[tokio::test]
async fn what_is_kept_of_another_release_does_not_count() {
    // By hand, because the task refuses such a storage.
    let place = Switched::new("storage");
    put(&place.at("releases/2.2.15/storage/keep"), "");
    put(&place.at("releases/2.2.99/storage/.upgrading"), "");
    let server =
        |version: &str| place.at("releases").join(version).join("node_modules/@nocobase/server/package.json");
    // Of one length and time: only the folder tells them apart.
    let time = std::fs::metadata(server("2.2.15")).unwrap().modified().unwrap();
    std::fs::File::open(server("2.2.99")).unwrap().set_modified(time).unwrap();
    assert!(!place.profile.facts().await.upgrading);
    std::fs::remove_file(place.at("current")).unwrap();
    std::os::unix::fs::symlink(place.at("releases/2.2.99"), place.at("current")).unwrap();
    assert!(place.profile.facts().await.upgrading);
}
