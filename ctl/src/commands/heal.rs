//! `soloist heal`.

use soloist_core::operation::Request;

use crate::{
    commands::{
        Context,
        operate::{self, operate},
    },
    error::Result,
};

/// Restart the nodes that have not loaded what they should, each after its users have gone elsewhere
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: operate::Options,
}

/// Heals the stale nodes.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    operate(context, &fleet, "heal", Request::Heal, &args.options).await
}
