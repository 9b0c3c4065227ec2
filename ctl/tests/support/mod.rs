//! A coordinator that follows a script, for the real program to talk to.

#![allow(clippy::unwrap_used, dead_code, reason = "a test may fail, and not every test uses all of it")]

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use soloist_core::{
    Rejection,
    ids::{FleetId, Token, Version},
    operation::Step,
    policy::Policy,
};
use soloist_proto::{
    errors::to_status,
    v1::{
        self,
        operator_service_server::{OperatorService, OperatorServiceServer},
        request::Request as Kind,
    },
};
use tokio_stream::{
    Stream,
    wrappers::{IntervalStream, TcpListenerStream},
};
use tonic::{Request, Response, Status, transport::Server};

/// The token of every grant.
pub(crate) const TOKEN: u64 = 41;

/// What the coordinator does and has seen.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// Length of the lease.
    pub(crate) lease_ms: u64,
    /// How many renewals are answered; then they are refused.
    pub(crate) renewals_max: u32,
    /// Whether renewals beyond that are not answered at all.
    pub(crate) renewals_hang: bool,
    /// Whether a request is ever granted.
    pub(crate) grants: bool,
    /// How an operation that is not granted ends.
    pub(crate) ends_with: Option<String>,
    /// Whether somebody asks to abort once the holder has accepted.
    pub(crate) aborts: bool,
    /// Whether preflight finds a difference.
    pub(crate) differs: bool,
    /// Renewals so far.
    pub(crate) renewals: u32,
    /// Outcome of the release.
    pub(crate) released: Option<String>,
    /// Reason of an abort.
    pub(crate) aborted: Option<String>,
    /// Submitted requests.
    pub(crate) submitted: Vec<v1::SubmitRequest>,
    /// The version that the fleet has.
    pub(crate) version: Option<String>,
    /// How the last operation is, whatever else is said here.
    pub(crate) shown: Option<v1::OperationView>,
    /// Decisions so far.
    pub(crate) decided: Vec<v1::DecideRequest>,
    /// The policy and its version.
    pub(crate) policy: (v1::Policy, u64),
    /// Changes of the policy.
    pub(crate) set: Vec<v1::SetPolicyRequest>,
    pub(crate) frozen: Vec<v1::FreezeRequest>,
}

impl Default for Script {
    fn default() -> Self {
        Script {
            lease_ms: 9_000,
            renewals_max: u32::MAX,
            renewals_hang: false,
            grants: true,
            ends_with: None,
            aborts: false,
            differs: false,
            renewals: 0,
            released: None,
            aborted: None,
            submitted: Vec::new(),
            version: None,
            shown: None,
            decided: Vec::new(),
            policy: (Policy::default().into(), 4),
            set: Vec::new(),
            frozen: Vec::new(),
        }
    }
}

/// A running coordinator. It lives as long as the test's process.
#[derive(Clone)]
pub(crate) struct Fake {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl Fake {
    /// Starts one.
    pub(crate) fn start(script: Script) -> Fake {
        let script = Arc::new(Mutex::new(script));
        let (to, address) = std::sync::mpsc::channel();
        let service = Service { script: script.clone() };
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                to.send(listener.local_addr().unwrap()).unwrap();
                let server = Server::builder().add_service(OperatorServiceServer::new(service));
                server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
            });
        });
        Fake { address: address.recv().unwrap(), script }
    }

    /// What it has seen so far.
    pub(crate) fn seen(&self) -> Script {
        self.script.lock().unwrap().clone()
    }

    /// Changes what it does.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }
}

struct Service {
    script: Arc<Mutex<Script>>,
}

fn node(name: &str, app: &str, wanted: &str) -> v1::NodeView {
    v1::NodeView {
        node: name.into(),
        machine: "m".into(),
        app: app.into(),
        wanted: wanted.into(),
        acknowledged: true,
        heard_ms: Some(200),
        ..v1::NodeView::default()
    }
}

impl Service {
    fn operation(script: &Script) -> Option<v1::OperationView> {
        let submitted = script.submitted.last();
        if let Some(shown) = &script.shown {
            let id = submitted.map_or_else(|| shown.id.clone(), |submitted| submitted.operation.clone());
            return Some(v1::OperationView { id, ..shown.clone() });
        }
        let submitted = submitted?;
        let over = script.released.is_some() || script.aborted.is_some() && script.renewals == 0;
        let refused = script.ends_with.is_some() && !script.grants;
        let granted = script.grants;
        let aborting = script.aborts && script.renewals > 0 && !over;
        let status = match () {
            () if refused || script.aborted.is_some() || script.aborts && over => "aborted",
            () if over => "succeeded",
            () if aborting => "aborting",
            () => "running",
        };
        let step = |text: String, state: &str| v1::StepView {
            step: text,
            state: state.into(),
            took_ms: Some(100),
            expected_ms: None,
            found: std::collections::HashMap::new(),
        };
        let now = if over { "done" } else { "now" };
        Some(v1::OperationView {
            id: submitted.operation.clone(),
            request: "run --solo".into(),
            by: "me".into(),
            status: status.into(),
            detail: script
                .ends_with
                .clone()
                .filter(|_| refused)
                .unwrap_or_else(|| if script.aborts { "by somebody: enough".into() } else { String::new() }),
            cause: if refused { "not_granted".into() } else { String::new() },
            waits: if granted {
                vec![]
            } else {
                vec![v1::Wait { node: Some("node-2".into()), what: "its stop".into() }]
            },
            steps: if granted {
                vec![step("grant".into(), "done"), step(Step::Released.to_string(), now)]
            } else {
                vec![step("stop node-2".into(), "now")]
            },
            attempt: 1,
            token: Some(TOKEN),
            solo: Some("node-1".into()),
            granted,
            ended: over || refused,
            age_ms: 1500,
            ..v1::OperationView::default()
        })
    }

    fn status_reply(script: &Script) -> v1::StatusReply {
        let operation = Self::operation(script);
        let current = operation.filter(|operation| !operation.ended);
        let lock = v1::LockView {
            held: current.is_some(),
            operation: current.as_ref().map(|current| current.id.clone()),
            token: current.as_ref().map(|_| TOKEN),
            ..v1::LockView::default()
        };
        let view = v1::FleetView {
            fleet: "shop".into(),
            active: true,
            desired: v1::Desired::Run.into(),
            lock: Some(lock),
            nodes: vec![node("node-1", "serving", "plain"), node("node-2", "stopped", "stop")],
            current,
            ..v1::FleetView::default()
        };
        v1::StatusReply { view: Some(view), freshness: Some(fresh()) }
    }
}

fn fresh() -> v1::Freshness {
    v1::Freshness { member: 1, leader: Some(1), applied: 7, ..v1::Freshness::default() }
}

fn check(fleet: &str) -> Result<(), Status> {
    if fleet == "shop" {
        return Ok(());
    }
    let known = vec![FleetId::new("shop").unwrap()];
    Err(to_status(&Rejection::UnknownFleet { fleet: FleetId::new(fleet).unwrap(), known }))
}

type Answer<T> = Result<Response<T>, Status>;
type Flow<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl OperatorService for Service {
    async fn list_fleets(&self, _: Request<v1::ListFleetsRequest>) -> Answer<v1::ListFleetsReply> {
        let fleet = v1::FleetSummary { fleet: "shop".into(), active: true, nodes: 2, ..Default::default() };
        Ok(Response::new(v1::ListFleetsReply { fleets: vec![fleet], freshness: Some(fresh()) }))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Answer<v1::StatusReply> {
        check(&request.get_ref().fleet)?;
        Ok(Response::new(Self::status_reply(&self.script.lock().unwrap())))
    }

    type WatchStream = Flow<v1::StatusReply>;

    async fn watch(&self, request: Request<v1::StatusRequest>) -> Answer<Self::WatchStream> {
        check(&request.get_ref().fleet)?;
        let script = self.script.clone();
        let ticks = IntervalStream::new(tokio::time::interval(Duration::from_millis(50)));
        let replies =
            tokio_stream::StreamExt::map(ticks, move |_| Ok(Self::status_reply(&script.lock().unwrap())));
        Ok(Response::new(Box::pin(replies)))
    }

    async fn plan(&self, _: Request<v1::PlanRequest>) -> Answer<v1::PlanReply> {
        let step = |step: &str, expected_ms| v1::PlannedStep {
            step: step.into(),
            waits_for: "an answer".into(),
            expected_ms,
        };
        let steps = vec![step("reach node-1, node-2", Some(1_300)), step("grant", None)];
        Ok(Response::new(v1::PlanReply { steps, freshness: Some(fresh()) }))
    }

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Answer<v1::SubmitReply> {
        let request = request.into_inner();
        check(&request.fleet)?;
        let operation = request.operation.clone();
        let mut script = self.script.lock().unwrap();
        if let (Some(Kind::Upgrade(upgrade)), Some(version)) =
            (request.request.as_ref().and_then(|request| request.request.as_ref()), &script.version)
            && upgrade.to < *version
        {
            let (version, to) = (Version(version.clone()), Version(upgrade.to.clone()));
            let fleet = FleetId::new("shop").unwrap();
            return Err(to_status(&Rejection::Downgrade { fleet, version, to }));
        }
        (script.renewals, script.released) = (0, None);
        script.submitted.push(request);
        Ok(Response::new(v1::SubmitReply { operation }))
    }

    async fn confirm(&self, _: Request<v1::ConfirmRequest>) -> Answer<v1::ConfirmReply> {
        Ok(Response::new(v1::ConfirmReply {}))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Answer<v1::RenewReply> {
        let hang = {
            let mut script = self.script.lock().unwrap();
            assert_eq!(request.get_ref().token, TOKEN);
            if script.renewals < script.renewals_max {
                script.renewals += 1;
                let lease_ms = script.lease_ms;
                return Ok(Response::new(v1::RenewReply { until_ms: 0, lease_ms }));
            }
            script.renewals_hang
        };
        if hang {
            std::future::pending::<()>().await;
        }
        Err(to_status(&Rejection::LeaseLost { token: Token(TOKEN) }))
    }

    async fn release(&self, request: Request<v1::ReleaseRequest>) -> Answer<v1::ReleaseReply> {
        self.script.lock().unwrap().released = Some(request.into_inner().outcome);
        Ok(Response::new(v1::ReleaseReply {}))
    }

    async fn abort(&self, request: Request<v1::AbortRequest>) -> Answer<v1::AbortReply> {
        self.script.lock().unwrap().aborted = Some(request.into_inner().reason);
        Ok(Response::new(v1::AbortReply {}))
    }

    async fn retry(&self, _: Request<v1::RetryRequest>) -> Answer<v1::RetryReply> {
        Ok(Response::new(v1::RetryReply {}))
    }

    async fn decide(&self, request: Request<v1::DecideRequest>) -> Answer<v1::DecideReply> {
        self.script.lock().unwrap().decided.push(request.into_inner());
        Ok(Response::new(v1::DecideReply {}))
    }

    async fn get_policy(&self, _: Request<v1::GetPolicyRequest>) -> Answer<v1::GetPolicyReply> {
        let (policy, version) = self.script.lock().unwrap().policy.clone();
        Ok(Response::new(v1::GetPolicyReply { policy: Some(policy), version, freshness: Some(fresh()) }))
    }

    async fn set_policy(&self, request: Request<v1::SetPolicyRequest>) -> Answer<v1::SetPolicyReply> {
        let request = request.into_inner();
        let mut script = self.script.lock().unwrap();
        if request.seen != script.policy.1 {
            let (fleet, version) = (FleetId::new("shop").unwrap(), script.policy.1);
            return Err(to_status(&Rejection::PolicyMoved { fleet, version, seen: request.seen }));
        }
        let version = request.seen + 1;
        script.policy = (request.policy.clone().unwrap(), version);
        script.set.push(request);
        Ok(Response::new(v1::SetPolicyReply { version }))
    }

    async fn freeze(&self, request: Request<v1::FreezeRequest>) -> Answer<v1::FreezeReply> {
        self.script.lock().unwrap().frozen.push(request.into_inner());
        Ok(Response::new(v1::FreezeReply {}))
    }

    async fn drain(&self, _: Request<v1::DrainRequest>) -> Answer<v1::DrainReply> {
        Ok(Response::new(v1::DrainReply {}))
    }

    async fn assume_stopped(&self, _: Request<v1::AssumeStoppedRequest>) -> Answer<v1::AssumeStoppedReply> {
        Ok(Response::new(v1::AssumeStoppedReply {}))
    }

    async fn fence(&self, _: Request<v1::FenceRequest>) -> Answer<v1::FenceReply> {
        Ok(Response::new(v1::FenceReply {}))
    }

    async fn unfence(&self, _: Request<v1::UnfenceRequest>) -> Answer<v1::UnfenceReply> {
        Ok(Response::new(v1::UnfenceReply {}))
    }

    type EvidenceStream = Flow<v1::EvidencePart>;

    async fn evidence(&self, _: Request<v1::EvidenceRequest>) -> Answer<Self::EvidenceStream> {
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(v1::EvidencePart::default())]))))
    }

    async fn force_release(&self, _: Request<v1::ForceReleaseRequest>) -> Answer<v1::ForceReleaseReply> {
        Ok(Response::new(v1::ForceReleaseReply { token: TOKEN + 1 }))
    }

    async fn get_operation(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Answer<v1::GetOperationReply> {
        let request = request.into_inner();
        let operation =
            Self::operation(&self.script.lock().unwrap()).filter(|found| found.id == request.operation);
        match operation {
            Some(operation) => Ok(Response::new(v1::GetOperationReply {
                operation: Some(operation),
                freshness: Some(fresh()),
            })),
            None => Err(to_status(&Rejection::UnknownOperation {
                fleet: request.fleet.parse().unwrap(),
                operation: request.operation.parse().unwrap(),
            })),
        }
    }

    async fn list_operations(
        &self,
        _: Request<v1::ListOperationsRequest>,
    ) -> Answer<v1::ListOperationsReply> {
        let operations = Self::operation(&self.script.lock().unwrap()).into_iter().collect();
        Ok(Response::new(v1::ListOperationsReply { operations, freshness: Some(fresh()) }))
    }

    type EventsStream = Flow<v1::Event>;

    async fn events(&self, _: Request<v1::EventsRequest>) -> Answer<Self::EventsStream> {
        let event = |index, text: &str| v1::Event {
            index,
            kind: "app".into(),
            text: text.into(),
            ..Default::default()
        };
        let events = vec![Ok(event(1, "one")), Ok(event(2, "two"))];
        Ok(Response::new(Box::pin(tokio_stream::iter(events))))
    }

    async fn plugins(&self, _: Request<v1::PluginsRequest>) -> Answer<v1::PluginsReply> {
        let plugin = |name: &str| v1::PluginInfo {
            name: name.into(),
            package: format!("@nocobase/plugin-{name}"),
            enabled: name == "users",
        };
        let inventory = v1::Inventory { plugins: vec![plugin("map"), plugin("users")] };
        let nodes = vec![
            v1::NodePlugins { node: "node-1".into(), inventory: Some(inventory) },
            v1::NodePlugins { node: "node-2".into(), inventory: None },
        ];
        Ok(Response::new(v1::PluginsReply { nodes, freshness: Some(fresh()) }))
    }

    async fn backups(&self, _: Request<v1::BackupsRequest>) -> Answer<v1::BackupsReply> {
        let backup = v1::BackupInfo {
            backup: "backup-1".into(),
            node: "node-1".into(),
            wall_ms: 1_700_000_000_000,
            version: Some("2.2.15".into()),
            facts: vec![v1::Parameter { name: "size".into(), value: "34.1 MiB".into() }],
        };
        Ok(Response::new(v1::BackupsReply { backups: vec![backup], freshness: None }))
    }

    async fn preflight(&self, _: Request<v1::PreflightRequest>) -> Answer<v1::PreflightReply> {
        let finding = v1::Finding {
            severity: v1::finding::Severity::Problem.into(),
            check: "settings".into(),
            nodes: vec!["node-2".into()],
            text: "TZ differs".into(),
            remedy: "make it the same".into(),
        };
        let told = v1::ToldFacts { facts: Some(v1::NodeFacts::default()), ..v1::ToldFacts::default() };
        let nodes = vec![
            v1::NodePreflight { node: "node-1".into(), told: Some(told) },
            v1::NodePreflight { node: "node-2".into(), told: None },
        ];
        Ok(Response::new(v1::PreflightReply {
            findings: if self.script.lock().unwrap().differs { vec![finding] } else { Vec::new() },
            checks: vec!["contact".into(), "settings".into()],
            nodes,
            freshness: Some(fresh()),
        }))
    }
}
