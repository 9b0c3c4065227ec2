//! One exchange with one of HAProxy's sockets: a line there, a text back, and the end.
//!
//! After its start and at each reload HAProxy executes itself anew, and hands its sockets over. A connection that comes just then
//! is refused, reset, or accepted by a process that forgets it. So an exchange that fails in such a way is begun once more;
//! every command that is sent may be sent twice.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::super::error::BalancerError;
use crate::probe::shorten;

/// An exchange takes milliseconds; what is longer hangs, or was forgotten.
const ATTEMPT: Duration = Duration::from_secs(1);
/// How long an exchange is begun again, all in all.
const DEADLINE: Duration = Duration::from_secs(2);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// Most bytes that are read of an answer. A server has about 500 of them, a connection about 400.
const ANSWER_MAX: u64 = 16 * 1024 * 1024;

/// A socket, and what the configuration calls it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Socket<'a> {
    pub(super) path: &'a Path,
    pub(super) key: &'static str,
    pub(super) what: &'static str,
}

impl Socket<'_> {
    /// Asks something, and gives the answer.
    pub(super) async fn ask(&self, command: &str) -> Result<String, BalancerError> {
        let began = Instant::now();
        let answer = loop {
            let left = DEADLINE.saturating_sub(began.elapsed());
            let answer = timeout(ATTEMPT.min(left), self.exchange(command)).await;
            let error = match answer {
                Ok(Ok(answer)) => break answer,
                Ok(Err(error)) => error,
                Err(_) => io::ErrorKind::TimedOut.into(),
            };
            let lasting = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied);
            if lasting || began.elapsed() + PAUSE >= DEADLINE {
                return Err(self.failed(command, error));
            }
            tokio::time::sleep(PAUSE).await;
        };
        if answer.trim_start().starts_with("Permission denied") {
            return Err(BalancerError::Level { path: self.path.to_owned(), command: command.to_owned() });
        }
        Ok(answer)
    }

    /// Asks for something that HAProxy does in silence; its words are an error.
    pub(super) async fn tell(&self, command: &str) -> Result<(), BalancerError> {
        let answer = self.ask(command).await?;
        if answer.trim().is_empty() {
            return Ok(());
        }
        Err(BalancerError::Refused { command: command.to_owned(), answer: shorten(&answer) })
    }

    fn failed(&self, command: &str, source: io::Error) -> BalancerError {
        let path = self.path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => BalancerError::NoSocket { path, key: self.key, what: self.what },
            io::ErrorKind::PermissionDenied => BalancerError::Forbidden { path },
            io::ErrorKind::ConnectionRefused => BalancerError::Deaf { path },
            // With WouldBlock so many are waiting already that the kernel takes no more.
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                BalancerError::Silent { path, command: command.to_owned(), deadline: DEADLINE }
            }
            _ => BalancerError::Broken { path, source },
        }
    }

    async fn exchange(&self, command: &str) -> io::Result<String> {
        let mut stream = UnixStream::connect(self.path).await?;
        stream.write_all(format!("{command}\n").as_bytes()).await?;
        // A worker closes after its answer; the process that starts workers waits for more until it is told that none comes.
        stream.shutdown().await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    fn socket(path: &Path) -> Socket<'_> {
        Socket { path, key: "socket", what: "its `stats socket`" }
    }

    #[tokio::test]
    async fn each_trouble_has_its_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let error = socket(&path).ask("show info").await.unwrap_err();
        assert!(
            error.to_string().contains("correct socket in [balancer] so that it names its `stats"),
            "{error}"
        );
        let listener = UnixListener::bind(&path).unwrap();
        let error = socket(&path).ask("show info").await.unwrap_err();
        assert!(matches!(error, BalancerError::Silent { .. }), "{error}");
        drop(listener);
        let error = socket(&path).ask("show info").await.unwrap_err();
        assert!(matches!(error, BalancerError::Deaf { .. }), "{error}");
    }

    #[tokio::test]
    async fn words_where_silence_is_expected_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let answers = ["\n", "No such server.\n\n", "Permission denied\n\n"];
        let serving = tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut line = [0; 256];
                assert!(stream.read(&mut line).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        socket(&path).tell("set server a/b state maint").await.unwrap();
        let error = socket(&path).tell("set server a/b state maint").await.unwrap_err().to_string();
        assert_eq!(error, "HAProxy answered \"set server a/b state maint\" with: No such server.");
        let error = socket(&path).tell("set server a/b state maint").await.unwrap_err();
        assert!(error.to_string().contains("level admin"), "{error}");
        serving.await.unwrap();
    }
}
