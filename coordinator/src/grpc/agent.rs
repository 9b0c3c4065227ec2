//! `AgentService`: opens sessions. What happens in one is in [`session`](super::session).

use std::sync::Arc;

use futures::{StreamExt as _, stream::BoxStream};
use soloist_proto::v1::{AgentMessage, CoordinatorMessage, agent_service_server::AgentService};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::session;
use crate::{shared::Shared, watch::QUEUE};

/// Serves agents.
pub(crate) struct Agents {
    shared: Arc<Shared>,
}

impl Agents {
    pub(crate) fn new(shared: Arc<Shared>) -> Agents {
        Agents { shared }
    }
}

#[tonic::async_trait]
impl AgentService for Agents {
    type SessionStream = BoxStream<'static, Result<CoordinatorMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (to, messages) = mpsc::channel(QUEUE);
        let shared = self.shared.clone();
        // Ends by itself: with the stream, by its deadlines, or when the coordinator stops.
        tokio::spawn(async move {
            if let Err(status) = session::run(&shared, request.into_inner(), &to).await {
                tracing::debug!(%status, "a session ended");
                // Nobody may be listening any more.
                let _ = to.try_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(messages).boxed()))
    }
}
