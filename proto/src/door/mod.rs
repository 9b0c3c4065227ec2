//! The door of a server: how many may be connected at a time, and who goes when one more comes.
//!
//! Strangers reach every port, and a connection costs memory and a file however little it says. So a port has a bound; when
//! it is reached, the connection that has been without a call for the longest goes for the one that comes. A client that asks
//! at once, as those of Soloist do, is let in and answered, however many others stall.
//!
//! ```text
//!   accept ─► seat ─► greeting in time? ─► calls … ─► none for a while ─► closed
//!               └── full, and this one has no call: closed for another ──────┘
//! ```
//!
//! A connection with a call under way is never closed for another: when all have one, those that come are turned away.

mod calls;
mod connection;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

pub use calls::{Body, Calls, Counting};
pub use connection::Connection;

/// What [`Terms::stuck_max`] is everywhere.
pub const STUCK_MAX: Duration = Duration::from_secs(10);
/// That a door is full is told again after so long.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Pause after an error of the listener, for example when no file can be opened.
const PAUSE: Duration = Duration::from_millis(200);

/// What holds for the connections of one port.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// The port, for people.
    pub port: &'static str,
    /// Most connections at a time.
    pub connections_max: usize,
    /// A connection that has not sent `greeting_bytes` after so long is closed …
    pub greeting_max: Duration,
    /// … where the protocol begins with as many; else 0.
    pub greeting_bytes: usize,
    /// A connection without a call is closed after so long.
    pub idle_max: Duration,
    /// A client that takes nothing of what is written for it for so long is left.
    pub stuck_max: Duration,
}

/// A listener that keeps to its [`Terms`].
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    seats: Arc<Seats>,
}

impl Door {
    /// For this listener.
    #[must_use]
    pub fn new(listener: TcpListener, terms: Terms) -> Self {
        Self { listener, seats: Arc::new(Seats { terms, inner: Mutex::default() }) }
    }

    /// The next connection that is let in. Cancel-safe.
    pub async fn accept(&mut self) -> Connection {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if let Some(connection) = Connection::new(stream, &self.seats) {
                        return connection;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, port = self.seats.terms.port, "no connection can be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

impl axum::serve::Listener for Door {
    type Io = Connection;
    type Addr = Caller;

    async fn accept(&mut self) -> (Connection, Caller) {
        let connection = Door::accept(self).await;
        let caller = connection.caller();
        (connection, caller)
    }

    fn local_addr(&self) -> io::Result<Caller> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, Door>> for Caller {
    fn connect_info(stream: axum::serve::IncomingStream<'_, Door>) -> Self {
        stream.remote_addr().clone()
    }
}

/// Who a call comes from: one connection.
#[derive(Debug, Clone)]
pub struct Caller {
    seats: Arc<Seats>,
    id: u64,
}

/// A call that is under way, until it is dropped.
#[derive(Debug)]
pub struct Call(Caller);

impl Caller {
    /// A call begins.
    #[must_use]
    pub fn call(&self) -> Call {
        self.seats.change(self.id, |calls| calls + 1);
        Call(self.clone())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.seats.change(self.0.id, |calls| calls.saturating_sub(1));
    }
}

/// The connections of a port.
#[derive(Debug)]
struct Seats {
    terms: Terms,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The last number that was given.
    last: u64,
    seats: BTreeMap<u64, Seat>,
    /// Those without a call, the longest first: from the number of the moment to the connection.
    idle: BTreeMap<u64, u64>,
    told: Option<Instant>,
}

#[derive(Debug)]
struct Seat {
    calls: usize,
    /// Its number in `idle`.
    order: u64,
    idle_since: Instant,
    cut: CancellationToken,
}

impl Inner {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn tell(&mut self, terms: &Terms) {
        if self.told.is_none_or(|told| told.elapsed() > TELL_EVERY) {
            self.told = Some(Instant::now());
            tracing::warn!(
                port = terms.port,
                connections = self.seats.len(),
                "as many connections as may be: for each that comes, one without a call is closed"
            );
        }
    }
}

impl Seats {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock can end half-way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a connection a seat, and what tells it to go; `None` if there is no seat for it.
    fn take(self: &Arc<Self>) -> Option<(Caller, CancellationToken)> {
        let mut inner = self.inner();
        if inner.seats.len() >= self.terms.connections_max {
            inner.tell(&self.terms);
            let (_, longest) = inner.idle.pop_first()?;
            if let Some(seat) = inner.seats.remove(&longest) {
                seat.cut.cancel();
            }
        }
        let (id, cut) = (inner.next(), CancellationToken::new());
        let seat = Seat { calls: 0, order: id, idle_since: Instant::now(), cut: cut.clone() };
        inner.seats.insert(id, seat);
        inner.idle.insert(id, id);
        Some((Caller { seats: Arc::clone(self), id }, cut))
    }

    fn leave(&self, id: u64) {
        let mut inner = self.inner();
        if let Some(seat) = inner.seats.remove(&id) {
            inner.idle.remove(&seat.order);
        }
    }

    fn change(&self, id: u64, count: impl Fn(usize) -> usize) {
        let mut inner = self.inner();
        let order = inner.next();
        let Inner { seats, idle, .. } = &mut *inner;
        // It may be gone while its last call ends.
        let Some(seat) = seats.get_mut(&id) else { return };
        seat.calls = count(seat.calls);
        idle.remove(&seat.order);
        if seat.calls == 0 {
            seat.order = order;
            seat.idle_since = Instant::now();
            idle.insert(order, id);
        }
    }

    /// Until when a connection may go on as it is.
    fn deadline(&self, id: u64, opened: Instant, read: usize) -> Instant {
        let greeted = read >= self.terms.greeting_bytes;
        match self.inner().seats.get(&id) {
            _ if !greeted => opened + self.terms.greeting_max,
            Some(seat) if seat.calls == 0 => seat.idle_since + self.terms.idle_max,
            _ => Instant::now() + self.terms.idle_max,
        }
    }
}
