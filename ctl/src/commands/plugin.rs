//! `soloist plugin`.

use clap::Subcommand;
use soloist_core::{
    ids::{FleetId, NodeId},
    operation::{PluginChange, Request},
};
use soloist_proto::v1;

use crate::{
    commands::{
        Context,
        operate::{self, operate},
        package::{PutRequest, RemoveRequest},
        request::PluginRequest,
    },
    error::Result,
    names,
    render::{json::NodePlugins, table},
};

/// Enable, disable, add, update or remove plugins under the lock, or list them
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enable a plugin on one node while the others rest, then on all
    Enable(ChangeArgs),
    /// Disable a plugin on one node while the others rest, then on all
    Disable(ChangeArgs),
    /// Add plugins as packages, in one outage: fetched and checked before anything is stopped, backed up, on one node, then on all
    Add(AddArgs),
    /// Bring plugins to another version, in one outage; their migrations run on one node
    Update(UpdateArgs),
    /// Disable plugins and remove their packages, in one outage; what they have stored in the database stays
    Remove(RemoveArgs),
    /// List the plugins of each node
    List,
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    #[command(flatten)]
    request: PutRequest,
    /// Enable them in the same outage
    #[arg(long)]
    enable: bool,
    #[command(flatten)]
    options: operate::Options,
}

#[derive(Debug, clap::Args)]
struct UpdateArgs {
    #[command(flatten)]
    request: PutRequest,
    #[command(flatten)]
    options: operate::Options,
}

#[derive(Debug, clap::Args)]
struct RemoveArgs {
    #[command(flatten)]
    request: RemoveRequest,
    #[command(flatten)]
    options: operate::Options,
}

#[derive(Debug, clap::Args)]
struct ChangeArgs {
    #[command(flatten)]
    request: PluginRequest,
    #[command(flatten)]
    options: operate::Options,
}

/// Changes or lists plugins.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    let (change, args) = match args.command {
        Command::Enable(args) => (PluginChange::Enable, args),
        Command::Disable(args) => (PluginChange::Disable, args),
        Command::Add(args) => {
            let request = args.request.request(args.enable)?;
            return exchange(context, &fleet, args.request.on.as_ref(), request, &args.options).await;
        }
        Command::Update(args) => {
            let request = args.request.request(false)?;
            return exchange(context, &fleet, args.request.on.as_ref(), request, &args.options).await;
        }
        Command::Remove(args) => {
            let request = args.request.request();
            return exchange(context, &fleet, args.request.on.as_ref(), request, &args.options).await;
        }
        Command::List => {
            let nodes = inventories(context, &fleet).await?;
            return context.ui.data(&nodes, || table::plugins(&nodes));
        }
    };
    context.check_node(&fleet, args.request.on.as_ref()).await?;
    let package = package(context, &fleet, &args.request).await?;
    operate(context, &fleet, "plugin", args.request.request(change, package), &args.options).await
}

async fn exchange(
    context: &Context,
    fleet: &FleetId,
    on: Option<&NodeId>,
    request: Request,
    options: &operate::Options,
) -> Result<()> {
    context.check_node(fleet, on).await?;
    operate(context, fleet, "plugin", request, options).await
}

async fn inventories(context: &Context, fleet: &FleetId) -> Result<Vec<NodePlugins>> {
    let request = v1::PluginsRequest { fleet: fleet.to_string() };
    let reply = context.client.call_fresh(
        |mut stub| {
            let request = request.clone();
            async move { stub.plugins(request).await }
        },
        |reply: &v1::PluginsReply| reply.freshness.clone().unwrap_or_default(),
    );
    Ok(reply.await?.nodes.into_iter().map(Into::into).collect())
}

/// The plugin's package, by the lists of the nodes on which it could be done. Where no list is known, the name as it is: the
/// agent looks again before anything is stopped.
pub async fn package(context: &Context, fleet: &FleetId, request: &PluginRequest) -> Result<String> {
    let nodes = inventories(context, fleet).await?;
    choose(&nodes, request)
}

fn choose(nodes: &[NodePlugins], request: &PluginRequest) -> Result<String> {
    let asked = |node: &&NodePlugins| request.on.as_ref().is_none_or(|on| on.as_str() == node.node);
    let known: Vec<_> =
        nodes.iter().filter(asked).filter_map(|node| node.plugins.as_ref()).flatten().collect();
    if known.is_empty() {
        return Ok(request.name.clone());
    }
    let named = |name: &str| known.iter().find(|plugin| plugin.package == name || plugin.name == name);
    if let Some(plugin) = named(&request.name) {
        return Ok(plugin.package.clone());
    }
    let mut packages: Vec<String> = known.iter().map(|plugin| plugin.package.clone()).collect();
    packages.sort();
    packages.dedup();
    let place = match &request.on {
        Some(on) => format!("on {on}"),
        None => "on any node that has listed its plugins".to_owned(),
    };
    Err(names::unknown("plugin", &request.name, &place, &packages))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::json::Plugin;

    fn nodes() -> Vec<NodePlugins> {
        let plugin = |name: &str| Plugin {
            name: name.into(),
            package: format!("@nocobase/plugin-{name}"),
            enabled: false,
        };
        vec![
            NodePlugins { node: "node-1".into(), plugins: Some(vec![plugin("map"), plugin("users")]) },
            NodePlugins { node: "node-2".into(), plugins: None },
        ]
    }

    fn request(name: &str, on: Option<&str>) -> PluginRequest {
        PluginRequest { name: name.into(), on: on.map(|on| on.parse().unwrap()) }
    }

    #[test]
    fn a_plugin_is_known_by_name_and_by_package() {
        for name in ["map", "@nocobase/plugin-map"] {
            assert_eq!(choose(&nodes(), &request(name, None)).unwrap(), "@nocobase/plugin-map");
        }
        let error = choose(&nodes(), &request("mapp", Some("node-1"))).unwrap_err();
        assert_eq!(error.kind.code(), 77);
        assert_eq!(error.hints[0], "did you mean @nocobase/plugin-map?");
    }

    #[test]
    fn a_node_that_listed_nothing_decides_later() {
        assert_eq!(choose(&nodes(), &request("anything", Some("node-2"))).unwrap(), "anything");
    }
}
