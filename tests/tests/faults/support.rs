//! What the scenarios share.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use soloist_tests::faults::record::Record;
use soloist_tests::faults::report::summary;
use soloist_tests::faults::scene::Scene;
use soloist_tests::faults::verdict::{Verdict, judge};
use soloist_tests::harness::FleetOptions;

/// How long everything may take to be well once nothing is broken any more.
const CALM_MAX: Duration = Duration::from_secs(90);

/// A fleet that serves.
pub(crate) fn scene(title: &str) -> Scene {
    Scene::start(title, None, FleetOptions::default())
}

/// Starts a command that is looked at later.
pub(crate) fn begin(scene: &Scene, args: &[&str]) -> Child {
    let mut command = scene.fleet.cli().command(args);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the command line can be started")
}

/// The command ends well.
pub(crate) fn ends_well(command: Child) {
    let output = command.wait_with_output().expect("the command line ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Waits for the grant, and gives the number of the solo node less one.
pub(crate) fn granted(scene: &Scene) -> usize {
    let status = scene.fleet.until("the grant", 40, |status| status["current"]["granted"] == true);
    let solo = status["current"]["solo"].as_str().unwrap_or_default();
    solo.trim_start_matches("node-").parse::<usize>().expect("a solo node has a number") - 1
}

/// A change of a plugin that has been granted, and its solo node.
pub(crate) fn changing(scene: &Scene) -> (Child, usize) {
    let change = begin(scene, &["plugin", "enable", "@nocobase/plugin-map"]);
    let solo = granted(scene);
    (change, solo)
}

/// Whether some node is as said.
pub(crate) fn some(status: &Value, is: impl Fn(&Value) -> bool) -> bool {
    status["nodes"].as_array().is_some_and(|nodes| nodes.iter().any(is))
}

/// Everything becomes well again, and the verdict on all that was is good.
pub(crate) fn ends_good(scene: Scene) -> Verdict {
    ends_good_but_for(scene, |_| {})
}

/// The same with a record from which something was taken that means nothing in this scene.
pub(crate) fn ends_good_but_for(scene: Scene, leave_out: impl FnOnce(&mut Record)) -> Verdict {
    let calm = scene.calm(CALM_MAX);
    let logs = if calm { String::new() } else { scene.fleet.logs() };
    let mut record = scene.end();
    leave_out(&mut record);
    let verdict = judge(&record);
    assert!(verdict.good, "{}\n{logs}", summary(&verdict));
    verdict
}
