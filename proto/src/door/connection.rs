//! One connection: the stream, and the moments at which it ends although its client does not end it.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep, sleep_until},
};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use super::{Caller, Seats};

/// A connection that was let in. It gives its seat back when it is dropped.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    caller: Caller,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    opened: Instant,
    /// Bytes that came, as far as they matter.
    read: usize,
    timer: Pin<Box<Sleep>>,
    /// Runs while a write waits.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, seats: &Arc<Seats>) -> Option<Self> {
        let (caller, cut) = seats.take()?;
        // A small answer should not wait for the next one; without that it is only slower.
        let _ = stream.set_nodelay(true);
        let opened = Instant::now();
        let timer = Box::pin(sleep_until(seats.deadline(caller.id, opened, 0)));
        let cut = Box::pin(cut.cancelled_owned());
        Some(Self { stream, caller, cut, opened, read: 0, timer, stuck: None })
    }

    /// Who calls over it.
    #[must_use]
    pub fn caller(&self) -> Caller {
        self.caller.clone()
    }

    /// Why it must end, if it must.
    fn over(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Some(io::Error::new(io::ErrorKind::ConnectionAborted, "closed for another connection"));
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let deadline = self.caller.seats.deadline(self.caller.id, self.opened, self.read);
            if deadline <= Instant::now() {
                return Some(io::Error::new(io::ErrorKind::TimedOut, "nothing was asked in time"));
            }
            self.timer.as_mut().reset(deadline);
        }
        None
    }

    /// The result of a write, unless it has waited for too long.
    fn unstuck<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stuck = None;
            return result;
        }
        let stuck_max = self.caller.seats.terms.stuck_max;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(stuck_max)));
        match stuck.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.caller.seats.leave(self.caller.id);
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(error) = this.over(cx) {
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.read = this.read.saturating_add(buf.filled().len() - before);
        result
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.unstuck(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.unstuck(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller()
    }
}
