//! A steady HTTP load on every node, and what it saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::get;

/// What the load saw of one node.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Requests.
    pub sent: u64,
    /// Requests that did not end in 200.
    pub failed: u64,
    /// Longest time without a 200.
    pub longest_gap: Duration,
}

/// A load that runs until it is stopped, for five minutes at most.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Seen>>,
}

/// No load runs longer.
const LOAD_MAX: Duration = Duration::from_secs(300);

impl Load {
    /// Asks `path` of each port, ten times a second.
    #[must_use]
    pub fn start(ports: &[u16], path: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = ports.iter().map(|port| {
            let (port, stop) = (*port, Arc::clone(&stop));
            std::thread::spawn(move || ask(port, path, &stop))
        });
        Self { threads: threads.collect(), stop }
    }

    /// Ends it.
    ///
    /// # Panics
    /// When one of its threads did.
    #[must_use]
    pub fn stop(self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().expect("a load thread ends well")).collect()
    }
}

fn ask(port: u16, path: &str, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let began = Instant::now();
    let mut good = began;
    while !stop.load(Ordering::Relaxed) && began.elapsed() < LOAD_MAX {
        seen.sent += 1;
        if matches!(get(port, path), Some((200, _))) {
            seen.longest_gap = seen.longest_gap.max(good.elapsed());
            good = Instant::now();
        } else {
            seen.failed += 1;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    seen.longest_gap = seen.longest_gap.max(good.elapsed());
    seen
}
