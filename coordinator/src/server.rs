//! A running coordinator: what it serves, and how it starts and stops.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use futures::stream;
use soloist_core::policy::Policy;
use soloist_proto::door::{Caller, Door};
use tokio::{
    net::TcpListener,
    sync::{Mutex, Semaphore},
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;

use crate::{
    clock::Clock,
    config::Config,
    contact::{self, Hearing},
    grpc, history, http,
    leader::{self, Leadership},
    members,
    memory::Memory,
    metrics::Metrics,
    notice,
    peers::Peers,
    raft::{HandOver, OpenError, RaftNode, RaftOptions},
    shared::{REGISTERING_MAX, Shared},
    store::Archive,
};

/// How long another member may take to take over before this one stops anyway.
const HAND_OVER: Duration = Duration::from_secs(3);
/// How long open calls may take to end.
const DRAIN: Duration = Duration::from_secs(2);

/// A coordinator could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} (key \"{key}\", flag --{key}): {}", cause(.source))]
    Bind {
        /// The key with the address.
        key: &'static str,
        /// The address.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The member could not be started.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The member can no longer take part.
    #[error("this member cannot go on: {reason}")]
    Failed {
        /// Why.
        reason: String,
    },
}

fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "it is in use; stop the process that has it, or choose another address".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this host does not have that address".to_owned(),
        _ => error.to_string(),
    }
}

/// A running coordinator.
#[derive(Debug)]
pub struct Coordinator {
    shared: Arc<Shared>,
    listen: SocketAddr,
    http: Option<SocketAddr>,
    health: HealthReporter,
    close: CancellationToken,
    servers: Vec<JoinHandle<()>>,
    duties: Vec<JoinHandle<()>>,
}

impl Coordinator {
    /// Listens, opens the data folder, and serves. Returns before a leader is known.
    ///
    /// # Errors
    ///
    /// With what to do about it.
    pub async fn start(config: Config) -> Result<Coordinator, StartError> {
        // First of all: a second coordinator on the same address must not touch the data folder.
        let listener = bind("listen", &config.listen).await?;
        let http = match &config.http {
            Some(address) => Some(bind("http", address).await?),
            None => None,
        };
        let listen = local(&listener, &config.listen)?;
        let http_at = http.as_ref().zip(config.http.as_ref());
        let http_at = http_at.map(|(listener, address)| local(listener, address)).transpose()?;
        let Config { id, cluster, data, advertise, members, fleet_defaults, max_feature_level, .. } = config;
        let archived = data.clone();
        let options = RaftOptions {
            max_level: max_feature_level,
            ..RaftOptions::new(cluster.clone(), id, data).with_initial_members(members)
        };
        let raft = RaftNode::open(options).await?;
        // The folder is this member's own from here on.
        let archive = Arc::new(spawn_blocking(move || Archive::open(&archived)).await.unwrap_or_default());
        let shared = Arc::new(shared(cluster, advertise, http_at, fleet_defaults, raft, archive));
        let close = CancellationToken::new();
        let (router, health) = grpc::router(&shared).await;
        let mut servers = vec![tokio::spawn({
            let closed = close.clone().cancelled_owned();
            async move {
                let door = Door::new(listener, grpc::terms());
                let incoming = stream::unfold(door, async |mut door| {
                    Some((Ok::<_, io::Error>(door.accept().await), door))
                });
                if let Err(error) = router.serve_with_incoming_shutdown(incoming, closed).await {
                    tracing::error!(error = chain(&error), "the gRPC server ended");
                }
            }
        })];
        if let Some(listener) = http {
            let (closed, door) = (close.clone().cancelled_owned(), Door::new(listener, http::TERMS));
            let routes = http::router(shared.clone()).into_make_service_with_connect_info::<Caller>();
            servers.push(tokio::spawn(async move {
                if let Err(error) = axum::serve(door, routes).with_graceful_shutdown(closed).await {
                    tracing::error!(%error, "the HTTP server ended");
                }
            }));
        }
        let duties = vec![
            tokio::spawn(leader::duty(shared.clone())),
            tokio::spawn(members::founding(shared.clone())),
            tokio::spawn(contact::telling(shared.clone())),
            tokio::spawn(notice::noticing(shared.clone())),
            tokio::spawn(history::keeping(shared.clone())),
        ];
        Ok(Coordinator { shared, listen, http: http_at, health, close, servers, duties })
    }

    /// The member of the cluster that this is.
    pub fn raft(&self) -> &RaftNode {
        &self.shared.raft
    }

    /// Where gRPC is served.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where HTTP is served.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Returns, with the reason, if the member can no longer take part.
    pub async fn failed(&self) -> String {
        let mut fatal = self.shared.raft.fatal();
        match fatal.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The member was stopped on purpose, and will not fail any more.
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops: hands the leadership over, sends agents and clients away, and closes the data folder.
    pub async fn stop(self) {
        grpc::unhealthy(&self.health).await;
        match self.shared.raft.hand_over(HAND_OVER).await {
            HandOver::NotLeading => {}
            HandOver::To(member) => tracing::info!(member, "handed the leadership over"),
            HandOver::Nobody if self.shared.status().voters.len() <= 1 => {}
            HandOver::Nobody => tracing::warn!("nobody took the leadership over"),
        }
        self.halt().await;
    }

    /// Stops without handing over, as a crash would.
    pub async fn halt(mut self) {
        self.shared.stop.cancel();
        self.close.cancel();
        for server in &mut self.servers {
            // The other members keep their streams open: they are cut off.
            if timeout(DRAIN, &mut *server).await.is_err() {
                server.abort();
            }
        }
        for duty in &mut self.duties {
            if timeout(DRAIN, &mut *duty).await.is_err() {
                duty.abort();
            }
        }
        self.shared.raft.shutdown().await;
    }
}

/// Runs a coordinator until `shutdown` is over, or until it cannot go on.
///
/// # Errors
///
/// When it cannot start or cannot go on.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
    let (id, cluster, data) = (config.id, config.cluster.clone(), config.data.clone());
    let members = config.members.len();
    let coordinator = Coordinator::start(config).await?;
    tracing::info!(
        member = id,
        cluster,
        members,
        data = %data.display(),
        listen = %coordinator.listen(),
        http = coordinator.http().map_or_else(|| "none".to_owned(), |at| at.to_string()),
        "coordinator started"
    );
    // Cancel-safe: both arms only wait.
    let failure = tokio::select! {
        () = shutdown => None,
        reason = coordinator.failed() => Some(reason),
    };
    match failure {
        None => {
            tracing::info!("stopping");
            coordinator.stop().await;
            tracing::info!("stopped");
            Ok(())
        }
        Some(reason) => {
            coordinator.halt().await;
            Err(StartError::Failed { reason })
        }
    }
}

fn shared(
    cluster: String,
    advertise: String,
    http: Option<SocketAddr>,
    fleet_defaults: Policy,
    raft: RaftNode,
    archive: Arc<Archive>,
) -> Shared {
    Shared {
        peers: Peers::new(cluster.clone(), raft.clone()),
        cluster,
        advertise,
        http: http.map(|at| at.to_string()).unwrap_or_default(),
        fleet_defaults,
        raft,
        clock: Clock::start(),
        leadership: Leadership::new(),
        memory: Memory::default(),
        hearing: Hearing::default(),
        registering: Semaphore::new(REGISTERING_MAX),
        changing: Mutex::default(),
        archive,
        metrics: Metrics::default(),
        stop: CancellationToken::new(),
    }
}

async fn bind(key: &'static str, address: &str) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| StartError::Bind { key, address: address.to_owned(), source })
}

fn local(listener: &TcpListener, address: &str) -> Result<SocketAddr, StartError> {
    let found = listener.local_addr();
    found.map_err(|source| StartError::Bind { key: "listen", address: address.to_owned(), source })
}

/// An error with everything that led to it.
pub fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
