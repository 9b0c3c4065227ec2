//! One member of the cluster, running.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use openraft::{
    BasicNode, ReadPolicy,
    errors::{InitializeError, RaftError},
};
use soloist_core::Entry;
use soloist_proto::v1::raft_service_server::RaftServiceServer;
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    config::{RaftOptions, library_config},
    error::{Member, OpenError, ProposeError, ReadError, no_majority_within},
    gate::Gate,
    network::Network,
    service::RaftService,
    status::{FatalReason, Published, RaftStatus, Role, publish},
    types::{Applied, Raft, Response},
};
use crate::store::{MAX_COMMAND_BYTES, Store, StoreError, StoreHandle, codec::encode, forget_predecessors};

/// How long closing the data folder may take after the last write.
const CLOSE_DEADLINE: Duration = Duration::from_secs(20);

/// A running member. Clones are handles to the same one.
#[derive(Clone)]
pub struct RaftNode {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) options: RaftOptions,
    pub(super) raft: Raft,
    pub(super) gate: Arc<Gate>,
    storage: StoreHandle,
    published: Published,
    unread: watch::Sender<Option<Arc<StoreError>>>,
    closing: CancellationToken,
    closed: watch::Receiver<()>,
}

impl std::fmt::Debug for RaftNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftNode").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl RaftNode {
    /// Opens the data folder and starts the member. If the folder is new and `initial_members` are given, the cluster is
    /// founded with them.
    ///
    /// It can be called by others only once [`RaftNode::service`] is served at its address.
    ///
    /// # Errors
    ///
    /// When the options cannot work, or the data folder cannot be used; the text says what to do.
    pub async fn open(options: RaftOptions) -> Result<RaftNode, OpenError> {
        if !options.initial_members.is_empty() && !options.initial_members.contains_key(&options.member) {
            return Err(OpenError::Options(format!(
                "member {} is not in its own list of initial members; add it, or leave the list empty for a member \
                 that an existing cluster takes in",
                options.member
            )));
        }
        let config = Arc::new(library_config(&options)?);
        let store = {
            let (path, cluster) = (options.data_folder.clone(), options.cluster.clone());
            let open = move || {
                let mut store = Store::open(&path, &cluster, options.member)?;
                store.limit(options.max_level)?;
                Ok::<_, StoreError>(store)
            };
            tokio::task::spawn_blocking(open).await.map_err(|error| OpenError::Start(error.to_string()))??
        };
        let (storage, failure, closed) = (store.machine.handle(), store.log.failure(), store.closed());
        let Store { log, machine, roll, mut members, predecessors, last, .. } = store;
        let gate = Arc::new(Gate::new(
            options.cluster.clone(),
            options.member,
            roll,
            last,
            options.initial_members.is_empty(),
        ));
        if let Some(predecessors) = predecessors {
            succeed(&gate, &members, predecessors, &options.data_folder).await?;
        }
        let network = Network::new(gate.clone());
        let (lines, unread) = (network.lines(), watch::Sender::new(None));
        if members.is_empty() {
            members.clone_from(&options.initial_members);
        }
        members.remove(&options.member);
        let raft = Raft::new(options.member, config, network, log, machine)
            .await
            .map_err(|error| OpenError::Start(error.to_string()))?;
        let published = publish(raft.metrics(), failure, unread.subscribe(), gate.refused(), lines);
        let closing = CancellationToken::new();
        let founders = options.initial_members.clone();
        let inner = Inner { options, raft, gate, storage, published, unread, closing, closed };
        let node = RaftNode { inner: Arc::new(inner) };
        if members.is_empty() {
            node.enter(&members, &founders).await?;
        } else {
            // The others can only answer once this one is served, as they may be asking it.
            tokio::spawn(node.clone().enter_among(members, founders));
        }
        Ok(node)
    }

    /// The gRPC service that the other members call. Its server should send HTTP/2 keep-alives.
    pub fn service(&self) -> RaftServiceServer<RaftService> {
        let inner = &self.inner;
        RaftService::server(
            inner.options.cluster.clone(),
            self.id(),
            inner.raft.clone(),
            inner.unread.clone(),
            inner.gate.clone(),
            inner.closing.clone(),
        )
    }

    /// Passes the gate, and founds the cluster unless it exists.
    async fn enter(
        &self,
        others: &BTreeMap<u64, String>,
        founders: &BTreeMap<u64, String>,
    ) -> Result<(), OpenError> {
        self.inner.gate.admit(others, !founders.is_empty()).await;
        if !self.inner.gate.is_open() {
            return Ok(());
        }
        found_cluster(&self.inner.raft, founders).await
    }

    async fn enter_among(self, others: BTreeMap<u64, String>, founders: BTreeMap<u64, String>) {
        // Cancel-safe: a member that stops while it asks has promised nothing.
        let entered = tokio::select! {
            () = self.inner.closing.cancelled() => return,
            entered = self.enter(&others, &founders) => entered,
        };
        if let Err(error) = entered
            && !self.inner.closing.is_cancelled()
        {
            self.inner.gate.refuse(error.to_string());
        }
    }

    /// Which cluster of its name this is: 0 if it was founded, another number if it was restored from a backup.
    pub fn era(&self) -> u64 {
        self.inner.gate.era()
    }

    /// This member's id.
    pub fn id(&self) -> u64 {
        self.inner.options.member
    }

    /// The highest feature level that this member follows.
    pub fn max_level(&self) -> u32 {
        self.inner.options.max_level
    }

    /// Has a command written by a majority and applied here, and returns what it gave.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]: only [`ProposeError::Unavailable`] leaves open whether the command takes effect.
    pub async fn propose(&self, entry: Entry) -> Result<Applied, ProposeError> {
        let bytes =
            encode(&entry).map_err(|error| ProposeError::Refused { reason: error.to_string() })?.len();
        if bytes > MAX_COMMAND_BYTES {
            return Err(ProposeError::TooLarge { bytes, limit: MAX_COMMAND_BYTES });
        }
        let written = self.within_deadline(self.inner.raft.client_write(entry)).await?;
        match written.data {
            Response::Command(applied) => Ok(applied),
            Response::Internal { index } => Err(ProposeError::Fatal {
                reason: format!("entry {index} held no command, although one was proposed"),
            }),
        }
    }

    /// Waits for a change of the log, but not for ever.
    pub(super) async fn within_deadline<T, E: Into<ProposeError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, ProposeError> {
        let deadline = self.inner.options.deadline;
        match timeout(deadline, work).await {
            Ok(result) => result.map_err(Into::into),
            Err(_) => Err(ProposeError::Unavailable { reason: no_majority_within(deadline) }),
        }
    }

    /// Returns once the local state includes everything that any member had confirmed before the call, with the index
    /// that ensures it. Only a leader can tell, and it asks a majority whether it still is one.
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    pub async fn ensure_linearizable(&self) -> Result<u64, ReadError> {
        let deadline = self.inner.options.deadline;
        match timeout(deadline, self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
            Ok(Ok(read)) => Ok(read.log_id().index),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(ReadError::Unavailable { reason: no_majority_within(deadline) }),
        }
    }

    /// Whether this member believes that it leads. Another may have been elected already: nothing may be decided from
    /// this alone.
    pub fn is_leader(&self) -> bool {
        self.inner.raft.is_leader()
    }

    /// The leader this member knows of.
    pub fn leader(&self) -> Option<Member> {
        self.inner.published.status.borrow().leader.clone()
    }

    /// This member's view of itself and the cluster, as it changes.
    pub fn status(&self) -> watch::Receiver<RaftStatus> {
        self.inner.published.status.clone()
    }

    /// Why this member can no longer take part: `None` while it can. The process must stop when this is set, and may be
    /// started again; after a failed write nothing is retried within it.
    pub fn fatal(&self) -> watch::Receiver<FatalReason> {
        self.inner.published.fatal.clone()
    }

    /// Read access to the replicated state on this member.
    pub fn storage(&self) -> StoreHandle {
        self.inner.storage.clone()
    }

    /// Stops the member and closes its data folder. Returns when the folder can be opened again, or after 20 seconds.
    /// A leader should [hand over](RaftNode::hand_over) first.
    pub async fn shutdown(&self) {
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::error!(%error, "the member did not stop cleanly");
        }
        self.inner.closing.cancel();
        let mut closed = self.inner.closed.clone();
        // An error from `changed` is what is waited for: the folder, and with it the sender, is gone.
        let close = async { while closed.changed().await.is_ok() {} };
        if timeout(CLOSE_DEADLINE, close).await.is_err() {
            tracing::error!("the data folder is still open after the member has stopped");
        }
    }

    /// Whether this member has stopped.
    pub fn is_stopped(&self) -> bool {
        self.inner.published.status.borrow().role == Role::Stopped
    }
}

/// Looks for the members of the cluster from whose backup this one was made, before anything else is done.
async fn succeed(
    gate: &Gate,
    members: &BTreeMap<u64, String>,
    mut predecessors: BTreeMap<u64, String>,
    folder: &Path,
) -> Result<(), OpenError> {
    // At its own address there is nobody else.
    predecessors.retain(|_, address| !members.values().any(|own| own == address));
    let alive = gate.living(&predecessors).await;
    if !alive.is_empty() {
        return Err(OpenError::PredecessorLives { alive });
    }
    Ok(forget_predecessors(folder)?)
}

/// Founds the cluster unless it exists. All members may do this at once with the same list, since the entry they write is
/// the same.
async fn found_cluster(raft: &Raft, members: &BTreeMap<u64, String>) -> Result<(), OpenError> {
    let start = |error: &dyn std::fmt::Display| OpenError::Start(error.to_string());
    if members.is_empty() || raft.is_initialized().await.map_err(|error| start(&error))? {
        return Ok(());
    }
    let nodes: BTreeMap<u64, BasicNode> =
        members.iter().map(|(id, address)| (*id, BasicNode::new(address))).collect();
    match raft.initialize(nodes).await {
        // Another member was faster, and its log or its vote has arrived here.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(start(&error)),
    }
}
