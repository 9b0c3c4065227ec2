//! Runs Soloist's real programs: coordinators, agents and the command line, as processes of their own.

pub mod balancer;
mod cli;
pub mod crowd;
mod daemon;
mod fleet;
mod haproxy;
mod held;
mod http;
pub mod load;
mod net;
pub mod nginx;
mod place;
mod poller;
mod ports;
pub mod proxy;
pub mod sockets;
mod sticky;
pub mod users;

use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use cli::{Cli, Output};
pub use daemon::{Daemon, kill_marked, marked};
pub use fleet::{CLIENT, Fleet, FleetOptions, whole};
pub use held::Held;
pub use http::{get, get_json, get_json_at, get_signed_in, head, head_at};
pub use net::Net;
pub use place::Place;
pub use poller::Poller;
pub use ports::free_ports;

/// The folder with Soloist's programs: `SOLOIST_BIN`, else where cargo put them for these tests.
///
/// # Panics
/// When they were not built.
#[must_use]
pub fn bin(name: &str) -> PathBuf {
    let folder = std::env::var_os("SOLOIST_BIN").map(PathBuf::from).unwrap_or_else(|| {
        let own = std::env::current_exe().expect("a running program has a path");
        let folder = own.parent().expect("a program lies in a folder");
        // Tests lie in target/<profile>/deps, programs beside the others.
        let deps = folder.ends_with("deps").then(|| folder.parent()).flatten();
        deps.unwrap_or(folder).to_owned()
    });
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: build it first with cargo build", path.display());
    path
}

/// Waits until `condition` gives something.
///
/// # Panics
/// When it does not within `limit`; says `what` was waited for and `state` at the end.
pub fn until<T>(
    what: &str,
    limit: Duration,
    state: impl Fn() -> String,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < limit, "{what} did not happen within {} s: {}", limit.as_secs(), state());
        std::thread::sleep(Duration::from_millis(25));
    }
}
