//! The pipeline of appends to one member.
//!
//! ```text
//! library ──requests──► encode ──► connection ──► member
//!                 │ when sent
//!                 ▼
//!           bounded queue ──► deadline of the oldest unanswered request
//!                                       │
//! library ◄──answers── decode ◄── connection ◄── member
//! ```
//!
//! The stream stays open while there is nothing to send, so its deadline is one for each answer, not for the stream. When
//! the answers are dropped, the requests end too: the library waits for its request stream to be let go before it opens
//! the next one, and the transport would hold on to it.

use std::{sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use openraft::{
    errors::{NetworkError, RPCError},
    raft::{AppendEntriesRequest, StreamAppendResult},
};
use soloist_proto::v1::{RaftAnswer, RaftEnvelope};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Streaming;

use super::{
    gate::Gate,
    network::{failed, opened, silent},
    types::TypeConfig,
};
use crate::store::codec::encode;

/// How long a member may take to answer an append: the time of a very slow sync, not of a network.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// How many appends may be under way to one member.
const PIPELINE: usize = 64;

/// The receiving half of a pipeline.
#[derive(Debug)]
pub(crate) struct Answers {
    /// When each unanswered request was sent, the oldest first.
    sent: mpsc::Receiver<Instant>,
    /// Ends the requests when the answers are dropped.
    guard: DropGuard,
}

/// Splits a pipeline into what is sent, and what reads the answers.
pub(crate) fn split<S>(
    input: S,
    envelope: impl Fn(Vec<u8>) -> RaftEnvelope + Send + 'static,
) -> (impl Stream<Item = RaftEnvelope> + Send + 'static, Answers)
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    let (on_sent, sent) = mpsc::channel(PIPELINE);
    let ended = CancellationToken::new();
    let guard = ended.clone().drop_guard();
    let requests = stream::unfold((input, on_sent, envelope), |(mut input, on_sent, envelope)| async move {
        // A slot first: a request that was taken from the library must be sent.
        let slot = on_sent.clone().reserve_owned().await.ok()?;
        let request = input.next().await?;
        let payload = match encode(&request) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "an append cannot be encoded");
                return None;
            }
        };
        slot.send(Instant::now());
        Some((envelope(payload), (input, on_sent, envelope)))
    });
    (requests.take_until(ended.cancelled_owned()), Answers { sent, guard })
}

impl Answers {
    /// The answers in the order of the requests; ends after the first error.
    pub(crate) fn read(
        self,
        gate: Arc<Gate>,
        member: u64,
        incoming: Streaming<RaftAnswer>,
    ) -> impl Stream<Item = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>> + Send {
        let Answers { sent, guard } = self;
        stream::unfold(Some((sent, guard, incoming, gate)), move |state| async move {
            let (mut sent, guard, mut incoming, gate) = state?;
            // While nothing is under way, all that can come is the end of the stream, or an answer that overtook the
            // note of its request.
            let received = tokio::select! {
                biased;
                oldest = sent.recv() => {
                    // No more requests: the library ended its stream, and everything is answered.
                    let deadline = oldest? + ANSWER_DEADLINE;
                    tokio::time::timeout_at(deadline, incoming.message()).await
                }
                early = incoming.message() => {
                    if matches!(early, Ok(Some(_))) && sent.try_recv().is_err() {
                        return Some((Err(unasked(member)), None));
                    }
                    Ok(early)
                }
            };
            let answer = match received {
                Err(_) => Err(silent(member, ANSWER_DEADLINE)),
                Ok(Err(status)) => Err(failed(&gate, member, &status)),
                Ok(Ok(None)) => return None,
                Ok(Ok(Some(answer))) => opened(&gate, member, &answer),
            };
            let next = answer.is_ok().then_some((sent, guard, incoming, gate));
            Some((answer, next))
        })
    }
}

fn unasked(member: u64) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::from_string(format!(
        "member {member} answered an append that was not sent"
    )))
}
