//! Where the coordinators are: as the configuration says, and as they told themselves since.
//!
//! Members of the cluster come, go and move. An agent whose configuration was written before would be lost once all that it
//! names are gone; so every session tells it the members, and it remembers them in its data folder:
//!
//! ```text
//! DATA/coordinators.json    the cluster's name, its members, and the configuration under which they were told
//! ```
//!
//! The configured ones come first. What was remembered under another configuration is dropped: the operator has said anew
//! where to look. Losing the file costs nothing while one of the configured ones is still there.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::durable;

/// Members that are remembered at most; a cluster has seven at most, and some more while they are exchanged.
const MEMBERS_MAX: usize = 16;
/// Longest address that is remembered, in bytes.
const ADDRESS_MAX: usize = 300;
/// Most of the file that is read, in bytes: many times what can be remembered.
const FILE_MAX: u64 = 1 << 20;

/// Where the coordinators are.
#[derive(Debug)]
pub struct Coordinators {
    path: PathBuf,
    memory: Memory,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Memory {
    cluster: String,
    configured: Vec<String>,
    members: Vec<String>,
}

/// An address to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// `host:port`.
    pub address: String,
    /// The cluster that must answer there; empty where the configuration says so.
    pub cluster: String,
}

impl Coordinators {
    /// The configured ones, and those that are remembered in a data folder.
    pub fn open(folder: &Path, configured: &[String]) -> Coordinators {
        let path = folder.join("coordinators.json");
        let found = File::open(&path).ok().and_then(|file| {
            let file = BufReader::new(file.take(FILE_MAX));
            serde_json::from_reader::<_, Memory>(file).ok()
        });
        let memory = found.filter(|memory| memory.configured == configured);
        let memory =
            memory.unwrap_or_else(|| Memory { configured: configured.to_owned(), ..Memory::default() });
        Coordinators { path, memory }
    }

    /// Whom to try, in order. Never empty if the configuration names one.
    pub fn candidates(&self) -> Vec<Candidate> {
        let Memory { cluster, configured, members } = &self.memory;
        let of = |address: &String, cluster: &str| Candidate {
            address: address.clone(),
            cluster: cluster.to_owned(),
        };
        let told = members.iter().filter(|member| !configured.contains(member));
        configured
            .iter()
            .map(|address| of(address, ""))
            .chain(told.map(|address| of(address, cluster)))
            .collect()
    }

    /// Remembers the members of a cluster. What cannot be written is still known until the agent ends.
    pub fn learn(&mut self, cluster: &str, members: Vec<String>) {
        let sound = !members.is_empty()
            && members.len() <= MEMBERS_MAX
            && members.iter().all(|address| address.len() <= ADDRESS_MAX);
        let now = Memory { cluster: cluster.to_owned(), members, ..self.memory.clone() };
        if !sound || cluster.is_empty() || now == self.memory {
            return;
        }
        self.memory = now;
        let text = serde_json::to_vec_pretty(&self.memory).unwrap_or_default();
        match durable::write(&self.path, &text) {
            Ok(()) => tracing::info!(members = self.memory.members.join(", "), "the coordinators are"),
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "the coordinators are not remembered")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(coordinators: &Coordinators) -> Vec<String> {
        coordinators.candidates().into_iter().map(|candidate| candidate.address).collect()
    }

    #[test]
    fn what_was_told_is_remembered_under_the_same_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let configured = ["a:1".to_owned(), "b:1".to_owned()];
        let mut known = Coordinators::open(folder.path(), &configured);
        assert_eq!(addresses(&known), ["a:1", "b:1"]);
        known.learn("soloist", vec!["b:1".into(), "c:1".into()]);
        let again = Coordinators::open(folder.path(), &configured);
        assert_eq!(addresses(&again), ["a:1", "b:1", "c:1"]);
        let clusters: Vec<_> = again.candidates().into_iter().map(|found| found.cluster).collect();
        assert_eq!(clusters, ["", "", "soloist"], "only what was told may have changed hands");
        let other = Coordinators::open(folder.path(), &["d:1".to_owned()]);
        assert_eq!(addresses(&other), ["d:1"], "the operator has said anew where to look");
    }

    #[test]
    fn nonsense_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let mut known = Coordinators::open(folder.path(), &["a:1".to_owned()]);
        known.learn("soloist", Vec::new());
        known.learn("", vec!["b:1".into()]);
        known.learn("soloist", vec!["x".repeat(ADDRESS_MAX + 1)]);
        assert_eq!(addresses(&known), ["a:1"]);
        std::fs::write(folder.path().join("coordinators.json"), "half").unwrap();
        assert_eq!(addresses(&Coordinators::open(folder.path(), &["a:1".to_owned()])), ["a:1"]);
    }
}
