//! `soloist stop`.

use soloist_core::operation::Request;

use crate::{
    commands::{
        Context,
        operate::{self, operate},
    },
    error::Result,
};

/// Stop all nodes of the fleet, until the next start
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: operate::Options,
}

/// Stops the fleet.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    operate(context, &fleet, "stop", Request::Stop, &args.options).await
}
