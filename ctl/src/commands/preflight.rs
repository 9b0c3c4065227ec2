//! `soloist preflight`.

use soloist_core::preflight::{Finding, Severity, Told};
use soloist_proto::v1;

use crate::{
    commands::Context,
    error::{CtlError, Result},
    render::{
        json::{NodePreflight, Preflight},
        preflight,
    },
};

/// Compare all nodes, and name what should be the same and is not
///
/// Asks every agent about its node, for some seconds at most. Settings are compared by fingerprints; no value leaves its node.
/// Ends with exit code 1 if there is a problem; warnings are none.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Compares the nodes.
pub async fn run(_: Args, context: &Context) -> Result<()> {
    let fleet = context.fleet().await?;
    let request = v1::PreflightRequest { fleet: fleet.to_string() };
    let reply = context.client.call(|mut stub| {
        let request = request.clone();
        async move { stub.preflight(request).await }
    });
    let reply = reply.await?;
    let findings = reply.findings.into_iter().map(Finding::try_from).collect::<Result<Vec<_>, _>>()?;
    let node = |node: v1::NodePreflight| {
        Ok(NodePreflight { node: node.node, told: node.told.map(Told::try_from).transpose()? })
    };
    let found = Preflight {
        fleet: fleet.to_string(),
        findings,
        checks: reply.checks,
        nodes: reply.nodes.into_iter().map(node).collect::<Result<_>>()?,
        freshness: reply.freshness.unwrap_or_default().into(),
    };
    context.ui.data(&found, || preflight::page(&found))?;
    let problems = found.findings.iter().filter(|finding| finding.severity == Severity::Problem).count();
    match problems {
        0 => Ok(()),
        1 => Err(CtlError::failed("there is a problem")),
        count => Err(CtlError::failed(format!("there are {count} problems"))),
    }
}
