//! When a stopped app holds on to nothing any more, although its process stays.
//!
//! NocoBase closes its database before it stops listening, and its process then lives on until the last open websocket is closed by
//! its client: every open browser tab is one. Nothing of it is lost when that process is killed.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// How many looks in a row must find nothing.
const LOOKS: u32 = 2;
/// How long the port must have been closed where sessions in the database cannot be told apart.
const CLOSED: Duration = Duration::from_secs(2);
/// A port on this host that does not answer by then is not closed.
const CONNECT: Duration = Duration::from_secs(1);

/// How many sessions in the database may be the app's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sessions {
    /// So many.
    Count(u64),
    /// The database does not tell whose a session is.
    Nameless,
    /// It could not be asked.
    Unknown,
}

/// Whether something listens there.
pub async fn listens(address: SocketAddr) -> bool {
    match timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(_)) | Err(_) => true,
        Ok(Err(error)) => error.kind() != std::io::ErrorKind::ConnectionRefused,
    }
}

/// Resolves once an app that listened before its stop has closed its port and its sessions. Never resolves while that is not known.
/// Cancel-safe.
pub async fn let_go<S, F>(address: SocketAddr, sessions: S)
where
    S: Fn() -> F,
    F: Future<Output = Sessions>,
{
    let (mut closed_since, mut looks) = (None, 0);
    loop {
        sleep(LOOK).await;
        if listens(address).await {
            (closed_since, looks) = (None, 0);
            continue;
        }
        let since: Instant = *closed_since.get_or_insert_with(Instant::now);
        match sessions().await {
            Sessions::Count(0) => looks += 1,
            Sessions::Nameless if since.elapsed() >= CLOSED => return,
            Sessions::Nameless => {}
            Sessions::Count(_) | Sessions::Unknown => looks = 0,
        }
        if looks >= LOOKS {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::net::TcpListener;

    use super::*;

    async fn resolves(address: SocketAddr, sessions: Sessions, within: Duration) -> bool {
        timeout(within, let_go(address, || async move { sessions })).await.is_ok()
    }

    #[tokio::test]
    async fn never_earlier_than_the_rule_says() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let second = Duration::from_secs(1);
        assert!(listens(address).await);
        assert!(!resolves(address, Sessions::Count(0), second).await, "it still listens");
        drop(listener);
        assert!(!listens(address).await);
        assert!(!resolves(address, Sessions::Count(1), second).await, "it has a session");
        assert!(!resolves(address, Sessions::Unknown, second).await);
        assert!(!resolves(address, Sessions::Count(0), LOOK + LOOK / 2).await, "one look is not enough");
        assert!(resolves(address, Sessions::Count(0), second).await);
        assert!(!resolves(address, Sessions::Nameless, second).await, "not for two seconds yet");
        assert!(resolves(address, Sessions::Nameless, 3 * second).await);
    }

    #[tokio::test]
    async fn a_session_that_comes_back_counts_anew() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let asked = AtomicU64::new(0);
        // None, one, none, none.
        let sessions = || async { Sessions::Count(u64::from(asked.fetch_add(1, Ordering::Relaxed) == 1)) };
        let_go(address, sessions).await;
        assert_eq!(asked.load(Ordering::Relaxed), 4);
    }
}
