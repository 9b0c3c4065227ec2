//! Breaking the glass: somebody on this host lets users in, whatever the coordinators say, because those cannot be asked.
//!
//! It is a file in the agent's data folder. The agent looks at it again and again, gives users what it can, and tells the coordinators
//! as soon as they are there: an operation that needs users to be away is then blocked until a person has looked.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::host::durable;

/// Largest file that is read, in bytes.
const SIZE_MAX: u64 = 64 * 1024;
/// Longest name or reason that is kept, in characters.
const TEXT_MAX: usize = 300;

/// That users are let in, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Glass {
    /// Who did it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When, milliseconds since 1970.
    pub since_wall_ms: u64,
}

impl Glass {
    /// Now, by the user of this process.
    #[must_use]
    pub fn now(reason: &str) -> Self {
        let clip = |text: &str| text.chars().take(TEXT_MAX).collect::<String>();
        let by = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Self {
            by: clip(by.as_deref().unwrap_or("somebody")),
            reason: clip(reason),
            since_wall_ms: u64::try_from(since).unwrap_or(u64::MAX),
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let at =
            i64::try_from(self.since_wall_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let at = at.map(|at| format!(" since {at:.0}")).unwrap_or_default();
        format!(
            "users are let in by hand{at}, by {}: {} (end it with soloist-agent break-glass traffic off)",
            self.by, self.reason
        )
    }
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("break-glass.json")
}

/// Whether the glass is broken. A file that cannot be understood counts: somebody wanted it.
#[must_use]
pub fn read(data_dir: &Path) -> Option<Glass> {
    use io::Read as _;
    let mut text = String::new();
    let read =
        std::fs::File::open(file(data_dir)).and_then(|file| file.take(SIZE_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => Some(serde_json::from_str(&text).unwrap_or_else(|_| Glass {
            by: "somebody".into(),
            reason: "break-glass.json cannot be read".into(),
            since_wall_ms: 0,
        })),
        Err(_) => None,
    }
}

/// Breaks it.
///
/// # Errors
/// When the data folder cannot be written.
pub fn smash(data_dir: &Path, glass: &Glass) -> io::Result<()> {
    durable::write(&file(data_dir), &serde_json::to_vec(glass)?)
}

/// Puts a new one in; whether one was broken.
///
/// # Errors
/// When the file cannot be removed.
pub fn mend(data_dir: &Path) -> io::Result<bool> {
    match std::fs::remove_file(file(data_dir)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_and_mended() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()), None);
        let glass = Glass { by: "kim".into(), reason: "no quorum".into(), since_wall_ms: 1_700_000_000_000 };
        smash(folder.path(), &glass).unwrap();
        assert_eq!(read(folder.path()), Some(glass.clone()));
        let text = glass.text();
        assert!(text.contains("2023-11-14T22:13:20Z, by kim: no quorum"), "{text}");
        std::fs::write(file(folder.path()), "{").unwrap();
        assert!(read(folder.path()).is_some());
        assert!(mend(folder.path()).unwrap() && !mend(folder.path()).unwrap());
    }
}
