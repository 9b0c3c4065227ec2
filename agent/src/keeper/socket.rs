//! The keeper's socket: a few clients, one line in, one line out, nothing that blocks.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::protocol::{LINE_MAX, SOCKET};

/// Most clients at a time; there is one agent. One more takes the place of the one that has said nothing whole the longest.
const CLIENTS_MAX: usize = 8;
/// A client that says no whole line for this long is cut off.
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
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if self.clients.len() == CLIENTS_MAX
                && let Some((longest, _)) = self.clients.iter().enumerate().min_by_key(|(_, one)| one.since)
            {
                self.clients.remove(longest);
            }
            self.clients.push(Client { stream, line: Vec::new(), since: Instant::now() });
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
        }
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            self.since = Instant::now();
            let mut reply = answer(&line);
            reply.push(b'\n');
            self.stream.write_all(&reply)?;
        }
        if self.since.elapsed() > IDLE_MAX { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};

    use super::*;
    use crate::hell;

    struct Server {
        folder: tempfile::TempDir,
        socket: Socket,
    }

    impl Server {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let socket = Socket::bind(folder.path()).unwrap();
            Self { folder, socket }
        }

        fn connect(&self) -> UnixStream {
            let stream = UnixStream::connect(self.folder.path().join(SOCKET)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream
        }

        /// One round, with an answer that is the length of the line.
        fn serve(&mut self) {
            self.socket.serve(|line| line.len().to_string().into_bytes());
        }

        /// Asks once, as an agent does, with a single round for it.
        fn ask(&mut self) -> String {
            let mut stream = self.connect();
            stream.write_all(b"status\n").unwrap();
            self.serve();
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer).unwrap();
            answer
        }
    }

    #[test]
    fn clients_that_stall_keep_nobody_out() {
        let mut server = Server::new();
        let mut stalled = Vec::new();
        for round in 0..3 * CLIENTS_MAX {
            let mut stream = server.connect();
            stream.write_all(b"half a li").unwrap();
            stalled.push(stream);
            server.serve();
            assert_eq!(server.ask(), "7\n", "round {round}");
            assert!(server.socket.clients.len() <= CLIENTS_MAX);
        }
    }

    #[test]
    fn a_client_that_drips_or_never_ends_its_line_is_cut_off() {
        let mut server = Server::new();
        let mut dripping = server.connect();
        server.serve();
        server.socket.clients[0].since = Instant::now().checked_sub(IDLE_MAX * 2).unwrap();
        dripping.write_all(b"x").unwrap();
        server.serve();
        assert!(server.socket.clients.is_empty(), "a byte is no sign of life");
        let mut endless = server.connect();
        endless.write_all(&vec![b'x'; LINE_MAX + 1024]).unwrap();
        server.serve();
        assert!(server.socket.clients.is_empty());
    }

    #[test]
    fn whatever_is_sent_the_next_one_is_answered() {
        let mut server = Server::new();
        let server = std::cell::RefCell::new(&mut server);
        hell::harm_all(&[b"{\"v\":1,\"cmd\":\"status\"}\n\n\n"], |bytes| {
            let mut server = server.borrow_mut();
            let mut stream = server.connect();
            stream.write_all(bytes).unwrap();
            server.serve();
            drop(stream);
            assert_eq!(server.ask(), "7\n");
        });
    }
}
