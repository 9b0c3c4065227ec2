//! Reading files that may lie on a hung mount, and leaving small ones there.
//!
//! A call into a dead NFS server does not return and cannot be cancelled. So each read runs in a thread of its own,
//! outside the async runtime (whose shutdown would wait for it), and a reader whose last thread still hangs starts
//! no second one: a hung mount costs one thread and is a reason, not a hung agent.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

/// Reads with a deadline; at most one call of each reader is under way, and others wait their turn.
#[derive(Debug, Clone)]
pub struct DiskReader {
    deadline: Duration,
    turn: Arc<Semaphore>,
}

impl DiskReader {
    /// A reader whose calls take at most `deadline`.
    pub fn new(deadline: Duration) -> Self {
        Self { deadline, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Whether the path exists.
    pub async fn exists(&self, path: PathBuf) -> io::Result<bool> {
        self.call(path, |path| path.try_exists()).await
    }

    /// The text of a file of at most `max` bytes.
    pub async fn read(&self, path: PathBuf, max: u64) -> io::Result<String> {
        self.call(path, move |path| {
            use std::io::Read;
            let mut text = String::new();
            std::fs::File::open(&path)?.take(max).read_to_string(&mut text)?;
            Ok(text)
        })
        .await
    }

    /// Whatever else is to be done at a path, in one go. It may still be under way after the deadline.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        path: PathBuf,
        read: impl FnOnce(PathBuf) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let hung = |path: &std::path::Path| {
            let text = format!("{} does not answer (hung mount?)", path.display());
            io::Error::new(io::ErrorKind::TimedOut, text)
        };
        let shown = path.clone();
        // The thread keeps the turn until its call returns, however long after the deadline that is.
        let turn = tokio::time::timeout(self.deadline, Arc::clone(&self.turn).acquire_owned());
        let turn = match turn.await {
            Ok(Ok(turn)) => turn,
            Ok(Err(closed)) => return Err(io::Error::other(closed)),
            Err(_) => return Err(hung(&shown)),
        };
        let (send, receive) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("disk".into()).spawn(move || {
            let result = read(path);
            drop(turn);
            // The asker may have given up; then nobody wants the answer.
            let _ = send.send(result);
        })?;
        match tokio::time::timeout(self.deadline, receive).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(io::Error::other("the reading thread ended without an answer")),
            Err(_) => Err(hung(&shown)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hung_read_costs_one_thread_and_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let reader = DiskReader::new(Duration::from_millis(50));
        // Opening a pipe without a writer blocks like a dead mount.
        let error = reader.read(pipe.clone(), 10).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(reader.exists(folder.path().into()).await.is_err(), "still busy");
        std::fs::write(&pipe, "x").unwrap();
        let begun = std::time::Instant::now();
        while reader.exists(folder.path().into()).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
    }
}
