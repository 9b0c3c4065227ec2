//! Users of a fleet, who come through its load balancer, and what they get.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::get;
use super::sticky::Sticky;

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

/// One answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// When it was there, since the first request.
    pub after: Duration,
    /// How long it took.
    pub took: Duration,
    /// What it was.
    pub got: Got,
    /// The version that the app said, in `data.version` of its answer.
    pub version: Option<String>,
    /// The server that the cookie names which the client has then.
    pub server: Option<String>,
    /// Its kept connection was closed under it, so it was asked once more on a new one, as browsers do.
    pub again: bool,
}

/// What users got, in order.
#[derive(Debug, Clone)]
pub struct Story(pub Vec<Answer>);

impl Story {
    /// How often each was got.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Got, usize> {
        let mut counts = BTreeMap::new();
        for answer in &self.0 {
            *counts.entry(answer.got.clone()).or_default() += 1;
        }
        counts
    }

    /// Whether every request was answered by the app or by the maintenance page.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.0.iter().all(|answer| matches!(answer.got, Got::App | Got::Page))
    }

    /// Whether every request was answered by the app, and there were some.
    #[must_use]
    pub fn is_app_only(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|answer| answer.got == Got::App)
    }

    /// The versions that the app said, in order, each once for as long as nothing else was said. One that comes back is here twice.
    #[must_use]
    pub fn versions(&self) -> Vec<&str> {
        changes(self.0.iter().filter_map(|answer| answer.version.as_deref()))
    }

    /// The servers that a sticky client was on, in the same way.
    #[must_use]
    pub fn servers(&self) -> Vec<&str> {
        changes(self.0.iter().filter_map(|answer| answer.server.as_deref()))
    }

    /// How long the slowest answer took.
    #[must_use]
    pub fn slowest(&self) -> Duration {
        self.0.iter().map(|answer| answer.took).max().unwrap_or_default()
    }

    /// How many requests were asked once more.
    #[must_use]
    pub fn asked_again(&self) -> usize {
        self.0.iter().filter(|answer| answer.again).count()
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, versions {:?}, slowest {:?}", self.counts(), self.versions(), self.slowest())?;
        write!(f, ", asked again {}, on {:?}", self.asked_again(), self.servers())
    }
}

/// What comes one after the other, without repetitions.
fn changes<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut changes: Vec<&str> = all.collect();
    changes.dedup();
    changes
}

/// A user who asks all the time.
#[derive(Debug)]
pub struct Users {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Story>,
}

impl Users {
    /// Asks a path at a port every 50 ms, on a connection of its own and without a cookie. What the app says there has `mark` in it.
    #[must_use]
    pub fn start(port: u16, path: &'static str, mark: &'static str) -> Self {
        Self::asking(
            move || {
                let answer = get(port, path);
                (answer, None, false)
            },
            mark,
        )
    }

    /// The same, from one browser: it keeps its connection and its cookie.
    #[must_use]
    pub fn start_sticky(port: u16, path: &'static str, mark: &'static str) -> Self {
        let mut sticky = Sticky::new(port);
        Self::asking(
            move || {
                let (answer, again) = sticky.get(path);
                (answer, sticky.server(), again)
            },
            mark,
        )
    }

    fn asking(
        mut ask: impl FnMut() -> (Option<(u16, String)>, Option<String>, bool) + Send + 'static,
        mark: &'static str,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (began, mut story) = (Instant::now(), Vec::new());
            while !asked.load(Ordering::Relaxed) && began.elapsed() < AT_MOST {
                let asked = Instant::now();
                let (answer, server, again) = ask();
                let (after, took) = (began.elapsed(), asked.elapsed());
                let (version, got) = (answer.as_ref().and_then(version), judge(answer, mark));
                story.push(Answer { after, took, got, version, server, again });
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

fn judge(answer: Option<(u16, String)>, mark: &str) -> Got {
    match answer {
        None => Got::Nothing,
        Some((200, body)) if body.contains(mark) => Got::App,
        Some((503, body)) if PAGES.iter().any(|page| body.contains(page)) => Got::Page,
        Some((503, body)) if body.contains(BARE) => Got::BarePage,
        Some((status, body)) => Got::Other(status, body.chars().take(120).collect()),
    }
}

fn version((status, body): &(u16, String)) -> Option<String> {
    let body: Value = serde_json::from_str(body).ok().filter(|_| *status == 200)?;
    body["data"]["version"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(answer: Option<(u16, &str)>) -> Answer {
        let answer = answer.map(|(status, body)| (status, body.to_owned()));
        let version = answer.as_ref().and_then(version);
        let (after, took) = (Duration::ZERO, Duration::ZERO);
        Answer { after, took, got: judge(answer, "version"), version, server: None, again: false }
    }

    #[test]
    fn a_version_that_comes_back_is_told_twice() {
        let (old, new) =
            (Some((200, r#"{"data":{"version":"1"}}"#)), Some((200, r#"{"data":{"version":"2"}}"#)));
        let page = Some((503, "<title>Back soon</title>"));
        let story = |all: &[Option<(u16, &str)>]| Story(all.iter().copied().map(told).collect());
        assert_eq!(story(&[old, old, page, new, new]).versions(), ["1", "2"]);
        assert_eq!(story(&[old, new, page, old, new]).versions(), ["1", "2", "1", "2"]);
        assert!(story(&[old, new]).is_app_only() && story(&[old, page]).is_clean());
        assert!(!story(&[]).is_app_only() && !story(&[old, page]).is_app_only());
        for other in [None, Some((200, "a stranger")), Some((503, "busy")), Some((502, "<title>Back soon"))] {
            assert!(!story(&[old, other]).is_clean(), "{other:?}");
        }
    }
}
