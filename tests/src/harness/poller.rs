//! A load balancer, as far as agents notice one: somebody asks `/ready` all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::head;

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
        let (stop, ports) = (Arc::new(AtomicBool::new(false)), ports.to_vec());
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !asked.load(Ordering::Relaxed) {
                for port in &ports {
                    // What it says is for a balancer to act on.
                    let _ = head(*port, "/ready");
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
