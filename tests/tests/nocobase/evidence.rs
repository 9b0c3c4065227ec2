//! What the agents recorded must hold by itself, and agree with the test's own witness.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::world::{Seen, World, wait};

/// The last operation is proven from its exported evidence: `solo` alone ran, and was the only one that was connected, as the
/// test's witness saw too.
pub(crate) fn proves(world: &World, seen: &Seen, solo: &str) {
    let id = world.last_operation()["id"].as_str().expect("an operation has an id").to_owned();
    let show = || world.cli.run(&["operation", "show", &id, "-o", "json"]).expect(0).json();
    wait("the proof", 20, || show()["evidence"]["verdict"] == "proven");
    let file = world.lab.join(format!("evidence-{id}.json"));
    let name = file.to_string_lossy().into_owned();
    let _ = world.cli.run(&["evidence", &id, "--file", &name]).expect(0);
    let checked = world.cli.run(&["-o", "json", "evidence", "check", &name]).expect(0).json();
    let lines = checked["lines"].to_string();
    for grant in checked["proof"]["grants"].as_array().expect("it was alone") {
        let ms = |name: &str| grant[name].as_u64().unwrap_or_else(|| panic!("{name} in {grant}"));
        let names = |list: &Value| -> BTreeSet<String> {
            list.as_array().into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
        };
        let window = seen.window(ms("from_wall_ms"), ms("to_wall_ms"));
        let connected = names(&grant["connected"]);
        let witnessed: BTreeSet<String> =
            seen.sessions.nodes(window).into_iter().map(ToOwned::to_owned).collect();
        assert!(connected.is_subset(&witnessed), "{connected:?} and {witnessed:?}: {lines}");
        // What is connected for longer than it takes from one sample to the next is in both.
        assert!(witnessed.iter().all(|node| node == solo), "{witnessed:?}: {lines}");
        assert_eq!(names(&Value::from(vec![solo])), connected, "{lines}");
        assert!(grant["samples"]["count"].as_u64().is_some_and(|count| count > 0), "{lines}");
        assert!(lines.contains("connected ("), "{lines}");
    }
}
