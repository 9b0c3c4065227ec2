//! Users of a fleet, who come through its load balancer, and what they get.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::get;

/// Between two requests.
const EVERY: Duration = Duration::from_millis(50);
/// They give up after so long.
const AT_MOST: Duration = Duration::from_secs(600);

/// What stands in the maintenance page: that of an agent, for requests of the API, and the load balancer's own, when there is none.
const PAGES: [&str; 2] = ["\"maintaining\":true", "<title>Back soon"];

/// What an agent answers that has not been told of a maintenance.
const BARE: &str = "APP_UNAVAILABLE";

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Got {
    /// The app answered it.
    App,
    /// The maintenance page did.
    Page,
    /// So did the page of an agent that knows no reason: the coordinator that it follows has just gone.
    BarePage,
    /// Something else came back: its status and the beginning of it.
    Other(u16, String),
    /// Nothing: the connection was refused, reset, or there was no answer in time.
    Nothing,
}

/// What users got, in order, with the time since the first request.
#[derive(Debug, Clone)]
pub struct Story(pub Vec<(Duration, Got)>);

impl Story {
    /// How often each was got.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Got, usize> {
        let mut counts = BTreeMap::new();
        for (_, got) in &self.0 {
            *counts.entry(got.clone()).or_default() += 1;
        }
        counts
    }

    /// Whether every request was answered by the app or by the maintenance page, with what there is to say about it.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.0.iter().all(|(_, got)| matches!(got, Got::App | Got::Page))
    }
}

/// A user who asks all the time.
#[derive(Debug)]
pub struct Users {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Story>,
}

impl Users {
    /// Asks a path at a port every 50 ms. What the app says there has `mark` in it.
    #[must_use]
    pub fn start(port: u16, path: &'static str, mark: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (began, mut story) = (Instant::now(), Vec::new());
            while !asked.load(Ordering::Relaxed) && began.elapsed() < AT_MOST {
                let got = match get(port, path) {
                    None => Got::Nothing,
                    Some((200, body)) if body.contains(mark) => Got::App,
                    Some((503, body)) if PAGES.iter().any(|page| body.contains(page)) => Got::Page,
                    Some((503, body)) if body.contains(BARE) => Got::BarePage,
                    Some((status, body)) => Got::Other(status, body.chars().take(120).collect()),
                };
                story.push((began.elapsed(), got));
                std::thread::sleep(EVERY);
            }
            Story(story)
        });
        Self { stop, thread }
    }

    /// Ends it.
    ///
    /// # Panics
    /// When its thread did.
    #[must_use]
    pub fn stop(self) -> Story {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("users end well")
    }
}
