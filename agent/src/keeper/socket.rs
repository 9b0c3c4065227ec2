//! The keeper's socket: a few clients, one line in, one line out, nothing that blocks.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::protocol::{LINE_MAX, SOCKET};

/// Most clients at a time; there is one agent.
const CLIENTS_MAX: usize = 8;
/// A client that says nothing for this long is cut off.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// The listening side.
pub(super) struct Socket {
    listener: UnixListener,
    clients: Vec<Client>,
}

struct Client {
    stream: UnixStream,
    line: Vec<u8>,
    since: Instant,
}

/// A path to the socket that is short wherever the folder lies: socket addresses end at 107 bytes.
pub(crate) fn address(folder: &File) -> PathBuf {
    format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()).into()
}

impl Socket {
    /// Replaces the socket of an earlier keeper; the caller holds the keeper lock.
    pub(super) fn bind(folder: &Path) -> io::Result<Self> {
        match std::fs::remove_file(folder.join(SOCKET)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(address(&File::open(folder)?))?;
        std::fs::set_permissions(folder.join(SOCKET), Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, clients: Vec::new() })
    }

    /// What to wait for.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd()).chain(self.clients.iter().map(|client| client.stream.as_fd()))
    }

    /// Accepts, reads and answers whatever is ready.
    pub(super) fn serve(&mut self, mut answer: impl FnMut(&[u8]) -> Vec<u8>) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() < CLIENTS_MAX && stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client { stream, line: Vec::new(), since: Instant::now() });
            }
        }
        self.clients.retain_mut(|client| client.serve(&mut answer).is_ok());
    }
}

impl Client {
    /// An error means that the client is done with.
    fn serve(&mut self, answer: &mut impl FnMut(&[u8]) -> Vec<u8>) -> io::Result<()> {
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.line.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            if self.line.len() > LINE_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.since = Instant::now();
        }
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            let mut reply = answer(&line);
            reply.push(b'\n');
            self.stream.write_all(&reply)?;
        }
        if self.since.elapsed() > IDLE_MAX { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}
