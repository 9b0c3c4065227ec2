//! A load balancer, as far as agents notice one: somebody asks `/ready` all the time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Place, head_at};

/// How often each agent is asked; real ones ask about every two seconds.
const EVERY: Duration = Duration::from_millis(200);

/// Asks until it is dropped.
#[derive(Debug)]
pub struct Poller {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Poller {
    /// Asks the agents at these HTTP ports.
    #[must_use]
    pub fn start(ports: &[u16]) -> Self {
        let loopback = ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port)));
        Self::start_at(Place::default(), loopback.collect())
    }

    /// Asks the agents at these HTTP addresses from another place.
    #[must_use]
    pub fn start_at(place: Place, agents: Vec<SocketAddr>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            place.enter();
            while !asked.load(Ordering::Relaxed) {
                for agent in &agents {
                    // What it says is for a balancer to act on.
                    let _ = head_at(*agent, "/ready");
                }
                std::thread::sleep(EVERY);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
