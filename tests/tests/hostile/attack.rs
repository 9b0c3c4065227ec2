//! What hostile clients do, in threads of this process, until told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use soloist_tests::harness::until;

use crate::raw::{PREFACE, Raw};

const LIST: &str = "/soloist.v1.OperatorService/ListFleets";
const WATCH: &str = "/soloist.v1.OperatorService/Watch";
const SUBMIT: &str = "/soloist.v1.OperatorService/Submit";
const SESSION: &str = "/soloist.v1.AgentService/Session";

/// An attack that is under way; it ends when it is dropped.
pub(crate) struct Attack {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Attack {
    /// Begins `count` attackers; each repeats `act`, which says how much it did.
    fn begin(count: usize, act: impl Fn(usize) -> Box<dyn FnMut() -> usize> + Send + Sync + 'static) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let act = Arc::new(act);
        let threads = (0..count).map(|number| {
            let (stop, done, act) = (stop.clone(), done.clone(), act.clone());
            std::thread::spawn(move || {
                let mut act = act(number);
                while !stop.load(Ordering::Relaxed) {
                    done.fetch_add(act(), Ordering::Relaxed);
                }
            })
        });
        let threads = threads.collect();
        Self { stop, done, threads }
    }

    /// Waits until so much was done.
    pub(crate) fn until_done(&self, count: usize) {
        let done = || self.done.load(Ordering::Relaxed);
        let state = || format!("{} of {count} done", done());
        until("the attack", Duration::from_secs(30), state, || (done() >= count).then_some(()));
    }

    /// Opens connections that stall, each at a different place, as many as `count` at a time, and opens those again that the
    /// server has closed.
    pub(crate) fn stall(ports: Vec<SocketAddr>, count: usize) -> Self {
        const BEGINNINGS: [&[u8]; 5] = [
            b"",
            b"PRI * HTTP/2.0\r\n",
            b"GET /ready HTTP/1.1\r\nhost: x\r\nx-slow: ",
            PREFACE,
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nhalf",
        ];
        Self::begin(1, move |_| {
            let ports = ports.clone();
            let mut open: Vec<Option<Raw>> = (0..count).map(|_| None).collect();
            let mut turn = 0;
            Box::new(move || {
                let at = turn % count;
                turn += 1;
                if let Some(raw) = &mut open[at]
                    && raw.is_open()
                {
                    return 0;
                }
                open[at] =
                    Raw::open(ports[turn % ports.len()], BEGINNINGS[turn / ports.len() % BEGINNINGS.len()]);
                usize::from(open[at].is_some())
            })
        })
    }

    /// Floods with calls, and takes the answers.
    pub(crate) fn flood(at: SocketAddr, attackers: usize) -> Self {
        Self::begin(attackers, move |_| {
            let mut raw = None;
            Box::new(move || {
                let Some(open) = raw.get_or_insert_with(|| Raw::greeted(at)) else {
                    raw = None;
                    return 0;
                };
                let sent = (0..50).filter(|_| open.call(LIST, &[]) && open.take_back(LIST)).count();
                if sent == 0 || !open.is_open() {
                    raw = None;
                }
                sent
            })
        })
    }

    /// Asks for more and more, and never reads.
    pub(crate) fn never_read(at: SocketAddr, attackers: usize) -> Self {
        Self::begin(attackers, move |number| {
            let mut raw = None;
            Box::new(move || {
                let Some(open) = raw.get_or_insert_with(|| Raw::greeted(at)) else {
                    raw = None;
                    return 0;
                };
                let path = if number % 2 == 0 { LIST } else { WATCH };
                let sent = (0..200).filter(|_| open.call(path, &[])).count();
                if sent == 0 {
                    raw = None;
                }
                sent
            })
        })
    }

    /// Begins messages that never end, on as many streams as there may be, and keeps them.
    pub(crate) fn half_messages(at: SocketAddr, attackers: usize) -> Self {
        Self::begin(attackers, move |_| {
            let mut raw: Option<Raw> = None;
            let mut streams = 0;
            Box::new(move || {
                if raw.as_mut().is_none_or(|open| !open.is_open()) {
                    raw = Raw::greeted(at);
                    streams = 0;
                }
                let Some(open) = raw.as_mut().filter(|_| streams < 60) else { return 0 };
                streams += 1;
                usize::from(open.half(if streams % 2 == 0 { SUBMIT } else { SESSION }, 1 << 20, 15_000))
            })
        })
    }

    /// Leaves in the middle of everything.
    pub(crate) fn hang_up(at: SocketAddr, attackers: usize) -> Self {
        Self::begin(attackers, move |number| {
            let mut turn = number;
            Box::new(move || {
                turn += 1;
                let Some(mut raw) = Raw::greeted(at) else { return 0 };
                match turn % 4 {
                    0 => raw.call(WATCH, &[]),
                    1 => raw.half(SUBMIT, 5000, 100),
                    2 => raw.half(SESSION, 200, 100),
                    _ => raw.begin(LIST).is_some(),
                };
                1
            })
        })
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked has told already.
            let _ = thread.join();
        }
    }
}
