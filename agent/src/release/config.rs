//! The `[release]` table of the agent's configuration.

use std::path::PathBuf;

use serde::Deserialize;

/// Where a node has its versions of the app's code, and how another one becomes current.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseConfig {
    /// The folder with one folder per version.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// The symbolic link to one of them, through which the app's folder goes.
    #[serde(default)]
    pub current: Option<PathBuf>,
    /// For apps that are not NocoBase: the file in a release whose first line is its version.
    #[serde(default = "version_file")]
    pub version_file: PathBuf,
    /// A program that fetches a version; the version and the empty folder to fill are its last two arguments.
    #[serde(default)]
    pub fetch: Vec<String>,
    /// How long a fetch may take, in seconds.
    #[serde(default = "fetch_deadline_secs")]
    pub fetch_deadline_secs: u64,
    /// Programs of one's own instead of folders and a link.
    #[serde(default)]
    pub external: Option<ExternalRelease>,
}

/// Programs that know the versions of the app's code. Each is a program with arguments, and has the version as its last one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalRelease {
    /// Succeeds if the version is there and complete; may print a digest of it, which must be the same on all nodes.
    pub check: Vec<String>,
    /// Makes the version current; called again after it was interrupted.
    pub switch: Vec<String>,
    /// Fetches the version; without it, it must be there.
    #[serde(default)]
    pub fetch: Vec<String>,
}

fn version_file() -> PathBuf {
    "version".into()
}

/// An installation from npm takes a minute; an hour is a hang.
fn fetch_deadline_secs() -> u64 {
    3600
}

impl ReleaseConfig {
    /// What is wrong with it, for people.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let text = |text: &str| Some(text.to_owned());
        if self.fetch_deadline_secs == 0 {
            return text("fetch_deadline_secs is 0: give a fetch some time");
        }
        match (&self.folder, &self.current, &self.external) {
            (None, None, Some(_)) if !self.fetch.is_empty() => {
                text("fetch belongs into [release.external] when there is one")
            }
            (None, None, Some(external)) if external.check.is_empty() || external.switch.is_empty() => {
                text("[release.external] needs a program for check and one for switch")
            }
            (None, None, Some(_)) => None,
            (Some(folder), Some(current), None) => {
                let relative = [folder, current].into_iter().find(|path| !path.is_absolute());
                if let Some(path) = relative {
                    return Some(format!("{} in [release] is not an absolute path", path.display()));
                }
                if self.version_file.is_absolute() {
                    return text("version_file in [release] is relative to a release: give no absolute path");
                }
                None
            }
            (_, _, Some(_)) => text("[release] has both folders and [release.external]: keep one of them"),
            _ => text("[release] needs folder and current, or programs in [release.external]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> Option<String> {
        toml::from_str::<ReleaseConfig>(text).unwrap().problem()
    }

    #[test]
    fn one_way_and_all_of_it() {
        assert_eq!(problem("folder = \"/r\"\ncurrent = \"/c\""), None);
        assert_eq!(problem("external = { check = [\"a\"], switch = [\"b\"] }"), None);
        let both = "folder = \"/r\"\ncurrent = \"/c\"\nexternal = { check = [\"a\"], switch = [\"b\"] }";
        assert!(problem(both).unwrap().contains("keep one"));
        assert!(problem("folder = \"/r\"").unwrap().contains("needs folder and current"));
        assert!(problem("folder = \"r\"\ncurrent = \"/c\"").unwrap().contains("r in [release]"));
        assert!(problem("external = { check = [], switch = [\"b\"] }").unwrap().contains("check"));
        assert!(
            problem("folder = \"/r\"\ncurrent = \"/c\"\nfetch_deadline_secs = 0").unwrap().contains("is 0")
        );
    }
}
