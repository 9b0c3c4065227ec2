//! `soloist evidence`.

use std::{fs, path::PathBuf};

use clap::Subcommand;
use serde::Serialize;
use soloist_core::{evidence::Verdict, ids::OperationId};
use soloist_proto::evidence::Export;

use crate::{
    commands::Context,
    error::{CtlError, Kind, Result},
    evidence::{Evidence, fetch},
};

/// Largest file that is checked, in bytes: that of a day alone, of the largest fleet.
const FILE_MAX: u64 = 512 * 1024 * 1024;

/// Export what agents recorded while an operation was alone, or check such a file
///
/// The export holds the raw records of every node with their hashes. Checking it needs no coordinator: hashes and links are computed
/// anew, and from the records alone it is decided whether at most one node ran.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    /// The operation
    #[arg(required = true)]
    operation: Option<OperationId>,
    /// Write to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check an exported file, without any coordinator: exit status 0 only if it is whole and proves that at most one node ran
    Check {
        /// The file
        file: PathBuf,
    },
}

/// What a check found.
#[derive(Debug, Serialize)]
struct Found<'a> {
    operation: &'a OperationId,
    request: &'a str,
    /// What was changed or is missing in the file.
    tampered: &'a [String],
    #[serde(flatten)]
    evidence: &'a Evidence,
}

/// Exports or checks evidence.
pub async fn run(args: Args, context: &Context) -> Result<()> {
    match (args.command, args.operation) {
        (Some(Command::Check { file }), _) => check(context, &file),
        (None, Some(operation)) => export(context, &operation, args.file).await,
        (None, None) => Err(CtlError::new(Kind::Usage, "name an operation, or check a file")),
    }
}

async fn export(context: &Context, id: &OperationId, file: Option<PathBuf>) -> Result<()> {
    let fleet = context.fleet().await?;
    let Some(export) = fetch(&context.client, &fleet, id).await? else {
        let text = format!("{id} was never alone: there is nothing to prove");
        return Err(CtlError::new(Kind::Refused, text)
            .hint("only operations that need all other nodes stopped are witnessed"));
    };
    let text = serde_json::to_string_pretty(&export)
        .map_err(|error| CtlError::failed(format!("cannot write JSON: {error}")))?;
    let checked = export.check().map_err(|error| CtlError::failed(error.to_string()))?;
    match file {
        None => context.ui.text(&text)?,
        Some(file) => {
            fs::write(&file, format!("{text}\n"))
                .map_err(|error| CtlError::failed(format!("cannot write {}: {error}", file.display())))?;
            context.ui.hint(&format!("check it with soloist evidence check {}", file.display()));
        }
    }
    for line in Evidence::new(&export, &checked).lines {
        context.ui.note(&line);
    }
    Ok(())
}

fn check(context: &Context, file: &PathBuf) -> Result<()> {
    let unreadable = |why: &dyn std::fmt::Display| {
        CtlError::failed(format!("{} is not exported evidence: {why}", file.display()))
    };
    let size = fs::metadata(file).map_err(|error| unreadable(&error))?.len();
    if size > FILE_MAX {
        return Err(unreadable(&format!("it is larger than {FILE_MAX} bytes")));
    }
    let text = fs::read_to_string(file).map_err(|error| unreadable(&error))?;
    let export: Export = serde_json::from_str(&text).map_err(|error| unreadable(&error))?;
    let checked = export.check().map_err(|error| unreadable(&error))?;
    let evidence = Evidence::new(&export, &checked);
    let (operation, request) = (&checked.case.operation, checked.case.request.as_str());
    let found = Found { operation, request, tampered: &checked.tampered, evidence: &evidence };
    let whole = checked.tampered.is_empty();
    let good = whole && checked.proof.verdict == Verdict::Proven;
    context.ui.data(&found, || {
        let mut text = format!("operation {operation} of {}: {request}\n", checked.case.fleet);
        for line in evidence
            .lines
            .iter()
            .cloned()
            .chain(checked.tampered.iter().map(|what| format!("TAMPERED: {what}")))
        {
            text.push_str(&format!("  {line}\n"));
        }
        for (node, chain) in &export.chains {
            let head = if chain.head.is_empty() { "none" } else { &chain.head };
            text.push_str(&format!("  {node}: {} records, head {head}\n", chain.records.len()));
        }
        let verdict = match (whole, checked.proof.verdict) {
            (false, _) => "NOT to be believed: the file was changed",
            (true, Verdict::Proven) => "at most one node ran",
            (true, Verdict::SoFar) => "the operation is not over",
            (true, Verdict::Unproven) => "not all of it is proven",
            (true, Verdict::Broken) => "BROKEN: something ran, or was connected, that must not have been",
        };
        text + &format!("verdict: {verdict}\n")
    })?;
    if good {
        return Ok(());
    }
    Err(CtlError::failed(format!("{} does not prove that at most one node ran", file.display())))
}
