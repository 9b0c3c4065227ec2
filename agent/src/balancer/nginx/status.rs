//! Asking nginx which generation is in force: one small HTTP request on a connection of its own.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::include::InForce;
use crate::probe::shorten;

/// nginx answers within milliseconds, also while it is busy with a reload.
const DEADLINE: Duration = Duration::from_secs(2);
/// Most bytes of an answer: a digest and the names of all nodes.
const ANSWER_MAX: u64 = 32 * 1024;

/// What is in force, or why that is not known.
pub(super) async fn ask(address: SocketAddr) -> Result<InForce, String> {
    let answer = timeout(DEADLINE, exchange(address)).await;
    let answer = answer.map_err(|_| format!("no answer within {} s", DEADLINE.as_secs()))?;
    let answer = answer.map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    let good = status.split(' ').nth(1) == Some("200");
    InForce::read(body)
        .filter(|_| good)
        .ok_or_else(|| format!("something else answers there: {}", shorten(status)))
}

/// A connection of its own each time: one that is kept would go on asking a worker of before the reload.
async fn exchange(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /generation HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn answered(answer: &'static str) -> Result<InForce, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 512]).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let said = ask(address).await;
        serving.await.unwrap();
        said
    }

    #[tokio::test]
    async fn answers() {
        let said =
            answered("HTTP/1.1 200 OK\r\nServer: nginx\r\n\r\n0123456789abcdef node-1\n").await.unwrap();
        assert_eq!(said.generation, "0123456789abcdef");
        let why = answered("HTTP/1.1 404 Not Found\r\n\r\n0123456789abcdef\n").await.unwrap_err();
        assert!(why.contains("something else answers there: HTTP/1.1 404"), "{why}");
        assert!(answered("SSH-2.0\r\n").await.is_err());
    }
}
