//! `soloist cluster status`.

use crate::{commands::Context, error::Result, render::cluster};

/// Show the members: who leads, how far each is behind, versions, and what is dangerous
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(_: Args, context: &Context) -> Result<()> {
    let shown = cluster::Cluster::from(super::members(context).await?);
    context.ui.data(&shown, || cluster::table(&shown))
}
