//! Breaking the glass: somebody on this host lets users in, whatever the coordinators say, because those cannot be asked.
//!
//! The same for the app itself: somebody stops it, or starts it.
//!
//! It is a file in the agent's data folder. The agent looks at it again and again, gives users what it can, and tells the coordinators
//! as soon as they are there: an operation that needs users to be away is then blocked until a person has looked.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use soloist_core::agent::{ByHand, Hand};
use soloist_core::ids::BootId;

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
        let by = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let (by, reason) = (by.unwrap_or_else(|| "somebody".into()), reason.to_owned());
        Self { by, reason, since_wall_ms: u64::try_from(since).unwrap_or(u64::MAX) }.clipped()
    }

    /// With texts that are not too long: a file may have been written by anybody who works on this host.
    fn clipped(mut self) -> Self {
        for text in [&mut self.by, &mut self.reason] {
            if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
                text.truncate(end);
            }
        }
        self
    }

    /// Since when, for people.
    fn since(&self) -> String {
        let at =
            i64::try_from(self.since_wall_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        at.map(|at| format!(" since {at:.0}")).unwrap_or_default()
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let at = self.since();
        format!(
            "users are let in by hand{at}, by {}: {} (end it with soloist-agent break-glass traffic off)",
            self.by, self.reason
        )
    }
}

/// What somebody does with the app, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct AppGlass {
    /// Whether it is started; else it is stopped.
    start: bool,
    /// The host's boot.
    #[serde(default)]
    boot: BootId,
    #[serde(flatten)]
    glass: Glass,
}

impl AppGlass {
    fn by_hand(&self) -> ByHand {
        let Glass { by, reason, .. } = &self.glass;
        let (hand, word) = if self.start { (Hand::Start, "started") } else { (Hand::Stop, "stopped") };
        let since = self.glass.since();
        let text = format!(
            "{word} by hand{since}, by {by}: {reason} (end it with soloist-agent break-glass follow)"
        );
        ByHand { hand, text, boot: self.boot.clone() }
    }
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("break-glass.json")
}

fn app_file(data_dir: &Path) -> PathBuf {
    data_dir.join("break-glass-app.json")
}

/// What somebody does with the app. A file that cannot be understood says nothing.
#[must_use]
pub fn by_hand(data_dir: &Path) -> Option<ByHand> {
    let content = content(&app_file(data_dir)).ok()?;
    let glass: AppGlass = serde_json::from_slice(&content).ok()?;
    Some(AppGlass { glass: glass.glass.clipped(), ..glass }.by_hand())
}

/// Starts or stops the app by hand in this boot; what people are told of it.
///
/// # Errors
/// When the data folder cannot be written.
pub fn take(data_dir: &Path, hand: Hand, boot: BootId, glass: Glass) -> io::Result<String> {
    let glass = AppGlass { start: hand == Hand::Start, boot, glass };
    durable::write(&app_file(data_dir), &serde_json::to_vec(&glass)?)?;
    Ok(glass.by_hand().text)
}

/// Lets the coordinators decide about the app again; whether somebody else did.
///
/// # Errors
/// When the file cannot be removed.
pub fn follow(data_dir: &Path) -> io::Result<bool> {
    remove(&app_file(data_dir))
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(SIZE_MAX).read_to_end(&mut content)?;
    Ok(content)
}

fn remove(path: &Path) -> io::Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the glass is broken. A file that is there and cannot be read or understood counts: somebody wanted it.
#[must_use]
pub fn read(data_dir: &Path) -> Option<Glass> {
    let path = file(data_dir);
    let glass = match content(&path) {
        Ok(content) => serde_json::from_slice(&content).ok().map(Glass::clipped),
        Err(_) if path.symlink_metadata().is_err() => return None,
        Err(_) => None,
    };
    Some(glass.unwrap_or_else(|| Glass {
        by: "somebody".into(),
        reason: "break-glass.json cannot be read".into(),
        since_wall_ms: 0,
    }))
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
    remove(&file(data_dir))
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
        for unclear in [&b"{"[..], b"", b"\xff\xfe{}"] {
            std::fs::write(file(folder.path()), unclear).unwrap();
            assert!(read(folder.path()).is_some(), "somebody wanted it: {unclear:?}");
        }
        let long = Glass { by: "k".repeat(20_000), reason: "r".repeat(20_000), since_wall_ms: u64::MAX };
        smash(folder.path(), &long).unwrap();
        assert!(read(folder.path()).unwrap().text().len() < 800);
        std::fs::remove_file(file(folder.path())).unwrap();
        std::fs::create_dir(file(folder.path())).unwrap();
        assert!(read(folder.path()).is_some(), "something is there");
        std::fs::remove_dir(file(folder.path())).unwrap();
        smash(folder.path(), &glass).unwrap();
        assert!(mend(folder.path()).unwrap() && !mend(folder.path()).unwrap());
    }

    #[test]
    fn the_app_in_somebodys_hands() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(by_hand(folder.path()), None);
        let glass = Glass { by: "kim".into(), reason: "no quorum".into(), since_wall_ms: 1_700_000_000_000 };
        for (hand, word) in [(Hand::Start, "started by hand"), (Hand::Stop, "stopped by hand")] {
            let boot = BootId("boot-1".into());
            let told = take(folder.path(), hand, boot.clone(), glass.clone()).unwrap();
            assert!(told.starts_with(word) && told.contains("by kim: no quorum"), "{told}");
            assert_eq!(by_hand(folder.path()), Some(ByHand { hand, text: told, boot }));
        }
        std::fs::write(app_file(folder.path()), "{").unwrap();
        assert_eq!(by_hand(folder.path()), None, "nobody knows what was meant");
        assert!(follow(folder.path()).unwrap() && !follow(folder.path()).unwrap());
    }
}
