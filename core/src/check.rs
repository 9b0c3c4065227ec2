//! Checks of a fleet: what must be true of a node that serves before users come back to it.

use serde::{Deserialize, Serialize};

use crate::time::Millis;

/// One check of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Its name, for people; unique in its fleet.
    pub name: String,
    /// What is looked at.
    pub what: What,
    /// How long one try may take.
    #[serde(default = "timeout")]
    pub timeout: Millis,
    /// How many tries may fail before the check has failed; there is a second between two of them.
    #[serde(default = "tries")]
    pub tries: u32,
}

fn timeout() -> Millis {
    Millis::from_secs(10)
}

fn tries() -> u32 {
    3
}

/// What a check looks at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum What {
    /// A request to the node's app.
    Http {
        /// The path with its query, from the first slash: `/api/app:getInfo`.
        path: String,
        /// The status that is expected.
        #[serde(default = "ok")]
        status: u16,
        /// A header of the answer and its value.
        #[serde(default)]
        header: Option<Expected>,
        /// A place in the answer's JSON, as a JSON pointer (RFC 6901), and the value there: a text as it is, anything else as JSON.
        #[serde(default)]
        json: Option<Expected>,
    },
    /// A program of the node's own configuration, by the name that it has there; it must end with 0.
    Command {
        /// The name.
        command: String,
    },
    /// The app has loaded a plugin.
    Plugin {
        /// The plugin's package name.
        plugin: String,
    },
}

fn ok() -> u16 {
    200
}

/// A value that is expected somewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Where.
    pub at: String,
    /// What.
    pub is: String,
}

/// Most checks of a fleet.
pub const CHECKS_MAX: usize = 20;
/// Longest text in a check, in bytes.
const TEXT_MAX: usize = 300;
/// Longest time and most tries.
const TIMEOUT_MAX: Millis = Millis::from_secs(300);
const TRIES_MAX: u32 = 100;

impl Check {
    /// What is wrong with it, for people.
    pub fn problem(&self) -> Option<String> {
        let name = &self.name;
        let texts = match &self.what {
            What::Http { path, header, json, .. } => {
                let pairs = header.iter().chain(json).flat_map(|expected| [&expected.at, &expected.is]);
                std::iter::once(path).chain(pairs).collect()
            }
            What::Command { command } => vec![command],
            What::Plugin { plugin } => vec![plugin],
        };
        let simple = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        if name.is_empty() || name.len() > TEXT_MAX || !simple(name) {
            return Some("a check has no name, or one with unusual characters".into());
        }
        if texts.iter().any(|text| text.len() > TEXT_MAX) {
            return Some(format!("a text in check \"{name}\" is longer than {TEXT_MAX} bytes"));
        }
        match &self.what {
            What::Http { path, .. } if !path.starts_with('/') || path.starts_with("//") || !simple(path) => {
                return Some(format!(
                    "the path of check \"{name}\" does not begin with one slash: \"{path}\""
                ));
            }
            What::Http { status, .. } if !(100..600).contains(status) => {
                return Some(format!(
                    "check \"{name}\" expects the status {status}, which HTTP does not have"
                ));
            }
            What::Http { json: Some(json), .. } if !json.at.is_empty() && !json.at.starts_with('/') => {
                return Some(format!(
                    "check \"{name}\" looks for \"{}\", which is no JSON pointer: write /data/version",
                    json.at
                ));
            }
            What::Command { command } if command.is_empty() => {
                return Some(format!("check \"{name}\" names no command"));
            }
            What::Plugin { plugin } if plugin.is_empty() => {
                return Some(format!("check \"{name}\" names no plugin"));
            }
            What::Http { .. } | What::Command { .. } | What::Plugin { .. } => {}
        }
        if self.timeout.0 == 0 || self.timeout > TIMEOUT_MAX {
            return Some(format!("the timeout of check \"{name}\" is not between 1 ms and {TIMEOUT_MAX}"));
        }
        if self.tries == 0 || self.tries > TRIES_MAX {
            return Some(format!("the tries of check \"{name}\" are not between 1 and {TRIES_MAX}"));
        }
        None
    }
}
