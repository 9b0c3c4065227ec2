//! `soloist node`.

use std::time::Duration;

use clap::Subcommand;
use soloist_core::{
    ids::{FleetId, NodeId},
    operation::Request,
    traffic::ServerSeen,
    view::FleetView,
};
use soloist_proto::v1;
use tokio::time::{Instant, sleep};

use crate::{
    cli::duration,
    commands::{
        Context,
        confirm::{Loss, confirm},
        me,
        operate::{self, operate},
    },
    error::{CtlError, Kind, Result},
    names,
    render::{status, table},
};

/// How often it is looked whether a node is drained.
const LOOK: Duration = Duration::from_millis(300);

/// Look at nodes, keep users away from one, say that one is off, or remove it
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the nodes
    List,
    /// Show one in full
    Show {
        /// Its name
        node: NodeId,
    },
    /// Keep users away from a node that goes on running, until it is undrained
    Drain(DrainArgs),
    /// Give a node to users again
    Undrain(DrainArgs),
    /// Say of a machine that nobody hears that it is off and stays off
    ///
    /// Operations then count its app as stopped. If the app runs all the same, two nodes may change the database at once.
    AssumeStopped(AssumeArgs),
    /// Keep a node that does not answer from what the fleet shares: its database login is locked, or its machine switched off
    ///
    /// Operations then go on without it where the fence covers all that they may change. It is lifted by itself when the node's agent is
    /// back and has stopped the app. docs/fences.md says how fences are set up.
    Fence(FenceArgs),
    /// Lift the fences around a node whose app is proven to be stopped, rather than wait until that happens by itself
    Unfence {
        /// Its name
        node: NodeId,
    },
    /// Stop a node and let it leave the fleet; or forget a load balancer that is gone
    Remove(RemoveArgs),
}

#[derive(Debug, clap::Args)]
struct DrainArgs {
    /// Its name
    node: NodeId,
    /// Why; kept with the event
    #[arg(long, default_value = "")]
    reason: String,
    /// How long to wait until every load balancer has done it
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2m")]
    timeout: Duration,
}

#[derive(Debug, clap::Args)]
struct AssumeArgs {
    /// Its name
    node: NodeId,
    /// Why it is known to be off; kept with the event
    #[arg(long)]
    reason: String,
    /// Its name again, in place of typing it
    #[arg(long, value_name = "NODE")]
    confirm: Option<NodeId>,
}

#[derive(Debug, clap::Args)]
struct FenceArgs {
    /// Its name
    node: NodeId,
    /// Why; kept with the event
    #[arg(long)]
    reason: String,
    /// Which fence; without it the gentlest that keeps the node from what the operation at hand may change
    #[arg(long, value_enum)]
    with: Option<With>,
    /// Its name again, in place of typing it
    #[arg(long, value_name = "NODE")]
    confirm: Option<NodeId>,
    /// How long to wait until the fence holds
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2m")]
    timeout: Duration,
}

/// Which fence.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum With {
    /// Its database login is locked, and its sessions are ended
    Database,
    /// Its machine is switched off
    Machine,
}

#[derive(Debug, clap::Args)]
struct RemoveArgs {
    /// Its name
    node: NodeId,
    /// Its name again, in place of typing it
    #[arg(long, value_name = "NODE")]
    confirm: Option<NodeId>,
    #[command(flatten)]
    options: operate::Options,
}

/// Looks at nodes.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    let (view, fresh) = context.status(&fleet).await?;
    let stale = status::stale(&fresh);
    match args.command {
        Command::Drain(args) => drain(context, &fleet, args, true).await,
        Command::Undrain(args) => drain(context, &fleet, args, false).await,
        Command::AssumeStopped(args) => assume_stopped(context, &fleet, args).await,
        Command::Fence(args) => fence(context, &fleet, args).await,
        Command::Unfence { node } => unfence(context, &fleet, &node).await,
        Command::Remove(args) => remove(context, &fleet, args).await,
        Command::List => context.ui.data(&view.nodes, || format!("{stale}{}", table::nodes(&view.nodes))),
        Command::Show { node } => match view.nodes.iter().find(|found| found.node == node) {
            Some(found) => context.ui.data(found, || format!("{stale}{}", table::node(found))),
            None => {
                let known: Vec<String> = view.nodes.iter().map(|found| found.node.to_string()).collect();
                Err(names::unknown("node", node.as_str(), &format!("in fleet \"{fleet}\""), &known))
            }
        },
    }
}

async fn drain(context: &Context, fleet: &FleetId, args: DrainArgs, drained: bool) -> Result<()> {
    let DrainArgs { node, reason, timeout } = args;
    let (fleet_name, name) = (fleet.to_string(), node.to_string());
    let request = v1::DrainRequest { fleet: fleet_name, node: name, drained, by: me(), reason };
    let done = context.client.call(|mut stub| {
        let request = request.clone();
        async move { stub.drain(request).await }
    });
    let _ = done.await?;
    let deadline = Instant::now() + timeout;
    loop {
        let (view, _) = context.status(fleet).await?;
        let left = left(&view, &node, drained);
        if left.is_empty() {
            let word = if drained { "drained" } else { "given to users again" };
            let value = serde_json::json!({ "node": node, "drained": drained });
            return context.ui.data(&value, || format!("{node} is {word}\n"));
        }
        if Instant::now() >= deadline {
            let text =
                format!("not done within {}: {}", humantime::format_duration(timeout), left.join(", "));
            return Err(CtlError::new(Kind::Failed, text).hint("it goes on by itself; see soloist status"));
        }
        sleep(LOOK).await;
    }
}

async fn assume_stopped(context: &Context, fleet: &FleetId, args: AssumeArgs) -> Result<()> {
    let AssumeArgs { node, reason, confirm: given } = args;
    let text = format!(
        "{node} will count as stopped, although nothing proves it: its machine must be off and stay off, or nothing may start the app \
         there by itself, the agent included"
    );
    let loss = Loss { what: "node", name: node.to_string(), text };
    confirm(context, &loss, given.as_ref().map(NodeId::as_str))?;
    let request =
        v1::AssumeStoppedRequest { fleet: fleet.to_string(), node: node.to_string(), by: me(), reason };
    let done = context.client.call(|mut stub| {
        let request = request.clone();
        async move { stub.assume_stopped(request).await }
    });
    let _ = done.await?;
    let value = serde_json::json!({ "node": node, "assumed": true });
    context.ui.data(&value, || format!("{node} counts as stopped until its agent is heard\n"))
}

async fn fence(context: &Context, fleet: &FleetId, args: FenceArgs) -> Result<()> {
    let FenceArgs { node, reason, with, confirm: given, timeout } = args;
    let text = format!(
        "{node} will be kept from the database, or switched off, until its agent is back and has stopped the app; users who are on it now \
         see errors"
    );
    let loss = Loss { what: "node", name: node.to_string(), text };
    confirm(context, &loss, given.as_ref().map(NodeId::as_str))?;
    let covers = match with {
        None => v1::Covers::Unspecified,
        Some(With::Database) => v1::Covers::Database,
        Some(With::Machine) => v1::Covers::Machine,
    };
    let (fleet_name, name) = (fleet.to_string(), node.to_string());
    let request = v1::FenceRequest { fleet: fleet_name, node: name, covers: covers.into(), by: me(), reason };
    let done = context.client.call(|mut stub| {
        let request = request.clone();
        async move { stub.fence(request).await }
    });
    let _ = done.await?;
    let deadline = Instant::now() + timeout;
    loop {
        let (view, _) = context.status(fleet).await?;
        let found = view.nodes.into_iter().find(|found| found.node == node);
        let fences = found.map(|found| found.fences).unwrap_or_default();
        let mut asked =
            fences.iter().filter(|fence| ["wanted", "holds", "lifting"].contains(&fence.state.as_str()));
        let value = serde_json::json!({ "node": node, "fences": fences });
        // It stopped meanwhile, and is let in again.
        let Some(first) = asked.next() else {
            return context.ui.data(&value, || format!("{node} is stopped: no fence is needed\n"));
        };
        if let Some(holds) = fences.iter().find(|fence| fence.state == "holds") {
            return context.ui.data(&value, || format!("{node} is fenced from the {}\n", holds.covers));
        }
        if Instant::now() >= deadline {
            let waited = humantime::format_duration(timeout);
            let text = format!("the fence around {node} does not hold after {waited}: {}", first.detail);
            return Err(CtlError::new(Kind::Failed, text).hint("it goes on by itself; see soloist node show"));
        }
        sleep(LOOK).await;
    }
}

async fn unfence(context: &Context, fleet: &FleetId, node: &NodeId) -> Result<()> {
    let request = v1::UnfenceRequest { fleet: fleet.to_string(), node: node.to_string(), by: me() };
    let done = context.client.call(|mut stub| {
        let request = request.clone();
        async move { stub.unfence(request).await }
    });
    let _ = done.await?;
    let value = serde_json::json!({ "node": node, "unfenced": true });
    context.ui.data(&value, || {
        format!("{node} is let in again, as soon as the agent that carries the fence has done it\n")
    })
}

async fn remove(context: &Context, fleet: &FleetId, args: RemoveArgs) -> Result<()> {
    let RemoveArgs { node, confirm: given, options } = args;
    let text =
        format!("{node} will be stopped and leave fleet \"{fleet}\"; its agent does not come back by itself");
    let loss = Loss { what: "node", name: node.to_string(), text };
    confirm(context, &loss, given.as_ref().map(NodeId::as_str))?;
    operate(context, fleet, "node-remove", Request::Remove { node }, &options).await
}

/// Who has not done it yet.
fn left(view: &FleetView, node: &NodeId, drained: bool) -> Vec<String> {
    let waits = view.nodes.iter().filter(|found| found.node == *node && !found.acknowledged);
    let waits = waits.map(|found| format!("the agent of {}", found.node));
    // A node that does not serve is given to nobody, whatever is wanted.
    let serves = view.nodes.iter().any(|found| found.node == *node && found.app == "serving");
    let balancers = view.balancers.iter().filter(|balancer| {
        !matches!(
            (balancer.servers.get(node), drained),
            (Some(ServerSeen::Out { .. }), true) | (Some(ServerSeen::In), false)
        ) && (drained || serves)
    });
    waits.chain(balancers.map(|balancer| balancer.node.to_string())).collect()
}
