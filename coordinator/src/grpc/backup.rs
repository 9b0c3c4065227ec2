//! The coordinators' state as a file, for whoever looks after the cluster.

use futures::{StreamExt as _, stream, stream::BoxStream};
use soloist_proto::{
    errors::{INTERNAL, Problem},
    v1::{self, backup_part::Part},
};
use tokio::task::spawn_blocking;
use tonic::{Code, Status};

use crate::{
    reader::Extras,
    shared::Shared,
    store::{self, BackupHeader, to_backup},
};

/// How much of a backup goes into one message, in bytes.
const PART_BYTES: usize = 256 * 1024;

/// The parts of a backup, as they are sent.
pub(super) type Parts = BoxStream<'static, Result<v1::BackupPart, Status>>;

/// Makes a backup of a state that includes everything that was confirmed before, or of what this member has.
pub(super) async fn backup(shared: &Shared, stale_will_do: bool) -> Result<Parts, Status> {
    let reading = shared.read(None, Extras::NONE).await;
    let stale = reading.freshness.stale;
    if stale && !stale_will_do {
        let problem = shared.no_leader(&reading.freshness.reason).await;
        let hint = format!(
            "{}; or take what this member has, which may lack the last decisions: --stale",
            problem.hint
        );
        return Err(Problem { hint, ..problem }.into());
    }
    let (state, index, term) = shared.raft.storage().copy();
    let status = shared.status();
    let members = status.voters.into_iter().chain(status.learners).collect();
    let made =
        store::header(&shared.cluster, shared.raft.era(), shared.raft.id(), shared.clock.wall_ms(), stale);
    let header = BackupHeader { index, term, members, ..made };
    let told = header.clone();
    let made = spawn_blocking(move || to_backup(&header, &state)).await;
    let broken =
        |error: &dyn std::fmt::Display| Problem::new(Code::Internal, INTERNAL, error.to_string(), "");
    let bytes = made.map_err(|error| broken(&error))?.map_err(|error| broken(&error))?;
    tracing::info!(index, bytes = bytes.len(), stale, "backed up");
    let first = v1::BackupHeader {
        cluster: told.cluster,
        index,
        feature_level: told.feature_level,
        members: told.members.into_iter().collect(),
        member: told.member,
        wall_ms: told.wall_ms,
        stale,
        bytes: bytes.len() as u64,
        checksum: crc32fast::hash(&bytes),
    };
    let first = v1::BackupPart { part: Some(Part::Header(first)) };
    let starts = (0..bytes.len()).step_by(PART_BYTES);
    let parts = starts.map(move |start| {
        let end = bytes.len().min(start + PART_BYTES);
        v1::BackupPart { part: Some(Part::Data(bytes[start..end].to_vec())) }
    });
    Ok(stream::once(async { first }).chain(stream::iter(parts)).map(Ok).boxed())
}
