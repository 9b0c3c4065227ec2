//! One file per command: its arguments and one function.

pub mod backup;
pub mod cluster;
pub mod confirm;
pub mod demo;
pub mod events;
pub mod evidence;
pub mod fleet;
pub mod freeze;
pub mod heal;
pub mod lock;
pub mod migrate;
pub mod node;
pub mod operate;
pub mod operation;
pub mod package;
pub mod plan;
pub mod plugin;
pub mod preflight;
pub mod request;
pub mod restart;
pub mod restore;
pub mod rollback;
pub mod run;
pub mod stand_in;
pub mod start;
pub mod status;
pub mod stop;
pub mod upgrade;
pub mod verify;

use soloist_core::{
    ids::{FleetId, NodeId},
    view::FleetView,
};
use soloist_proto::v1;

use crate::{
    client::Client,
    error::{CtlError, Kind, Result},
    names,
    render::{Fresh, json},
    ui::Ui,
    watch::sight,
};

/// What every command has at hand.
pub struct Context {
    /// The coordinators.
    pub client: Client,
    /// The fleet that was named.
    pub fleet: Option<FleetId>,
    /// The outputs.
    pub ui: Ui,
}

impl Context {
    /// The fleet that is meant: the named one, else the only one.
    pub async fn fleet(&self) -> Result<FleetId> {
        if let Some(fleet) = &self.fleet {
            return Ok(fleet.clone());
        }
        let (known, stale) = self.fleets().await?;
        match known.as_slice() {
            [only] => FleetId::new(&only.fleet).map_err(|error| CtlError::failed(error.to_string())),
            [] if stale => {
                Err(CtlError::new(Kind::Unavailable, "no fleet is known, and the answer may be out of date")
                    .hint("ask again when a majority of the coordinators runs"))
            }
            [] => Err(CtlError::new(Kind::Refused, "there is no fleet yet")
                .hint("start an agent on each node; a fleet appears with its first agent")),
            several => {
                let names = several.iter().map(|fleet| fleet.fleet.as_str()).collect::<Vec<_>>().join(", ");
                Err(CtlError::new(Kind::Usage, format!("there are several fleets: {names}"))
                    .hint("choose one with --fleet or SOLOIST_FLEET"))
            }
        }
    }

    /// All fleets, and whether that may be out of date.
    pub async fn fleets(&self) -> Result<(Vec<json::Fleet>, bool)> {
        let reply = self.client.call_fresh(
            |mut stub| async move { stub.list_fleets(v1::ListFleetsRequest {}).await },
            |reply: &v1::ListFleetsReply| reply.freshness.clone().unwrap_or_default(),
        );
        let reply = reply.await?;
        let stale = reply.freshness.is_some_and(|freshness| freshness.stale);
        let fleets = reply.fleets.into_iter();
        let fleet = |v1::FleetSummary { fleet, active, nodes, serving, operation, .. }| json::Fleet {
            fleet,
            active,
            nodes,
            serving,
            operation,
        };
        Ok((fleets.map(fleet).collect(), stale))
    }

    /// A fleet as it is, or as it was last known.
    pub async fn status(&self, fleet: &FleetId) -> Result<(FleetView, Fresh)> {
        let request = v1::StatusRequest { fleet: fleet.to_string(), local: false };
        let reply = self.client.call_fresh(
            |mut stub| {
                let request = request.clone();
                async move { stub.status(request).await }
            },
            |reply: &v1::StatusReply| reply.freshness.clone().unwrap_or_default(),
        );
        sight(reply.await?)
    }

    /// Makes sure that a node exists.
    pub async fn check_node(&self, fleet: &FleetId, node: Option<&NodeId>) -> Result<()> {
        let Some(node) = node else { return Ok(()) };
        let (view, _) = self.status(fleet).await?;
        let known: Vec<String> = view.nodes.iter().map(|node| node.node.to_string()).collect();
        if known.iter().any(|name| name == node.as_str()) {
            return Ok(());
        }
        Err(names::unknown("node", node.as_str(), &format!("in fleet \"{fleet}\""), &known))
    }

    /// Adds to an error what only another question to the coordinators can tell.
    pub async fn explained<T>(&self, result: Result<T>) -> Result<T> {
        match (result, &self.fleet) {
            (Err(error), Some(fleet)) if error.is("unknown_fleet") => {
                let Ok((known, _)) = self.fleets().await else { return Err(error) };
                let names = known.iter().map(|fleet| fleet.fleet.as_str());
                Err(match names::closest(fleet.as_str(), names) {
                    Some(name) => error.hint(format!("did you mean {name}?")),
                    None => error,
                })
            }
            (result, _) => result,
        }
    }
}

/// Who asks: `user@host`.
pub fn me() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let user = variable("USER").or_else(|| variable("LOGNAME")).or_else(account);
    let user = user.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()));
    let host = rustix::system::uname();
    format!("{user}@{}", host.nodename().to_string_lossy())
}

/// The name of this process's user among the local accounts.
fn account() -> Option<String> {
    let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
    let uid = rustix::process::getuid().as_raw().to_string();
    let own = accounts.lines().find(|line| line.split(':').nth(2) == Some(&uid))?;
    own.split(':').next().map(str::to_owned)
}

/// The machine id of this host; empty where there is none.
pub fn machine() -> String {
    std::fs::read_to_string("/etc/machine-id").map(|id| id.trim().to_owned()).unwrap_or_default()
}
