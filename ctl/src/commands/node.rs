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
