//! Plugins as packages on the real thing, and nodes that a click has left stale, with users all the time.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use soloist_tests::harness::balancer::Kind as Proxy;
use soloist_tests::harness::get;
use soloist_tests::harness::users::Users;

use crate::api::Person;
use crate::traffic::{INFO, in_front};
use crate::world::{NODES, World, wait};

/// The package that the test makes.
pub(crate) const LAB: &str = "@nocobase/plugin-sample-lab";
const MAP: &str = "@nocobase/plugin-map";

/// How a version of the plugin behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Works,
    /// It has a migration, which notes that it ran.
    Migrates,
    /// It throws when the app loads it.
    Crashes,
}

const SERVER: &str = "const { Plugin } = require('@nocobase/server');\n\
    module.exports = class extends Plugin {\n  async load() {\n    this.app.resourceManager.define({ name: 'lab', actions: {\n\
    async version(ctx, next) { ctx.body = require('../../package.json').version; await next(); } } });\n\
    this.app.acl.allow('lab', 'version', 'public');\n  }\n};\n";
const CRASH: &str = "const { Plugin } = require('@nocobase/server');\n\
    module.exports = class extends Plugin { async load() { throw new Error('lab cannot be loaded'); } };\n";
const MIGRATION: &str = "const { Migration } = require('@nocobase/server');\n\
    module.exports = class extends Migration {\n  on = 'afterLoad';\n  async up() {\n\
    await this.db.sequelize.query('create table if not exists lab_migrated(at timestamptz default now())');\n\
    await this.db.sequelize.query('insert into lab_migrated default values');\n  }\n};\n";

/// Makes an archive as npm does.
pub(crate) fn archive(folder: &Path, version: &str, kind: Kind) -> PathBuf {
    let package = folder.join(format!("lab-{version}/package"));
    let write = |path: &str, text: &str| {
        let path = package.join(path);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("a folder can be made");
        std::fs::write(path, text).expect("a file can be written");
    };
    let about = format!("{{\"name\":\"{LAB}\",\"version\":\"{version}\",\"main\":\"dist/server/index.js\"}}");
    write("package.json", &about);
    write("dist/server/index.js", if kind == Kind::Crashes { CRASH } else { SERVER });
    if kind == Kind::Migrates {
        write("dist/server/migrations/20260101000000-lab.js", MIGRATION);
    }
    let file = folder.join(format!("lab-{version}.tgz"));
    let above = package.parent().expect("it has one");
    let tar = Command::new("tar").arg("-czf").arg(&file).arg("-C").arg(above).arg("package").status();
    assert!(tar.expect("tar can be run").success());
    file
}

/// What a node says of the plugin: its version, or none.
fn version_on(world: &World, at: usize) -> Option<String> {
    let (status, body) = get(world.app_port(at), "/api/lab:version")?;
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    (status == 200).then(|| body["data"].as_str().map(str::to_owned)).flatten()
}

pub(crate) fn everywhere(world: &World, expected: Option<&str>) {
    for at in 0..NODES {
        assert_eq!(version_on(world, at).as_deref(), expected, "node-{}", at + 1);
    }
}

/// A plugin is added, enabled, updated with a migration, disabled and removed; one that breaks the app is taken back.
#[expect(clippy::print_stdout, reason = "what users got is worth seeing")]
pub(crate) fn come_and_go(world: &mut World) {
    let haproxy = in_front(world, Proxy::Haproxy);
    let folder = world.lab.join("packages");
    let run = |args: &[&str], file: &Path| {
        let file = file.to_string_lossy().into_owned();
        let args: Vec<&str> = args.iter().copied().chain([&*file]).collect();
        world.cli.run(&args)
    };
    let users = Users::start(haproxy.port, INFO.0, INFO.1);

    let _ = run(&["plugin", "add", "--enable"], &archive(&folder, "1.0.0", Kind::Works)).expect(0);
    everywhere(world, Some("1.0.0"));
    let _ = run(&["plugin", "update"], &archive(&folder, "2.0.0", Kind::Migrates)).expect(0);
    everywhere(world, Some("2.0.0"));
    let count = "select count(*) from lab_migrated";
    assert_eq!(world.sql("nocobase", count), "1", "the migration ran once");

    // It breaks the app on the first node: everything is as it was, and nothing that was written is lost.
    let marked = "create table written_meanwhile(at int); insert into written_meanwhile values (1)";
    let _ = world.sql("nocobase", marked);
    let broken = run(&["plugin", "update"], &archive(&folder, "3.0.0", Kind::Crashes)).expect(1);
    assert!(broken.stderr.contains("lab cannot be loaded"), "{broken:?}");
    world.until_whole();
    everywhere(world, Some("2.0.0"));
    assert_eq!(world.sql("nocobase", "select count(*) from written_meanwhile"), "1");
    let _ = world.sql("nocobase", "drop table written_meanwhile");

    // Nothing is stopped for a file that cannot be used.
    let before: Vec<_> = (0..NODES).map(|at| world.app_pids(at)).collect();
    let other = folder.join("other.tgz");
    std::fs::write(&other, "nothing").expect("a file can be written");
    let refused = run(&["plugin", "update"], &other).expect(64);
    assert!(refused.stderr.contains("other.tgz: it is no plugin's package"), "{refused:?}");
    let refused = world.cli.run(&["plugin", "remove", MAP]).expect(1);
    assert!(refused.stderr.contains("part of NocoBase itself"), "{refused:?}");
    let refused = world.cli.run(&["plugin", "remove", "@a/b;rm"]).expect(77);
    assert!(refused.stderr.contains("is not a package name"), "{refused:?}");
    assert_eq!((0..NODES).map(|at| world.app_pids(at)).collect::<Vec<_>>(), before);

    let _ = world.cli.run(&["plugin", "disable", LAB]).expect(0);
    everywhere(world, None);
    let _ = world.cli.run(&["plugin", "enable", LAB]).expect(0);
    everywhere(world, Some("2.0.0"));
    let _ = world.cli.run(&["plugin", "remove", LAB]).expect(0);
    everywhere(world, None);
    let story = users.stop();
    println!("    packages: {story}");
    assert!(story.is_clean(), "{story}");
    world.policy("");
}

/// Somebody enables a plugin in the app's own interface: the other nodes are named, and healed without a user noticing.
#[expect(clippy::print_stdout, reason = "what users got is worth seeing")]
pub(crate) fn healed(world: &mut World) {
    let haproxy = in_front(world, Proxy::Haproxy);
    let enabled = (0..NODES).all(|at| world.map_is_loaded(at));
    let verb = if enabled { "disable" } else { "enable" };
    let change = format!("pm:{verb}?filterByTk=%40nocobase%2Fplugin-map&awaitResponse=true");
    let _ = Person::at(world.app_port(0)).post(&change, &json!({}));
    let stale = |status: &Value| {
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        nodes.iter().filter(|node| node["stale"].as_array().is_some_and(|stale| !stale.is_empty())).count()
    };
    let status = world.until("two stale nodes", 90, |status| stale(status) == NODES - 1);
    let said = status["nodes"][1]["stale"][0].as_str().unwrap_or_default();
    assert!(said.starts_with(MAP), "{status}");

    let users = Users::start(haproxy.port, INFO.0, INFO.1);
    let _ = world.cli.run(&["heal"]).expect(0);
    let story = users.stop();
    println!("    heal: {story}");
    assert!(story.is_app_only(), "{story}");
    wait("every node alike", 30, || (0..NODES).all(|at| world.map_is_loaded(at) != enabled));
    world.until("no stale node", 90, |status| stale(status) == 0);
    let _ = world.cli.run(&["plugin", if enabled { "enable" } else { "disable" }, MAP]).expect(0);
    world.policy("");
}
