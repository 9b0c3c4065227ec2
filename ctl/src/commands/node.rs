//! `soloist node`.

use clap::Subcommand;
use soloist_core::ids::NodeId;

use crate::{
    commands::Context,
    error::Result,
    names,
    render::{status, table},
};

/// Look at nodes
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
}

/// Looks at nodes.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    let (view, fresh) = context.status(&fleet).await?;
    let stale = status::stale(&fresh);
    match args.command {
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
