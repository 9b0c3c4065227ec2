//! Releases: the versions of the app's code that a node has, and which of them is current.
//!
//! ```text
//!   <folder>/2.2.15/…            a release: never changed once it is there
//!   <folder>/.partial-2.2.99/…   one that is being fetched; it appears by one rename, once it is complete
//!   <current> ─► <folder>/2.2.15     the app's folder goes through this link; a switch exchanges it by one rename
//! ```

mod config;
mod digest;
mod folder;

use std::path::{Path, PathBuf};

use soloist_core::ids::Version;

pub use config::{ExternalRelease, ReleaseConfig};
pub use folder::Releases;

/// How to tell which version of which app a release holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// NocoBase, by its packages.
    NocoBase,
    /// Any other app, by the first line of this file.
    Other {
        /// The file, relative to the release.
        version_file: PathBuf,
    },
}

/// What is wrong with a release, as texts that say what to do.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A file or folder could not be used.
    #[error("cannot {what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// What names a version cannot be one.
    #[error(
        "\"{0}\" is not a version: it has other characters than letters, digits, '.', '_', '-' and '+', or is too long"
    )]
    NotAVersion(String),
    /// The version is not there.
    #[error("version {version} is not in {folder}: {}", advice(version, *fetches), folder = folder.display())]
    Missing {
        /// Which one.
        version: Version,
        /// Where it should be.
        folder: PathBuf,
        /// Whether this node can fetch it.
        fetches: bool,
    },
    /// It is there and not whole.
    #[error("{path} is not a complete release of version {version}: {why}; move it away and {}", advice(version, *fetches), path = path.display())]
    Incomplete {
        /// Which one.
        version: Version,
        /// Where it is.
        path: PathBuf,
        /// What is missing.
        why: String,
        /// Whether this node can fetch it.
        fetches: bool,
    },
    /// What is current could not be made current again.
    #[error(
        "{now} has version {version} and is not {place}, so there would be no way back to it: stop the app, move it there, and let \
         the link to the current release lead there",
        now = now.display(), place = place.display()
    )]
    NoWayBack {
        /// Where the current release is.
        now: PathBuf,
        /// Its version.
        version: String,
        /// Where it would be looked for.
        place: PathBuf,
    },
    /// What should be the link is something else.
    #[error(
        "{current} is not a symbolic link, so it cannot be switched: stop the app, move it to {folder}/VERSION under its own version, \
         and run ln -s {folder}/VERSION {current}",
        current = current.display(), folder = folder.display()
    )]
    NotALink {
        /// The path.
        current: PathBuf,
        /// Where releases lie.
        folder: PathBuf,
    },
}

fn advice(version: &Version, fetches: bool) -> String {
    if fetches {
        format!("fetch it with soloist upgrade prepare --to {version}, or put it there")
    } else {
        format!(
            "put it there as {version}; or set fetch under [release] in this node's agent configuration, and run soloist upgrade \
             prepare --to {version}"
        )
    }
}

impl ReleaseError {
    /// For `map_err` at a call that touches `path`.
    fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// Longest version in bytes; it becomes the name of a folder.
const VERSION_MAX: usize = 64;

/// Takes a version from the wire, before it becomes a path or an argument.
pub(crate) fn version(text: &str) -> Result<Version, ReleaseError> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+');
    let head = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if head && text.bytes().all(inner) && text.len() <= VERSION_MAX {
        return Ok(Version(text.to_owned()));
    }
    let shown: String = text.chars().take(VERSION_MAX).collect();
    Err(ReleaseError::NotAVersion(shown.escape_debug().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_no_path_and_no_option() {
        for good in ["2.2.15", "2.3.0-beta.1", "1", "2025.01_rc+5"] {
            assert_eq!(version(good).unwrap().0, good);
        }
        let long = "1".repeat(65);
        for bad in ["", ".", "..", ".partial-1", "../2.2.15", "a/b", "-rf", "1 2", "1\n", "ü", &long] {
            assert!(version(bad).is_err(), "{bad}");
        }
    }
}
