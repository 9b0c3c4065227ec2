//! What is counted.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use soloist_core::Command;

/// Counters of this process, since its start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) proposals: Family<ProposalLabels, Counter<u64, AtomicU64>>,
}

/// What is counted separately among proposals.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ProposalLabels {
    pub(crate) command: &'static str,
    pub(crate) result: &'static str,
}

impl Metrics {
    /// Counts a proposal that this member made or took on.
    pub(crate) fn proposed(&self, command: &'static str, result: &'static str) {
        self.proposals.get_or_create(&ProposalLabels { command, result }).inc();
    }
}

/// A command's name, for labels.
pub(crate) fn name(command: &Command) -> &'static str {
    match command {
        Command::Promote { .. } => "promote",
        Command::Register { .. } => "register",
        Command::Report { .. } => "report",
        Command::Heard { .. } => "heard",
        Command::Submit { .. } => "submit",
        Command::Confirm { .. } => "confirm",
        Command::Renew { .. } => "renew",
        Command::Release { .. } => "release",
        Command::Abort { .. } => "abort",
        Command::Retry { .. } => "retry",
        Command::Decide { .. } => "decide",
        Command::ForceRelease { .. } => "force_release",
        Command::SetPolicy { .. } => "set_policy",
        Command::Freeze { .. } => "freeze",
        Command::Resume { .. } => "resume",
        Command::Drain { .. } => "drain",
        Command::AssumeStopped { .. } => "assume_stopped",
        Command::Fence { .. } => "fence",
        Command::Unfence { .. } => "unfence",
        Command::Timer { .. } => "timer",
        Command::Raise { .. } => "raise",
    }
}

/// How a proposal ended, for labels: `done`, the word of a rejection, or `failed`.
pub(crate) fn result<E>(result: &Result<crate::raft::Applied, E>) -> &'static str {
    match result {
        Ok(applied) => match &applied.reply {
            Ok(_) => "done",
            Err(rejection) => rejection.reason(),
        },
        Err(_) => "failed",
    }
}
