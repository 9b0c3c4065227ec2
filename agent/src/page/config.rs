//! The `[page]` table of the agent's configuration.
//!
//! ```toml
//! [page]
//! listen = "0.0.0.0:7412"
//! text = "Questions? Call the service desk, 555-0199."
//! template = "/etc/soloist/maintenance.html"
//! retry_after_secs = 30
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::render::{RETRY_MAX, RETRY_MIN};

/// Longest `text` in characters: more belongs into a template.
const TEXT_MAX: usize = 1000;

/// The maintenance page that this agent serves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageConfig {
    /// Where it is served. Load balancers send users there; nothing of the agent itself is told there.
    pub listen: SocketAddr,
    /// The page as a template of one's own.
    #[serde(default)]
    pub template: Option<PathBuf>,
    /// More for people to read, for example whom to call.
    #[serde(default)]
    pub text: String,
    /// Seconds after which users try again while nobody knows how long it takes.
    #[serde(default = "retry_after_secs")]
    pub retry_after_secs: u64,
}

fn retry_after_secs() -> u64 {
    30
}

impl PageConfig {
    /// What is wrong with it, for people; the template is looked at when it is read.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if !(RETRY_MIN..=RETRY_MAX).contains(&self.retry_after_secs) {
            return Some(format!(
                "retry_after_secs in [page] is {}: use {RETRY_MIN} to {RETRY_MAX} seconds",
                self.retry_after_secs
            ));
        }
        if self.text.chars().count() > TEXT_MAX {
            return Some(format!(
                "text in [page] is longer than {TEXT_MAX} characters: shorten it, or write a template of your own"
            ));
        }
        match &self.template {
            Some(path) if path.is_relative() => {
                Some(format!("template in [page] must be an absolute path, not \"{}\"", path.display()))
            }
            Some(_) | None => None,
        }
    }
}
