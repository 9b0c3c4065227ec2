//! nginx, steered through a file that it includes, and reloads.
//!
//! ```text
//!   wanted ──► render ──► file differs, or another generation answers?
//!                           │ no: nothing to do
//!                           ▼ yes
//!               write ──► test ──► reload ──► GET /generation says the new one
//!                           │ fails                      │
//!                           ▼                            ▼
//!                  put the old file back       workers of before the reload are gone, or ended at the deadline: out
//! ```
//!
//! The file's generation is a digest of its servers and options (see [`mod@include`]), not the number of the assignment: the number
//! changes for many reasons, and each reload costs every client its kept connection.
//!
//! A reload starts new workers, and lets those of before finish what they have: only when all of them have ended, nothing is
//! under way at a node that was taken out. For a fraction of a second, both take new connections, though new workers answer
//! already: so a node that comes back is in only when every worker of before the reload has stopped taking any. At the deadline those that are left are ended. nginx cannot tell which of its
//! connections go to which node, so that ends their connections to other nodes as well.

mod file;
mod include;
mod status;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use soloist_core::ids::NodeId;

use super::config::NginxConfig;
use super::error::BalancerError;
use super::{Seen, Want, Wanted};
use crate::host::ProcessId;
use crate::host::child::{ChildError, Program};
use crate::probe::shorten;
use crate::profile::base_env;
use file::Place;
use include::{InForce, Include};

/// A test or a reload takes a fraction of a second, and somewhat more where names must be resolved.
const PROGRAM_DEADLINE: Duration = Duration::from_secs(5);
/// How long is waited for the new generation after a reload.
const SETTLE: Duration = Duration::from_secs(2);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(20);
/// How long a file that was refused, or a reload without effect, is not tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The driver.
#[derive(Debug)]
pub(super) struct Nginx {
    config: NginxConfig,
    place: Place,
    drains: BTreeMap<NodeId, Drain>,
    tried: Option<Tried>,
    earlier: Option<Earlier>,
}

/// Workers of before a reload that still take new connections.
#[derive(Debug)]
struct Earlier {
    workers: BTreeSet<ProcessId>,
    /// The nodes that all of them know.
    nodes: BTreeSet<NodeId>,
}

/// One node on its way out, or out.
#[derive(Debug)]
struct Drain {
    since: Instant,
    /// Workers that may still serve requests of this node.
    workers: BTreeSet<ProcessId>,
    /// Those of them that were ended.
    ended: BTreeSet<ProcessId>,
    /// It was seen out.
    done: bool,
}

impl Drain {
    fn from_now(workers: BTreeSet<ProcessId>) -> Self {
        Self { since: Instant::now(), workers, ended: BTreeSet::new(), done: false }
    }
}

/// The last attempt to bring a file into force.
#[derive(Debug)]
struct Tried {
    generation: String,
    at: Instant,
    refusal: Option<Refusal>,
}

/// Why an attempt failed, in the words of a program.
#[derive(Debug, Clone)]
enum Refusal {
    Test(String),
    Reload(String),
}

impl Nginx {
    pub(super) fn new(config: NginxConfig) -> Self {
        let place = Place::new(&config.include);
        Self { config, place, drains: BTreeMap::new(), tried: None, earlier: None }
    }

    /// One round: makes the file so, and says what is in force.
    pub(super) async fn drive(&mut self, wanted: &Wanted) -> Result<BTreeMap<NodeId, Seen>, BalancerError> {
        if wanted.servers.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.drains.retain(|node, _| matches!(wanted.servers.get(node), Some(Want::Out { .. })));
        let place = self.place.clone();
        let on_disk = self.aside(move || place.read()).await?;
        let mut said = status::ask(self.config.status).await;
        let others = match (&said, &on_disk) {
            (Ok(in_force), _) => in_force.nodes.clone(),
            (Err(_), Some(text)) => Include::nodes(text),
            (Err(_), None) => BTreeSet::new(),
        };
        let include = Include::render(&self.config, wanted, &others)?;
        if on_disk.as_ref() != Some(&include.text) || !answers(&said, &include) {
            said = self.bring(wanted, &include, said).await?;
        }
        let in_force = said.map_err(|why| BalancerError::Status {
            address: self.config.status,
            why,
            include: self.config.include.clone(),
        })?;
        if in_force.generation != include.generation {
            self.check_fresh(&include, &in_force)?;
        }
        self.look_at_earlier().await?;
        let mut seen = BTreeMap::new();
        for (node, want) in &wanted.servers {
            seen.insert(node.clone(), self.seen(node, *want, &in_force).await?);
        }
        Ok(seen)
    }

    /// Brings a file into force: writes, tests, reloads, waits a moment. Gives what is in force then.
    async fn bring(
        &mut self,
        wanted: &Wanted,
        include: &Include,
        said: Result<InForce, String>,
    ) -> Result<Result<InForce, String>, BalancerError> {
        let same = |tried: &&Tried| tried.generation == include.generation && tried.at.elapsed() < RETRY;
        if let Some(tried) = self.tried.as_ref().filter(same) {
            return tried.refusal.clone().map_or(Ok(said), |refusal| Err(self.refused(refusal)));
        }
        let before: BTreeSet<ProcessId> = match self.workers().await {
            Ok(workers) => workers.into_keys().collect(),
            // It does not run, or not yet with our file: the reload tells.
            Err(BalancerError::Pid { .. }) if said.is_err() => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        let (place, text) = (self.place.clone(), include.text.clone());
        self.aside(move || place.replace(&text)).await?;
        let place = self.place.clone();
        if let Err(why) = run(&self.config.test).await {
            self.aside(move || place.put_back()).await?;
            return Err(self.note(include, Refusal::Test(why)));
        }
        self.aside(move || place.keep()).await?;
        // Before the reload, because this call may be dropped after it; and after it, because time runs from then on.
        self.begin_drains(wanted, &said, &before);
        if let Err(why) = run(&self.config.reload).await {
            return Err(self.note(include, Refusal::Reload(why)));
        }
        tracing::info!(number = wanted.number, generation = %include.generation, "nginx reloaded");
        self.tried =
            Some(Tried { generation: include.generation.clone(), at: Instant::now(), refusal: None });
        self.begin_drains(wanted, &said, &before);
        let mut nodes = said.map(|in_force| in_force.nodes).unwrap_or_default();
        if let Some(earlier) = &self.earlier {
            nodes.retain(|node| earlier.nodes.contains(node));
        }
        self.earlier = Some(Earlier { workers: before, nodes });
        self.settle(include).await
    }

    /// From a reload on, the workers of before it count for every node that it takes out.
    fn begin_drains(
        &mut self,
        wanted: &Wanted,
        said: &Result<InForce, String>,
        before: &BTreeSet<ProcessId>,
    ) {
        let out = wanted.servers.iter().filter(|(_, want)| matches!(want, Want::Out { .. }));
        for (node, _) in out {
            let was_in = said.as_ref().map_or(true, |in_force| in_force.nodes.contains(node));
            match self.drains.get_mut(node) {
                // It was out already: this reload is for another node.
                Some(_) if !was_in => {}
                Some(drain) if !drain.done => {
                    drain.since = Instant::now();
                    drain.workers.extend(before);
                }
                _ => {
                    self.drains.insert(node.clone(), Drain::from_now(before.clone()));
                }
            }
        }
    }

    /// Waits a moment for the new generation, and for the workers of before to take no new connections.
    async fn settle(&mut self, include: &Include) -> Result<Result<InForce, String>, BalancerError> {
        let began = Instant::now();
        loop {
            let said = status::ask(self.config.status).await;
            let settled = answers(&said, include) && self.look_at_earlier().await?;
            if settled || began.elapsed() >= SETTLE {
                return Ok(said);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Forgets earlier workers that take no new connections; `true` if none is left.
    async fn look_at_earlier(&mut self) -> Result<bool, BalancerError> {
        if self.earlier.is_none() {
            return Ok(true);
        }
        let now = self.workers().await?;
        let earlier = self.earlier.as_mut();
        let some_left = earlier.is_some_and(|earlier| {
            earlier.workers.retain(|worker| now.get(worker).is_some_and(|takes| *takes));
            !earlier.workers.is_empty()
        });
        if !some_left {
            self.earlier = None;
        }
        Ok(!some_left)
    }

    /// Another generation may answer for a moment after a reload, not for long.
    fn check_fresh(&self, include: &Include, in_force: &InForce) -> Result<(), BalancerError> {
        let tried = self.tried.as_ref().filter(|tried| tried.generation == include.generation);
        match tried.map(|tried| tried.at.elapsed()).filter(|since| *since >= SETTLE) {
            Some(since) => Err(BalancerError::Stale {
                since,
                include: self.config.include.clone(),
                wanted: include.generation.clone(),
                found: in_force.generation.clone(),
            }),
            None => Ok(()),
        }
    }

    async fn seen(&mut self, node: &NodeId, want: Want, in_force: &InForce) -> Result<Seen, BalancerError> {
        // Earlier workers that do not know it still send requests elsewhere.
        let known = self.earlier.as_ref().is_none_or(|earlier| earlier.nodes.contains(node));
        let within = match want {
            Want::In if known && in_force.nodes.contains(node) => return Ok(Seen::In),
            Want::In => return Ok(Seen::Out { cut: 0 }),
            Want::Out { .. } if in_force.nodes.contains(node) => return Ok(Seen::In),
            Want::Out { within } => within,
        };
        if !self.drains.contains_key(node) {
            // An earlier run of this agent has taken it out: what still finishes may have its requests.
            let finishing = self.workers().await?.into_iter().filter(|(_, takes)| !takes);
            let finishing = finishing.map(|(worker, _)| worker).collect();
            self.drains.insert(node.clone(), Drain::from_now(finishing));
        }
        let pid_file = self.config.pid_file.clone();
        let Some(drain) = self.drains.get_mut(node) else { return Ok(Seen::In) };
        drain.workers.retain(|worker| worker.alive());
        let cut = drain.ended.len() as u64;
        if drain.workers.is_empty() {
            drain.done = true;
            return Ok(Seen::Out { cut });
        }
        let in_flight = drain.workers.len() as u64;
        if drain.since.elapsed() >= within {
            let left = drain.workers.clone();
            let ended = self.aside(move || {
                let mut ended = BTreeSet::new();
                for worker in left {
                    if workers::end(&pid_file, worker)? {
                        tracing::info!(pid = worker.pid, "nginx worker ended at the deadline");
                        ended.insert(worker);
                    }
                }
                Ok(ended)
            });
            let ended = ended.await?;
            if let Some(drain) = self.drains.get_mut(node) {
                drain.ended.extend(ended);
            }
        }
        Ok(Seen::Draining { in_flight })
    }

    /// All workers, each with whether it takes new connections.
    async fn workers(&self) -> Result<BTreeMap<ProcessId, bool>, BalancerError> {
        let pid_file = self.config.pid_file.clone();
        self.aside(move || workers::find(&pid_file)).await
    }

    fn note(&mut self, include: &Include, refusal: Refusal) -> BalancerError {
        let generation = include.generation.clone();
        self.tried = Some(Tried { generation, at: Instant::now(), refusal: Some(refusal.clone()) });
        self.refused(refusal)
    }

    fn refused(&self, refusal: Refusal) -> BalancerError {
        match refusal {
            Refusal::Test(why) => BalancerError::Test { path: self.config.include.clone(), why },
            Refusal::Reload(why) => BalancerError::Reload { why },
        }
    }

    /// Work on files and the process table, which may hang, beside the loop.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, BalancerError> + Send + 'static,
    ) -> Result<T, BalancerError> {
        let include = self.config.include.clone();
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
            Err(BalancerError::File {
                what: "finish work for",
                path: include,
                source: io::Error::other(error),
            })
        })
    }
}

fn answers(said: &Result<InForce, String>, include: &Include) -> bool {
    said.as_ref().is_ok_and(|in_force| in_force.generation == include.generation)
}

/// Runs one of the configured programs; an error is the program's own words.
async fn run(argv: &[String]) -> Result<(), String> {
    // A mark of its own each time: should it start nginx itself, nothing that ends leftovers may ever find that.
    let mark = format!("balancer/{}", uuid::Uuid::new_v4().simple());
    let program = Program { argv: argv.to_vec(), env: base_env(), mark, deadline: PROGRAM_DEADLINE };
    match program.run(|_| {}).await {
        Ok(_) => Ok(()),
        Err(ChildError::Failed { program, why, said }) => {
            Err(format!("{program}: {}", words(&said).unwrap_or(why)))
        }
        Err(
            error @ (ChildError::None
            | ChildError::Execute { .. }
            | ChildError::Late { .. }
            | ChildError::Lasting { .. }),
        ) => Err(error.to_string()),
    }
}

/// nginx's first complaint; its last line only says that there was one.
fn words(said: &str) -> Option<String> {
    let levels = ["[emerg]", "[crit]", "[alert]", "[error]"];
    let line = levels.iter().find_map(|level| said.lines().find(|line| line.contains(level)))?;
    Some(shorten(line.trim_start_matches("nginx: ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_complaint_that_matters() {
        let said = "nginx: [alert] could not open error log file\nnginx: [emerg] unknown directive \"x\" in /etc/a.conf:3\n\
                    nginx: configuration file /etc/nginx.conf test failed\n";
        assert_eq!(words(said).unwrap(), "[emerg] unknown directive \"x\" in /etc/a.conf:3");
        assert_eq!(words("sudo: a password is required\n"), None);
    }

    #[tokio::test]
    async fn programs_that_fail() {
        let argv = |script: &str| ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        assert_eq!(run(&argv("true")).await, Ok(()));
        assert_eq!(run(&argv("echo no >&2; exit 1")).await.unwrap_err(), "/bin/sh: no");
        let why = run(&["/nonexistent/nginx".to_owned()]).await.unwrap_err();
        assert!(why.contains("cannot execute"), "{why}");
    }
}
