//! `soloist freeze` and `soloist unfreeze`.

use std::time::Duration;

use soloist_proto::v1;

use crate::{
    cli::duration,
    commands::{Context, me},
    error::Result,
};

/// Let no new operation begin for a while; starts, rollbacks and aborts are not kept from anybody
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For how long, for example 2h
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    length: Duration,
    /// Why; whoever is refused is told
    #[arg(long)]
    reason: String,
}

/// Let new operations begin again
#[derive(Debug, clap::Args)]
pub struct EndArgs {
    /// Why; kept with the event
    #[arg(long, default_value = "")]
    reason: String,
}

/// Puts the stop sign up.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    let length = u64::try_from(args.length.as_millis()).unwrap_or(u64::MAX);
    set(context, Some(length), args.reason).await?;
    let text = format!(
        "no new operation begins for {}; end it with soloist unfreeze",
        humantime::format_duration(args.length)
    );
    context.ui.data(&serde_json::json!({ "frozen_ms": length }), || format!("{text}\n"))
}

/// Takes it down.
pub async fn end(args: EndArgs, context: &Context) -> Result<()> {
    set(context, None, args.reason).await?;
    context.ui.data(&serde_json::json!({ "frozen_ms": null }), || "new operations may begin\n".to_owned())
}

async fn set(context: &Context, length_ms: Option<u64>, reason: String) -> Result<()> {
    let fleet = context.fleet().await?.to_string();
    let request = v1::FreezeRequest { fleet, length_ms, by: me(), reason };
    let done = context.client.call(|mut stub| {
        let request = request.clone();
        async move { stub.freeze(request).await }
    });
    done.await.map(drop)
}
