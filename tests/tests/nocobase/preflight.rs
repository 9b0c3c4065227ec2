//! Whether the nodes are alike.

use crate::world::World;

/// A healthy fleet has no problem, and another time zone on one node is named with the node.
#[expect(clippy::print_stdout, reason = "what a healthy fleet is told is worth seeing")]
pub(crate) fn settings(world: &mut World) {
    world.ensure_whole();
    let clean = world.cli.run(&["preflight"]);
    println!("{}", clean.stdout);
    let clean = clean.expect(0);
    assert!(clean.stdout.contains("14 checks"), "{}", clean.stdout);

    let file = world.lab.join("nodes/node-2/.env");
    let before = std::fs::read_to_string(&file).expect("the node has settings");
    std::fs::write(&file, before.replace("TZ=UTC", "TZ=Asia/Tokyo")).expect("the lab can be written");
    let differs = world.cli.run(&["preflight"]);
    let json = world.cli.run(&["preflight", "-o", "json"]).json();
    std::fs::write(&file, before).expect("the lab can be written");
    println!("{}", differs.stdout);
    let differs = differs.expect(1);
    assert!(
        differs.stdout.contains("TZ differs: one value on node-1, node-3; another on node-2"),
        "{}",
        differs.stdout
    );
    let findings = json["findings"].as_array().expect("findings");
    let problems = findings.iter().filter(|finding| finding["severity"] == "problem");
    for problem in problems {
        assert_eq!(problem["check"], "settings", "{problem}");
        assert_eq!(problem["nodes"], serde_json::json!(["node-2"]), "{problem}");
    }
    // Put right, it is fine again at once, and nothing of the app was touched.
    let _ = world.cli.run(&["preflight"]).expect(0);
    world.until_whole();
}
