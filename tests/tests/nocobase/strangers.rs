//! Who runs the app or uses its database without being of the fleet.

use std::process::{Command, Stdio};
use std::time::Duration;

use soloist_tests::harness::marked;

use crate::scenarios::kill;
use crate::world::World;

/// A NocoBase started by hand is named, with its process and its session in the database; it blocks the grant, and is not
/// killed.
pub(crate) fn by_hand(world: &mut World) {
    world.ensure_whole();
    let folder = world.lab.join("nodes/node-2/current");
    let own = world.lab.join("by-hand");
    std::fs::create_dir_all(&own).expect("the lab can be written");
    let yarn = world.lab_run("lab_need_yarn >&2; command -v yarn");
    let mut by_hand = Command::new(yarn)
        .arg("start")
        .current_dir(&folder)
        .env("APP_PORT", (13097 + world.server.offset).to_string())
        .env("SOCKET_PATH", own.join("gateway.sock"))
        .env("PM2_HOME", own.join("pm2"))
        .env("SOLOIST_TEST_BY_HAND", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("yarn can be started");
    // It is named with its process id and its owner, and so is its session: that would show from a host without an agent too.
    world.until("the foreign process and its session named", 300, |status| {
        let text = status["nodes"].to_string();
        text.contains("process ") && text.contains(" of root: ") && text.contains("database session ")
    });
    // An upgrade is not granted, names it, and has stopped nothing.
    let refused = world.cli.run(&["upgrade", "--to", "2.2.99", "--wait", "2s"]).expect(75);
    let serving = |node: &serde_json::Value| node["app"] == "serving";
    let status = world.until("the free lock", 60, |status| status["lock"]["held"] == false);
    assert!(status["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(serving)), "{status}");
    assert!(refused.stderr.contains("foreign process"), "{}", refused.stderr);
    let change = if world.map_is_loaded(0) { "disable" } else { "enable" };
    let mut command = world
        .cli
        .command(&["plugin", change, "@nocobase/plugin-map"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let status = world.until("the block", 120, |status| status["current"]["status"] == "blocked");
    assert!(
        status["current"]["detail"].as_str().is_some_and(|text| text.contains("foreign process")),
        "{status}"
    );
    assert_eq!(status["current"]["granted"], false, "{status}");
    assert!(command.try_wait().expect("it can be asked").is_none(), "the command waits");
    assert!(!marked("SOLOIST_TEST_BY_HAND=1").is_empty(), "nobody killed what a person started");
    for _ in 0..100 {
        let left = marked("SOLOIST_TEST_BY_HAND=1");
        if left.is_empty() {
            break;
        }
        left.into_iter().for_each(kill);
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = by_hand.wait();
    let output = command.wait_with_output().expect("the command line ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    world.until_whole();
}

/// A session in the database that belongs to no node blocks the grant before anything is stopped.
pub(crate) fn session(world: &mut World) {
    world.ensure_whole();
    let port = world.server.port().to_string();
    let mut stranger = Command::new("psql")
        .args(["-X", "-h", "127.0.0.1", "-p", &port, "-U", "noco", "-d", "nocobase"])
        .envs([("PGPASSWORD", "noco"), ("PGAPPNAME", "report-of-a-colleague")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("psql can be started");
    world.until("the session named", 60, |status| {
        status["nodes"].as_array().is_some_and(|nodes| {
            nodes.iter().any(|node| node["foreign"].to_string().contains("report-of-a-colleague"))
        })
    });
    let refused = world.cli.run(&["upgrade", "--to", "2.2.99", "--wait", "2s"]).expect(75);
    assert!(refused.stderr.contains("report-of-a-colleague"), "{}", refused.stderr);
    let command = world
        .cli
        .command(&["run", "--solo", "--", "true"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let status = world.until("the block", 60, |status| status["current"]["status"] == "blocked");
    let detail = status["current"]["detail"].to_string();
    assert!(detail.contains("database session") && detail.contains("known_sessions"), "{status}");
    let serving = |node: &serde_json::Value| node["app"] == "serving";
    assert!(status["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(serving)), "{status}");
    drop(stranger.stdin.take());
    let _ = stranger.wait();
    let output = command.wait_with_output().expect("the command line ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    world.until_whole();
}
