//! Commercial plugins, which NocoBase's own program fetches as they fit the code.
//!
//! | task | check | run | recovered |
//! |---|---|---|---|
//! | `commercial-plugins` | is there a licence, and is the server there | fetch, while nothing of the app runs | as interrupted: another attempt goes on |
//!
//! That program ends well whatever happens: what it prints tells how it went.

use std::sync::Arc;
use std::time::Duration;

use soloist_core::assignment::{Task, TaskPhase, TaskResult};
use soloist_core::ids::{FleetId, NodeId};
use soloist_core::packages::COMMERCIAL;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Output;
use super::owner::Owner;
use crate::profile::Profile;

/// Names of the tasks in this file.
pub(super) const NAMES: [&str; 1] = [COMMERCIAL];

/// How long fetching may take.
const FETCH_DEADLINE: Duration = Duration::from_secs(900);
/// How long the server may take to answer the phone.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Does the tasks of one node.
#[derive(Debug)]
pub struct CommercialTasks {
    profile: Arc<Profile>,
    owner: Owner,
}

impl CommercialTasks {
    /// Tasks of a node.
    #[must_use]
    pub fn new(profile: Arc<Profile>, fleet: FleetId, node: NodeId) -> Self {
        Self { profile, owner: Owner { fleet, node } }
    }

    /// Looks whether plugins can be fetched, or fetches them. A result means that nothing of it is still under way.
    pub async fn perform(&self, task: &Task) -> (TaskResult, Output) {
        match self.try_perform(task).await {
            Ok(output) => (TaskResult::Done, output),
            Err(why) => (TaskResult::Failed(why), Output::new()),
        }
    }

    /// Ends what an earlier run of the agent has begun. Another attempt finishes it.
    pub async fn recover(&self) -> (TaskResult, Output) {
        self.owner.interrupted().await
    }

    async fn try_perform(&self, task: &Task) -> Result<Output, String> {
        self.owner.end_leftovers().await?;
        let fetch = self.profile.commercial().await?;
        if task.phase == TaskPhase::Check {
            return reach(&fetch.server).await.map(|()| Output::new());
        }
        let env: Vec<(&str, String)> =
            fetch.env.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let said = self.owner.run(task, fetch.argv, &env, FETCH_DEADLINE, |_| {}).await;
        judge(&said.map_err(|error| format!("commercial plugins cannot be fetched: {error}"))?)
    }
}

/// Whether something listens there.
async fn reach(server: &str) -> Result<(), String> {
    let cannot =
        |why: String| format!("the server of commercial plugins, {server}: {why} (NOCOBASE_PKG_URL)");
    let url = reqwest::Url::parse(server).map_err(|error| cannot(error.to_string()))?;
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(443));
    match timeout(CONNECT_DEADLINE, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(cannot(error.to_string())),
        Err(_) => Err(cannot("it does not answer".into())),
    }
}

/// What was fetched and removed, by what the program has printed.
fn judge(said: &str) -> Result<Output, String> {
    let after = |line: &str, word: &str| line.split_once(word).map(|(_, rest)| plain(rest));
    let mut output = Output::new();
    for line in said.lines() {
        for word in ["Login failed", "Download failed", "You do not have permission"] {
            if line.contains(word) {
                return Err(format!(
                    "NocoBase's program says: {word}{}",
                    after(line, word).unwrap_or_default()
                ));
            }
        }
        if let Some(package) = after(line, "Downloaded: ") {
            let (name, version) = package.rsplit_once('@').unwrap_or((&package, ""));
            output.insert(name.to_owned(), version.to_owned());
        } else if let Some(package) = after(line, "Removed: ") {
            output.insert(package, "removed: not licensed".to_owned());
        }
    }
    if said.contains("Download plugins done") {
        return Ok(output);
    }
    let last = said.lines().rfind(|line| !line.trim().is_empty()).map(plain).unwrap_or_default();
    Err(format!("NocoBase's program fetched nothing; the last that it says: {last}"))
}

/// A line without colours and control characters.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(one) = rest.next() {
        if one == '\u{1b}' {
            // A sequence ends with its first letter.
            let _ = rest.by_ref().find(char::is_ascii_alphabetic);
        } else if !one.is_control() {
            plain.push(one);
        }
    }
    plain.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_prints_tells_how_it_went() {
        let good = "2026-11-23 [\u{1b}[32minfo\u{1b}[39m] Login success \n2026-11-23 [info] Removed: @nocobase/plugin-a \n\
                    2026-11-23 [info] Download plugins... \n2026-11-23 [info] Downloaded: @nocobase/plugin-b@2.2.15 \n\
                    2026-11-23 [info] Download plugins done \n";
        let output = judge(good).unwrap();
        let expected = [("@nocobase/plugin-a", "removed: not licensed"), ("@nocobase/plugin-b", "2.2.15")];
        let expected: Output =
            expected.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        assert_eq!(output, expected);
        let failed =
            good.replace("Downloaded: @nocobase/plugin-b@2.2.15", "Download failed: @nocobase/plugin-b");
        assert_eq!(
            judge(&failed).unwrap_err(),
            "NocoBase's program says: Download failed: @nocobase/plugin-b"
        );
        assert!(judge("[info] Login failed: http://x/ \n").is_err());
        let silent = judge("[info] \u{1b}[31mLicense key not found\u{1b}[39m \n\n").unwrap_err();
        assert!(silent.ends_with("[info] License key not found"), "{silent}");
    }
}
