//! The runtime that the consensus library sees: tokio's with paused time, and nothing that differs between two runs of a
//! seed.
//!
//! Two things in tokio do. Election timeouts come from the thread's random numbers; `DeterministicRng` of the library draws
//! them from a seed instead. And a tokio watch channel wakes those that wait for it in an order drawn at random, from
//! numbers that only an unstable build of tokio lets anybody seed; [`InOrder`] wakes them in the order in which they came.

use std::{
    future::{Future, poll_fn},
    sync::{Arc, Mutex},
    task::{Poll, Waker},
    time::Duration,
};

use openraft::{
    OptionalSend, OptionalSync,
    rt::{
        AsyncRuntime,
        deterministic_rng::DeterministicRng,
        watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender},
    },
    type_config::alias::AsyncRuntimeOf,
};
use soloist_coordinator::raft::types::TypeConfig;
use tokio::sync::watch;

/// The coordinator's runtime, with random numbers from a seed.
type Inner = DeterministicRng<AsyncRuntimeOf<TypeConfig>>;

/// The runtime of simulated members.
#[derive(Debug)]
pub(crate) struct Seeded(Inner);

impl Seeded {
    /// Gives what is spawned in this future, and by it, random numbers from this seed.
    pub(crate) fn scope<F: Future<Output = ()> + Send>(
        seed: u64,
        work: F,
    ) -> impl Future<Output = ()> + Send {
        Inner::scope(seed, work)
    }
}

impl AsyncRuntime for Seeded {
    type JoinError = <Inner as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Inner as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Inner as AsyncRuntime>::Sleep;
    type Instant = <Inner as AsyncRuntime>::Instant;
    type TimeoutError = <Inner as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Inner as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Inner as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <Inner as AsyncRuntime>::Mpsc;
    type Watch = InOrder;
    type Oneshot = <Inner as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Inner as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Inner::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Inner::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Inner::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Inner::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Inner::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        Inner::is_panic(error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Inner::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Seeded(Inner::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }
}

/// Watch channels of tokio that wake those that wait in the order in which they came.
pub(crate) struct InOrder;

type Waiting = Arc<Mutex<Vec<Waker>>>;

fn wake(waiting: &Waiting) {
    let waiting = std::mem::take(&mut *waiting.lock().expect("nobody panics while holding the list"));
    waiting.into_iter().for_each(Waker::wake);
}

/// The end that changes the value.
pub(crate) struct Sender<T> {
    /// `None` only while dropping.
    channel: Option<watch::Sender<T>>,
    waiting: Waiting,
}

impl<T> Sender<T> {
    fn channel(&self) -> &watch::Sender<T> {
        self.channel.as_ref().expect("it is there until it is dropped")
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender { channel: self.channel.clone(), waiting: self.waiting.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // First the channel: those that wake up look whether the last sender has gone.
        self.channel.take();
        wake(&self.waiting);
    }
}

/// An end that sees the value change.
pub(crate) struct Receiver<T> {
    channel: watch::Receiver<T>,
    waiting: Waiting,
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Receiver { channel: self.channel.clone(), waiting: self.waiting.clone() }
    }
}

impl Watch for InOrder {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = watch::Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let (sender, channel) = watch::channel(init);
        let waiting = Waiting::default();
        (Sender { channel: Some(sender), waiting: waiting.clone() }, Receiver { channel, waiting })
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<InOrder, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        let sent = self.channel().send(value).map_err(|error| SendError(error.0));
        wake(&self.waiting);
        sent
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let modified = self.channel().send_if_modified(modify);
        if modified {
            wake(&self.waiting);
        }
        modified
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.channel().borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        Receiver { channel: self.channel().subscribe(), waiting: self.waiting.clone() }
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<InOrder, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        poll_fn(|context| match self.channel.has_changed() {
            Ok(true) => {
                self.channel.mark_unchanged();
                Poll::Ready(Ok(()))
            }
            Ok(false) => {
                let mut waiting = self.waiting.lock().expect("nobody panics while holding the list");
                if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    waiting.push(context.waker().clone());
                }
                Poll::Pending
            }
            Err(_) => Poll::Ready(Err(RecvError(()))),
        })
        .await
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.channel.borrow()
    }

    fn borrow_and_update(&mut self) -> watch::Ref<'_, T> {
        self.channel.borrow_and_update()
    }
}
