//! `soloist restart`.

use crate::{
    commands::{
        Context,
        operate::{self, operate},
        request::RestartRequest,
    },
    error::Result,
};

/// Restart running nodes one after the other, each after its users have gone elsewhere
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    request: RestartRequest,
    #[command(flatten)]
    options: operate::Options,
}

/// Restarts nodes.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    operate(context, &fleet, "restart", args.request.request(), &args.options).await
}
