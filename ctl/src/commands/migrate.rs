//! `soloist migrate`.

use crate::{
    commands::{
        Context,
        operate::{self, operate},
        request::MigrateRequest,
    },
    error::Result,
};

/// Run the migrations that are due, such as those of a plugin that was uploaded in the app: backed up, on one node, then all
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    request: MigrateRequest,
    #[command(flatten)]
    options: operate::Options,
}

/// Runs the migrations.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    context.check_node(&fleet, args.request.on.as_ref()).await?;
    operate(context, &fleet, "migrate", args.request.request(), &args.options).await
}
