//! Exchanging a plugin's folder, and taking it back. Each is a few renames within the storage, in an order in which an agent that dies
//! in the middle, or another that shares the storage, can go on.
//!
//! ```text
//!   <storage>/.soloist/<fleet>/packages/<operation>/<plugin>/
//!       ready.json      what is to be done; written last, when everything is there
//!       new/            what takes the plugin's place; gone when it has
//!       old/            what was there before; none if nothing was
//!       undone/         what was taken back
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::archive;
use crate::host::durable;

/// What is to be done with a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ready {
    /// Its package name.
    pub(super) plugin: String,
    /// The version that comes; none if it goes.
    pub(super) version: Option<String>,
    /// What tells the files of that version from others.
    pub(super) digest: String,
}

/// Where one plugin is exchanged.
#[derive(Debug, Clone)]
pub(super) struct Exchange {
    /// The plugin's own folder.
    place: PathBuf,
    folder: PathBuf,
}

impl Exchange {
    pub(super) fn new(plugins: &Path, work: &Path, plugin: &str) -> Self {
        Self { place: plugins.join(plugin), folder: work.join(plugin.replace('/', "+")) }
    }

    /// Where what comes is made ready.
    pub(super) fn fresh(&self) -> PathBuf {
        self.folder.join("new")
    }

    /// What is to be done, if that was made ready.
    pub(super) fn ready(&self) -> Option<Ready> {
        serde_json::from_slice(&fs::read(self.folder.join("ready.json")).ok()?).ok()
    }

    /// Notes that everything is there.
    pub(super) fn note(&self, ready: &Ready) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        durable::write(&self.folder.join("ready.json"), &serde_json::to_vec(ready)?)
    }

    /// Does it, or what is left of it.
    pub(super) fn run(&self) -> io::Result<()> {
        let Some(ready) = self.ready() else {
            return Err(io::Error::other("nothing was made ready for it"));
        };
        let (new, old) = (self.fresh(), self.folder.join("old"));
        if ready.version.is_none() {
            return if self.place.exists() && !old.exists() { rename(&self.place, &old) } else { Ok(()) };
        }
        if new.exists() {
            if self.place.exists() {
                rename(&self.place, &old)?;
            }
            if let Some(parent) = self.place.parent() {
                fs::create_dir_all(parent)?;
            }
            return rename(&new, &self.place);
        }
        let there = archive::package(&self.place)?.version;
        if Some(&there) == ready.version.as_ref() {
            return Ok(());
        }
        Err(io::Error::other(format!("{} has version {there} now", self.place.display())))
    }

    /// Takes it back, or what is left of that.
    pub(super) fn back(&self) -> io::Result<()> {
        let Some(ready) = self.ready() else { return Ok(()) };
        let (new, old, undone) = (self.fresh(), self.folder.join("old"), self.folder.join("undone"));
        if ready.version.is_some() && !new.exists() && !undone.exists() && self.place.exists() {
            rename(&self.place, &undone)?;
        }
        if old.exists() && !self.place.exists() { rename(&old, &self.place) } else { Ok(()) }
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let place = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("{} cannot be moved to {}: {error}", from.display(), to.display()),
        )
    };
    fs::rename(from, to).map_err(place)?;
    for folder in [from.parent(), to.parent()].into_iter().flatten() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, version: &str) {
        fs::create_dir_all(folder).unwrap();
        let text = format!("{{\"name\":\"@a/x\",\"version\":\"{version}\"}}");
        fs::write(folder.join("package.json"), text).unwrap();
    }

    fn at(place: &Path) -> Option<String> {
        archive::package(place).ok().map(|package| package.version)
    }

    fn world(before: Option<&str>, after: Option<&str>) -> (tempfile::TempDir, Exchange) {
        let folder = tempfile::tempdir().unwrap();
        let exchange = Exchange::new(&folder.path().join("plugins"), &folder.path().join("work"), "@a/x");
        if let Some(version) = before {
            write(&exchange.place, version);
        }
        if let Some(version) = after {
            write(&exchange.fresh(), version);
        }
        let version = after.map(str::to_owned);
        exchange.note(&Ready { plugin: "@a/x".into(), version, digest: String::new() }).unwrap();
        (folder, exchange)
    }

    #[test]
    fn there_and_back_as_often_as_one_likes() {
        for before in [None, Some("1.0.0")] {
            for after in [None, Some("2.0.0")] {
                let (_folder, exchange) = world(before, after);
                for _ in 0..2 {
                    exchange.run().unwrap();
                    assert_eq!(at(&exchange.place).as_deref(), after);
                }
                for _ in 0..2 {
                    exchange.back().unwrap();
                    assert_eq!(at(&exchange.place).as_deref(), before);
                }
            }
        }
    }

    #[test]
    fn a_death_in_the_middle_is_no_harm() {
        let (_folder, exchange) = world(Some("1.0.0"), Some("2.0.0"));
        fs::rename(&exchange.place, exchange.folder.join("old")).unwrap();
        exchange.run().unwrap();
        assert_eq!(at(&exchange.place).as_deref(), Some("2.0.0"));
        fs::rename(&exchange.place, exchange.folder.join("undone")).unwrap();
        exchange.back().unwrap();
        assert_eq!(at(&exchange.place).as_deref(), Some("1.0.0"));
    }

    #[test]
    fn what_never_began_is_left_alone() {
        let (_folder, exchange) = world(Some("1.0.0"), Some("2.0.0"));
        exchange.back().unwrap();
        assert_eq!(at(&exchange.place).as_deref(), Some("1.0.0"));
        let other = Exchange::new(&exchange.place, &exchange.folder, "@a/y");
        other.back().unwrap();
        assert!(other.run().is_err());
    }
}
