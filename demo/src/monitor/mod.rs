//! The independent process monitor: which app process trees ran, when, and for which node.
//!
//! It looks at `/proc` every few milliseconds from a thread of its own and writes down what it sees. It does not ask Soloist
//! anything and shares no code with it, so what it saw is evidence.
//!
//! ```text
//!   /proc ──every 20 ms──► scanner ──trees──► recording ◄── marks ("lock granted", …)
//!                             │                   │
//!                     matcher, labeller     verdict, timeline
//! ```
//!
//! What it cannot see: a process that starts and ends between two samples (the recording names the longest gap), and a process of
//! another pid namespace whose `/proc` is not this one. A process that turns into the app by exec long after its fork
//! is seen up to eight samples late.

mod matcher;
mod recording;
mod scanner;
mod timeline;

pub use matcher::{Labeller, Matcher, Process, is_nocobase, is_standin, label_by_node};
pub use recording::{Interval, Mark, Recording, Share, Verdict, Window};

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use recording::Recorder;
use scanner::Scanner;

/// How the monitor looks.
pub struct MonitorOptions {
    /// The time from one sample to the next.
    pub period: Duration,
    /// Which processes are the app.
    pub matcher: Matcher,
    /// Which node an app process belongs to.
    pub labeller: Labeller,
}

impl MonitorOptions {
    /// Every 20 ms, for the processes that `matcher` names, labelled by node.
    pub fn new(matcher: impl Fn(&[String]) -> bool + Send + 'static) -> Self {
        Self {
            period: Duration::from_millis(20),
            matcher: Box::new(matcher),
            labeller: Box::new(label_by_node),
        }
    }

    /// The same with another labeller.
    #[must_use]
    pub fn labelled(mut self, labeller: impl Fn(&Process) -> String + Send + 'static) -> Self {
        self.labeller = Box::new(labeller);
        self
    }

    /// The same with another period.
    #[must_use]
    pub fn every(mut self, period: Duration) -> Self {
        self.period = period;
        self
    }
}

#[derive(Debug)]
struct Shared {
    epoch: Instant,
    stop: AtomicBool,
    recorder: Mutex<Recorder>,
}

impl Shared {
    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        // Every change to the recorder is complete in itself.
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running monitor. Dropped without [`Monitor::stop`] it ends by itself.
#[derive(Debug)]
pub struct Monitor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Starts to watch; the first sample is taken before this returns.
    ///
    /// # Errors
    /// When `/proc` cannot be read or the thread cannot be started.
    pub fn start(options: MonitorOptions) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            epoch: Instant::now(),
            stop: AtomicBool::new(false),
            recorder: Mutex::default(),
        });
        let mut scanner = Scanner::new(options.matcher, options.labeller);
        let trees = scanner.sample()?;
        shared.recorder().sample(shared.epoch.elapsed(), trees);
        let watched = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("process-monitor".to_owned())
            .spawn(move || watch(&watched, &mut scanner, options.period))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Writes down an event with the time of the call, and returns that time (since the start of the monitor).
    pub fn mark(&self, text: impl Into<String>) -> Duration {
        let at = self.shared.epoch.elapsed();
        self.shared.recorder().mark(at, text.into());
        at
    }

    /// The instant from which the recording counts.
    #[must_use]
    pub fn epoch(&self) -> Instant {
        self.shared.epoch
    }

    /// What was seen so far; the monitor goes on.
    #[must_use]
    pub fn so_far(&self) -> Recording {
        self.shared.recorder().recording(self.shared.epoch, self.shared.epoch.elapsed())
    }

    /// Ends the watch and returns what was seen.
    #[must_use]
    pub fn stop(mut self) -> Recording {
        self.end();
        self.so_far()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the sampler shows as a gap up to the end of the recording.
            let _ = thread.join();
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.end();
    }
}

fn watch(shared: &Shared, scanner: &mut Scanner, period: Duration) {
    let mut next = Instant::now() + period;
    while !shared.stop.load(Ordering::Relaxed) {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        // A failed look is no look: it widens the gap, which the recording shows.
        if let Ok(trees) = scanner.sample() {
            shared.recorder().sample(shared.epoch.elapsed(), trees);
        }
        // A late sample is not made up for by two quick ones.
        next = (next + period).max(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Far more than anything here takes on a busy machine.
    const DEADLINE: Duration = Duration::from_secs(30);

    /// A shell that stays, told apart by a word in its arguments.
    fn app(tag: &str, node: &str, script: &str) -> Child {
        Command::new("sh")
            .args(["-c", script, tag])
            .env("SOLOIST_NODE", node)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh starts")
    }

    fn watch(matcher: impl Fn(&[String]) -> bool + Send + 'static) -> Monitor {
        Monitor::start(MonitorOptions::new(matcher).every(Duration::from_millis(5))).unwrap()
    }

    fn watch_for(tag: &str) -> Monitor {
        let tag = tag.to_owned();
        watch(move |arguments| arguments.contains(&tag))
    }

    /// Waits until what was seen so far is as it should be, and returns the time of that.
    fn until(monitor: &Monitor, what: &str, seen: impl Fn(&Recording) -> bool) -> Duration {
        let began = Instant::now();
        loop {
            let recording = monitor.so_far();
            if seen(&recording) {
                return monitor.mark(what);
            }
            assert!(began.elapsed() < DEADLINE, "{what}: not seen in {recording:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn running(recording: &Recording) -> usize {
        recording.intervals.iter().filter(|interval| !interval.ended).count()
    }

    fn more_samples(monitor: &Monitor, count: u64) {
        let before = monitor.so_far().samples;
        until(monitor, "samples", |recording| recording.samples >= before + count);
    }

    fn end(child: &mut Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn real_processes_are_seen_from_start_to_end() {
        let tag = format!("monitor-test-a-{}", std::process::id());
        let monitor = watch_for(&tag);
        let mut one = app(&tag, "node-1", "read -r x");
        let first = until(&monitor, "the first", |seen| running(seen) == 1);
        let mut two = app(&tag, "node-2", "read -r x");
        let both = until(&monitor, "both", |seen| running(seen) == 2);
        more_samples(&monitor, 2);
        end(&mut one);
        let second = until(&monitor, "the second alone", |seen| running(seen) == 1);
        more_samples(&monitor, 2);
        end(&mut two);
        until(&monitor, "none", |seen| running(seen) == 0);
        let recording = monitor.stop();
        let labels: Vec<&str> = recording.intervals.iter().map(|i| i.label.as_str()).collect();
        assert_eq!(labels, ["node-1", "node-2"]);
        let [one, two] = [&recording.intervals[0], &recording.intervals[1]];
        assert!(one.ended && one.start <= first && one.end >= both && one.end <= second, "{recording:?}");
        assert!(two.ended && two.start > first && two.start <= both && two.end >= second, "{recording:?}");
        assert_eq!(recording.max_concurrent(recording.whole()), 2);
        assert_eq!(recording.max_concurrent(Window { from: Duration::ZERO, to: first }), 1);
    }

    #[test]
    fn a_child_belongs_to_its_tree_until_the_root_is_gone() {
        let tag = format!("monitor-test-b-{}", std::process::id());
        let monitor = watch_for(&tag);
        // The child carries the tag too; it outlives the root as an orphan, until its input ends.
        let mut root = app(&tag, "node-1", "exec 3<&0; sh -c 'read -r x <&3; :' \"$0\" & read -r x");
        let input = root.stdin.take();
        until(&monitor, "the tree", |seen| running(seen) == 1);
        more_samples(&monitor, 20);
        end(&mut root);
        until(&monitor, "the orphan", |seen| seen.intervals.len() == 2);
        drop(input);
        until(&monitor, "none", |seen| running(seen) == 0);
        let recording = monitor.stop();
        assert_eq!(recording.intervals.len(), 2, "{recording:?}");
        assert_eq!(recording.max_concurrent(recording.whole()), 1);
    }

    #[test]
    fn a_process_that_turns_into_the_app_by_exec_is_noticed() {
        let tag = format!("monitor-test-c-{}", std::process::id());
        let marker = tag.clone();
        let monitor = watch(move |arguments| arguments.last() == Some(&marker));
        let script = format!("read -r turn; exec sh -c 'read -r x' {tag}");
        let mut child = app("before", "node-3", &script);
        // It is not read at every sample any more.
        more_samples(&monitor, 40);
        let turned = monitor.mark("turned");
        child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        until(&monitor, "the app", |seen| running(seen) == 1);
        end(&mut child);
        until(&monitor, "none", |seen| running(seen) == 0);
        let recording = monitor.stop();
        assert_eq!(recording.intervals.len(), 1, "{recording:?}");
        assert!(recording.intervals[0].start > turned);
    }
}
