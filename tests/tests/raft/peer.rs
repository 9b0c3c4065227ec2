//! A member's calls to the others, as the coordinator's own network makes them: deadlines, and a pipeline of appends whose
//! answers come in order.

use std::{collections::BTreeMap, future::Future, pin::pin, time::Duration};

use futures::{
    FutureExt, Stream, StreamExt,
    future::{Either, select},
    stream,
};
use openraft::{
    BasicNode, OptionalSend, RaftNetworkFactory,
    base::{BoxFuture, BoxStream},
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{RPCOption, RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
    rt::AsyncRuntime,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    runtime::Seeded,
    types::{Simulated, Snapshot, Vote},
    wire::{Answer, Body, Request, Wire},
};

/// How long a member may take to answer an append of a pipeline.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// A connection over which nothing comes for so long is closed, whatever the deadline of a call on it.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// How many appends may be under way to one member.
pub(crate) const PIPELINE: usize = 64;

type RpcError = RPCError<Simulated>;

/// Makes clients for the other members.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) from: u64,
    pub(crate) wire: Wire,
}

impl RaftNetworkFactory<Simulated> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> Peer {
        Peer { from: self.from, to: target, wire: self.wire.clone() }
    }
}

/// A client for one member.
#[derive(Debug)]
pub(crate) struct Peer {
    from: u64,
    to: u64,
    wire: Wire,
}

impl Peer {
    async fn call<T>(
        &self,
        request: Request,
        option: RPCOption,
        take: impl FnOnce(Answer) -> Option<T>,
    ) -> Result<T, RpcError> {
        let deadline = option.soft_ttl().min(KEEP_ALIVE);
        let answer = timeout(deadline, self.wire.ask(self.from, self.to, request)).await;
        let answer = answer.ok().and_then(Result::ok).and_then(take);
        answer.ok_or_else(|| unreachable("no answer"))
    }
}

fn unreachable(what: &str) -> RpcError {
    RPCError::Unreachable(Unreachable::from_string(what))
}

impl RaftNetworkV2<Simulated> for Peer {
    type SnapshotData = Vec<u8>;

    async fn vote(
        &mut self,
        request: VoteRequest<Simulated>,
        option: RPCOption,
    ) -> Result<VoteResponse<Simulated>, RpcError> {
        let take = |answer| if let Answer::Vote(answer) = answer { Some(answer) } else { None };
        self.call(Request::Vote(request), option, take).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Simulated>,
        option: RPCOption,
    ) -> Result<VoteResponse<Simulated>, RpcError> {
        let take = |answer| if let Answer::Vote(answer) = answer { Some(answer) } else { None };
        self.call(Request::PreVote(request), option, take).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Simulated>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Simulated>, RpcError> {
        let take = |answer| if let Answer::Transfer(answer) = answer { Some(answer) } else { None };
        self.call(Request::Transfer(request), option, take).await
    }

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Simulated>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Simulated>, RpcError> {
        let take = |answer| if let Answer::Append(answer) = answer { Some(answer) } else { None };
        self.call(Request::Append(request), option, take).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Simulated>, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<Simulated>> + OptionalSend + Unpin + 'static,
    {
        let (id, answers) = self.wire.open_stream(2 * PIPELINE);
        let (on_sent, sent) = mpsc::channel(PIPELINE);
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let requests = send(self.wire.clone(), (self.from, self.to, id), input, on_sent);
        Seeded::spawn(async move {
            select(pin!(requests), pin!(ended.cancelled())).await;
        });
        let pipeline = Pipeline { sent, answers, early: BTreeMap::new(), next: 0, _guard: guard };
        let results = stream::unfold(Some(pipeline), |pipeline| async move {
            let mut pipeline = pipeline?;
            let result = pipeline.next().await?;
            let more = result.is_ok().then_some(pipeline);
            Some((result, more))
        });
        async move { Ok(results.boxed()) }.boxed()
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Simulated>, StreamingError<Simulated>> {
        let take = |answer| if let Answer::Install(answer) = answer { Some(answer) } else { None };
        let transfer = self.call(Request::Install(vote, snapshot), option, take);
        match select(pin!(transfer), pin!(cancel)).await {
            Either::Left((answer, _)) => {
                answer.map_err(|_| StreamingError::Unreachable(Unreachable::from_string("no answer")))
            }
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }
}

/// Sends the requests of a pipeline, numbered, until the library ends them.
async fn send<S>(
    wire: Wire,
    (from, to, stream): (u64, u64, u64),
    mut input: S,
    on_sent: mpsc::Sender<Instant>,
) where
    S: Stream<Item = AppendEntriesRequest<Simulated>> + Unpin,
{
    let mut number = 0;
    while let Ok(slot) = on_sent.reserve().await
        && let Some(request) = input.next().await
    {
        wire.post(from, to, Body::Append { stream, number, request });
        slot.send(Instant::now());
        number += 1;
    }
}

/// The answering half of a pipeline.
struct Pipeline {
    /// When each unanswered request was sent.
    sent: mpsc::Receiver<Instant>,
    answers: mpsc::Receiver<(u64, StreamAppendResult<Simulated>)>,
    /// Answers that overtook others.
    early: BTreeMap<u64, StreamAppendResult<Simulated>>,
    next: u64,
    /// Ends the requests when the answers are dropped.
    _guard: DropGuard,
}

impl Pipeline {
    async fn next(&mut self) -> Option<Result<StreamAppendResult<Simulated>, RpcError>> {
        let deadline = self.sent.recv().await? + ANSWER_DEADLINE;
        let number = self.next;
        self.next += 1;
        let wait = async {
            while !self.early.contains_key(&number) {
                let (number, result) = self.answers.recv().await?;
                self.early.insert(number, result);
            }
            self.early.remove(&number)
        };
        let answer = timeout_at(deadline, wait).await.ok().flatten();
        Some(answer.ok_or_else(|| unreachable("no answer to an append")))
    }
}
