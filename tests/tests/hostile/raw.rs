//! HTTP/2 by hand: what no library would send.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How a connection begins: the preface, and settings without any.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a write may wait before the attacker looks whether it should go on.
const PATIENCE: Duration = Duration::from_millis(200);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection whose client reads only when told to.
pub(crate) struct Raw {
    stream: TcpStream,
    /// The next stream's number.
    next: u32,
}

impl Raw {
    /// Connects and sends some bytes; `None` when nobody accepts.
    pub(crate) fn open(at: SocketAddr, first: &[u8]) -> Option<Raw> {
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(2)).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        stream.set_read_timeout(Some(Duration::from_millis(1))).ok()?;
        stream.write_all(first).ok()?;
        Some(Raw { stream, next: 1 })
    }

    /// The same, with the whole beginning of HTTP/2.
    pub(crate) fn greeted(at: SocketAddr) -> Option<Raw> {
        Raw::open(at, &[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat())
    }

    /// Whether the server still holds the connection. Takes what it has sent.
    pub(crate) fn is_open(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => {
                    return matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    );
                }
            }
        }
    }

    /// Sends something; `false` when the server takes nothing more.
    fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Begins a call on a stream of its own, and says nothing more of it.
    pub(crate) fn begin(&mut self, path: &str) -> Option<u32> {
        let stream = self.next;
        self.next += 2;
        self.send(&frame(HEADERS, END_HEADERS, stream, &head(path))).then_some(stream)
    }

    /// A whole call with one message.
    pub(crate) fn call(&mut self, path: &str, message: &[u8]) -> bool {
        self.begin(path).is_some_and(|stream| {
            let length = u32::try_from(message.len()).expect("messages here are small");
            let body = [&[0][..], &length.to_be_bytes(), message].concat();
            self.send(&frame(DATA, END_STREAM, stream, &body))
        })
    }

    /// A call whose message is announced with this length, and of which only the beginning comes.
    pub(crate) fn half(&mut self, path: &str, announced: u32, sent: usize) -> bool {
        self.begin(path).is_some_and(|stream| {
            let body = [&[0][..], &announced.to_be_bytes(), &vec![0x0a; sent]].concat();
            self.send(&frame(DATA, 0, stream, &body))
        })
    }

    /// A call that is taken back at once.
    pub(crate) fn take_back(&mut self, path: &str) -> bool {
        self.begin(path).is_some_and(|stream| self.send(&frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())))
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames here are small").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a gRPC call: every field is a literal that is not remembered.
fn head(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "hostile"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let text = |text: &str| {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127);
        [&[length.expect("short")][..], text.as_bytes()].concat()
    };
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}
