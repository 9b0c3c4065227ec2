//! Ports for programs that are started later, or again.

use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Where they lie: below those that the system gives to connections and to whoever asks for any port (32768 and up), so that nobody is
/// given one between now and the moment when its program listens on it, and no connection that ended a moment ago keeps it.
const FIRST: u16 = 17_000;
const COUNT: u16 = 15_000;

/// Each is handed out once in a process; processes begin in different places.
static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random::<u16>() % COUNT));

/// Ports that nobody listens on, and that nobody else in this process is given.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn free_ports(count: usize) -> Vec<u16> {
    let next = || FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let ports: Vec<u16> = (0..COUNT).map(|_| next()).filter(free).take(count).collect();
    assert_eq!(ports.len(), count, "no free ports are left");
    ports
}
