//! What only MariaDB can show.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::server::Server;
use crate::upgrades;
use crate::world::World;

/// How often the schema is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A release fails in the middle of its upgrade and leaves half a schema, because no statement about tables can be taken
/// back there: the restore puts it right.
pub(crate) fn broken(world: &mut World) {
    let stop = Arc::new(AtomicBool::new(false));
    let (server, watched) = (world.server, Arc::clone(&stop));
    let half = thread::spawn(move || saw_half(server, &watched));
    upgrades::broken(world);
    stop.store(true, Ordering::Relaxed);
    assert!(half.join().expect("the look at the schema ends well"), "nobody saw half a schema");
}

/// Whether the table of the migration that fails was there at some time. The fleet's database is not connected to for it.
fn saw_half(server: Server, stop: &AtomicBool) -> bool {
    let query = "select count(*) from tables where table_schema = 'nocobase' and table_name = 'lab_half'";
    while !stop.load(Ordering::Relaxed) {
        if server.sql("information_schema", query) == "1" {
            return true;
        }
        thread::sleep(LOOK_EVERY);
    }
    false
}
