//! Somebody uploads a plugin in the app's own interface: NocoBase leaves a marker, with which the next start of any node upgrades.

use crate::api::Person;
use crate::packages::{Kind, LAB, archive, everywhere};
use crate::upgrade_faults::with_damaged_backups;
use crate::world::{World, wait};

/// See the module.
pub(crate) fn migrated(world: &mut World) {
    world.ensure_whole();
    world.policy("");
    let marker = world.lab.join("fleet/storage/.upgrading");
    let file = archive(&world.lab.join("packages"), "2.0.0", Kind::Migrates);
    Person::at(world.app_port(0)).upload("pm:add", &file);
    wait("the marker", 20, || marker.exists());

    // It is named, and nothing that would trip over it begins.
    let found = world.cli.run(&["preflight"]).expect(1);
    assert!(found.stdout.contains(".upgrading") && found.stdout.contains("soloist migrate"), "{found:?}");
    let before = world.app_pids(1);
    let refused = world.cli.run(&["run", "--solo", "--", "true"]).expect(77);
    assert!(refused.stderr.contains(".upgrading"), "{refused:?}");
    assert_eq!(world.app_pids(1), before, "nothing was stopped");

    // It fails before any migration has begun: the nodes can start again.
    let failed = with_damaged_backups(world, &["migrate", "--on", "node-1"]).expect(1);
    assert!(failed.stderr.contains("damaged"), "{failed:?}");
    world.until_whole();
    assert!(!marker.exists());

    Person::at(world.app_port(0)).upload("pm:add", &file);
    wait("the marker", 20, || marker.exists());
    let _ = world.cli.run(&["migrate"]).expect(0);
    world.until_whole();
    assert!(!marker.exists(), "NocoBase has done with it");
    let _ = world.cli.run(&["preflight"]).expect(0);
    let _ = world.cli.run(&["plugin", "enable", LAB]).expect(0);
    everywhere(world, Some("2.0.0"));
    let _ = world.cli.run(&["plugin", "remove", LAB]).expect(0);
    everywhere(world, None);
    world.policy("");
}
