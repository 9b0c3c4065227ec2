//! What only MariaDB can show.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::releases::GOOD;
use crate::server::Server;
use crate::upgrades::{self, READY, begin};
use crate::world::{NODES, VERSION, World};

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

/// The password in a node's settings is not the database's: nothing is stopped, it is said which node and why, and the
/// password is nowhere in what is said or logged.
pub(crate) fn wrong_password(world: &mut World) {
    const WRONG: &str = "not-the-password";
    let _ = begin(world, READY);
    let before: Vec<_> = (0..NODES).map(|at| world.app_pids(at)).collect();
    let file = world.lab.join("nodes/node-1/.env");
    let right = std::fs::read_to_string(&file).expect("the node has settings");
    let wrong = right.replace("DB_PASSWORD=noco\n", &format!("DB_PASSWORD={WRONG}\n"));
    assert_ne!(wrong, right, "the settings have a password");
    std::fs::write(&file, wrong).expect("the lab can be written");
    let asked: [(&[&str], i32); 5] = [
        (&["preflight"], 1),
        (&["upgrade", "--to", GOOD, "--on", "node-1"], 77),
        (&["upgrade", "--to", GOOD, "--on", "node-1", "--skip-preflight"], 1),
        (&["backup", "--on", "node-1"], 77),
        (&["backup", "--on", "node-1", "--skip-preflight"], 1),
    ];
    let outputs = asked.map(|(args, code)| (world.cli.run(args), code));
    std::fs::write(&file, right).expect("the lab can be written");
    for (output, code) in outputs {
        let said = format!("{}{}", output.stdout, output.stderr);
        let _ = output.expect(code);
        assert!(said.contains("node-1") && said.contains("Access denied"), "{said}");
        assert!(!said.contains(WRONG), "{said}");
    }
    let log = world.agents[0].as_ref().expect("the agent runs").log();
    assert!(!log.contains(WRONG), "a password is in the log: {log}");
    let after: Vec<_> = (0..NODES).map(|at| world.app_pids(at)).collect();
    assert_eq!(after, before, "nothing was started anew");
    world.serves(VERSION);
}
