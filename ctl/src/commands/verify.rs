//! `soloist verify`.

use soloist_core::operation::Request;

use crate::{
    commands::{
        Context,
        operate::{self, operate},
    },
    error::Result,
};

/// Run the fleet's checks on every node that should run; nothing is stopped for it
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: operate::Options,
}

/// Verifies the fleet.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    operate(context, &fleet, "verify", Request::Verify, &args.options).await
}
