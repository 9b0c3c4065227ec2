//! `soloist start`.

use crate::{
    commands::{
        Context,
        operate::{self, operate},
        request::StartRequest,
    },
    error::Result,
};

/// Start the fleet: one node first, then the others
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    request: StartRequest,
    #[command(flatten)]
    options: operate::Options,
}

/// Starts the fleet.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    operate(context, &fleet, "start", args.request.request(), &args.options).await
}
