//! Three members as real servers, with agents and clients over gRPC.

#![allow(clippy::unwrap_used)] // also in the helpers of a test, a panic is the answer

#[path = "support/cluster.rs"]
mod cluster;

use cluster::{Cluster, Operator, eventually, within};

use soloist_core::{
    assignment::{AppState, Assignment, Observed, Run},
    command::{Decision, Registration},
    ids::{BootId, FleetId, Incarnation, MachineId, NodeId},
    operation::Request,
    policy::{EVENTS_MAX, Policy},
};
use soloist_proto::{
    convert::Greeting,
    errors::{NO_LEADER, Problem, STOPPING, from_status},
    v1::{
        self, AgentMessage, CoordinatorMessage, agent_service_client::AgentServiceClient,
        coordinator_message::Message,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_lives_at_a_follower_and_a_client_asks_another() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let followers: Vec<u64> = cluster.running().filter(|id| *id != leader).collect();
    let mut agent = Agent::connect(&cluster, followers[0], 7).await;
    let (floor, assignment) = agent.opened().await;
    assert_eq!(assignment.spec.run, Run::Stop);
    assert!(assignment.generation.0 >= floor);

    // A report is acknowledged, and its effect can be read at any other member.
    agent.report(1, &assignment, AppState::Stopped).await;
    agent.beat("", Some(plugins())).await;
    agent.until(|message| matches!(message, Message::ReportAck(ack) if ack.sequence == 1)).await;
    let mut client = cluster.operator(followers[1]).await;
    let status = within(client.status(ask("shop"))).await.unwrap().into_inner();
    let node = &status.view.unwrap().nodes[0];
    assert!(!status.freshness.unwrap().stale);
    assert_eq!((node.app.as_str(), node.acknowledged, node.proven_stopped), ("stopped", true, true));
    eventually("the leader has heard of the node and its plugins", async || {
        let status = client.status(ask("shop")).await.unwrap().into_inner().view.unwrap();
        let listed = client.plugins(v1::PluginsRequest { fleet: "shop".into() }).await.unwrap().into_inner();
        status.nodes[0].heard_ms.is_some() && listed.nodes[0].inventory == Some(plugins())
    })
    .await;
    agent
        .until(|message| {
            matches!(
                message,
                Message::Contact(v1::Contact {
                    has_leader: true,
                    leader_generation: Some(_),
                    // Nobody has started the fleet yet, and users are told.
                    notice: Some(_),
                    ..
                })
            )
        })
        .await;

    // An operation that is asked for at one member becomes an assignment at the other; asking twice is asking once.
    let steps = within(client.plan(plan("shop", Request::Stop))).await.unwrap().into_inner().steps;
    assert!(steps.iter().any(|step| step.step == "stop a" && !step.waits_for.is_empty()), "{steps:?}");
    for _ in 0..2 {
        let reply = within(client.submit(submit("first", start()))).await.unwrap().into_inner();
        assert_eq!(reply.operation, "first");
    }
    let problem = refused(client.submit(submit("first", Request::Stop)).await);
    assert_eq!(problem.reason, "id_in_use");
    let assignment = agent.assigned(|assignment| assignment.spec.run == Run::Plain).await;
    agent.report(2, &assignment, AppState::Serving).await;
    eventually("the operation has succeeded", async || {
        let ask = v1::GetOperationRequest { fleet: "shop".into(), operation: "first".into() };
        client.get_operation(ask).await.unwrap().into_inner().operation.unwrap().status == "succeeded"
    })
    .await;
    agent.until(|message| matches!(message, Message::Contact(v1::Contact { notice: None, .. }))).await;
    let events = v1::EventsRequest { fleet: "shop".into(), after_index: 0, follow: false, older: false };
    let mut events = within(client.events(events)).await.unwrap().into_inner();
    let mut kinds = Vec::new();
    while let Some(event) = within(events.message()).await.unwrap() {
        kinds.push(event.kind);
    }
    assert!(kinds.contains(&"enrolled".to_owned()) && kinds.contains(&"ended".to_owned()), "{kinds:?}");

    let problem = refused(client.status(ask("shelf")).await);
    assert_eq!(problem.reason, "unknown_fleet");
    assert!(problem.hint.contains("shop"), "{problem:?}");
    let problem = refused(client.status(ask("No Fleet")).await);
    assert_eq!(problem.reason, "malformed");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_status_is_stale_and_nothing_is_decided() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let mut agent = Agent::connect(&cluster, leader, 7).await;
    agent.opened().await;
    let last = cluster.running().find(|id| *id != leader).unwrap();
    let mut agent = Agent::connect(&cluster, last, 8).await;
    agent.opened().await;
    let mut client = cluster.operator(last).await;
    within(client.submit(submit("before", start()))).await.unwrap();
    assert_eq!(cluster.ready(last).await, 200);
    for id in cluster.running().filter(|id| *id != last).collect::<Vec<_>>() {
        cluster.halt(id).await;
    }
    let status = within(client.status(ask("shop"))).await.unwrap().into_inner();
    let (view, freshness) = (status.view.unwrap(), status.freshness.unwrap());
    assert!(freshness.stale && !freshness.reason.is_empty(), "{freshness:?}");
    assert_eq!(view.nodes[0].heard_ms, None);
    assert!(!view.nodes[0].lost, "a member that cannot know must not say that a node is lost");
    let problem = refused(within(client.submit(submit("after", start()))).await);
    assert_eq!(problem.reason, NO_LEADER);
    assert!(problem.hint.contains("1 of 3 members answer"), "{problem:?}");
    eventually("it is not ready", async || cluster.ready(last).await == 503).await;

    // A session that is open is told, and another one is not opened.
    agent.until(|message| matches!(message, Message::Contact(v1::Contact { has_leader: false, .. }))).await;
    let mut other = Agent::connect(&cluster, last, 8).await;
    assert_eq!(other.ended().await.reason, NO_LEADER);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_agents_that_have_given_up_most_are_not_registered() {
    /// As many registrations as a member makes at a time, and three times as many agents.
    const PLACES: u64 = 16;
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let last = cluster.running().find(|id| *id != leader).unwrap();
    for id in cluster.running().filter(|id| *id != last).collect::<Vec<_>>() {
        cluster.halt(id).await;
    }
    let mut agents = Vec::new();
    for incarnation in 10..10 + 3 * PLACES {
        agents.push(Agent::connect(&cluster, last, incarnation).await);
    }
    drop(agents);
    // They are taken in order: when this one has had its answer, all of them had their turn.
    assert_eq!(Agent::connect(&cluster, last, 9).await.ended().await.reason, NO_LEADER);
    let metrics = cluster.get(last, "/metrics").await.1;
    let tried = metrics.lines().filter(|line| line.contains("command=\"register\",result=\"failed\""));
    let tried: u64 = tried.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    assert!((1..=PLACES + 1).contains(&tried), "{tried} registrations were tried:\n{metrics}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_is_changed_only_from_what_was_seen() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let mut agent = Agent::connect(&cluster, leader, 7).await;
    agent.opened().await;
    let followers: Vec<u64> = cluster.running().filter(|id| *id != leader).collect();
    let (one, other) = (followers[0], followers[1]);
    let mut client = cluster.operator(one).await;
    let get = v1::GetPolicyRequest { fleet: "shop".into() };
    let found = within(client.get_policy(get.clone())).await.unwrap().into_inner();
    assert_eq!((found.policy.clone().unwrap(), found.version), (Policy::default().into(), 0));

    let policy = v1::Policy { keep_backups: 3, ..found.policy.unwrap() };
    let set = v1::SetPolicyRequest {
        fleet: "shop".into(),
        policy: Some(policy.clone()),
        seen: 0,
        by: "test".into(),
        reason: "less space".into(),
        changes: vec!["keep_backups: 7 -> 3".into()],
    };
    let reply = within(client.set_policy(set.clone())).await.unwrap().into_inner();
    assert_eq!(reply.version, 1);
    let mut elsewhere = cluster.operator(other).await;
    let found = within(elsewhere.get_policy(get)).await.unwrap().into_inner();
    assert_eq!((found.policy.clone(), found.version), (Some(policy.clone()), 1));
    let again = within(elsewhere.set_policy(set.clone())).await.unwrap().into_inner();
    assert_eq!(again.version, 1, "asking twice is asking once");

    let stale =
        v1::SetPolicyRequest { policy: Some(v1::Policy { keep_backups: 4, ..policy.clone() }), ..set };
    let problem = refused(within(elsewhere.set_policy(stale.clone())).await);
    assert_eq!(problem.reason, "policy_moved");
    let wrong =
        v1::SetPolicyRequest { policy: Some(v1::Policy { lease_ms: 5, ..policy }), seen: 1, ..stale.clone() };
    let problem = refused(within(elsewhere.set_policy(wrong)).await);
    assert_eq!((problem.reason.as_str(), problem.message.contains("lease")), ("malformed", true));
    let unset = v1::SetPolicyRequest { policy: None, ..stale };
    assert_eq!(refused(within(elsewhere.set_policy(unset)).await).reason, "malformed");
    cluster.stop().await;
}

/// Reads events to the end of the stream.
async fn told(client: &mut Operator, older: bool) -> Vec<v1::Event> {
    let ask = v1::EventsRequest { fleet: "shop".into(), after_index: 0, follow: false, older };
    let mut events = within(client.events(ask)).await.unwrap().into_inner();
    let mut found = Vec::new();
    while let Some(event) = within(events.message()).await.unwrap() {
        found.push(event);
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_the_state_has_forgotten_are_in_each_members_archive() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.leader().await;
    let mut agent = Agent::connect(&cluster, leader, 7).await;
    agent.opened().await;
    let mut client = cluster.operator(leader).await;
    for at in 0..EVENTS_MAX as u64 + 700 {
        let length_ms = (at % 2 == 0).then_some(60_000);
        let freeze =
            v1::FreezeRequest { fleet: "shop".into(), length_ms, by: "test".into(), reason: at.to_string() };
        let _ = within(client.freeze(freeze)).await.unwrap();
    }
    let remembered = told(&mut client, false).await;
    assert_eq!(remembered.len(), EVENTS_MAX);
    let mut all = Vec::new();
    eventually("the archive has them all", async || {
        all = told(&mut client, true).await;
        all.iter().any(|event| event.kind == "enrolled")
    })
    .await;
    assert!(all.len() > EVENTS_MAX + 700, "{}", all.len());
    assert!(all.windows(2).all(|pair| pair[0].index <= pair[1].index), "in order, across both");
    assert_eq!(all[all.len() - EVENTS_MAX..], remembered[..]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_that_nobody_waits_for_is_refused() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.leader().await;
    let mut agent = Agent::connect(&cluster, leader, 7).await;
    agent.opened().await;
    let mut client = cluster.operator(leader).await;
    within(client.submit(submit("first", start()))).await.unwrap();
    let decide = |operation: &str, decision| v1::DecideRequest {
        fleet: "shop".into(),
        operation: operation.into(),
        decision,
        by: "test".into(),
        reason: String::new(),
    };
    let reject = Some(v1::Decision::from(Decision::Reject));
    assert_eq!(refused(within(client.decide(decide("first", reject))).await).reason, "not_asked");
    assert_eq!(refused(within(client.decide(decide("other", reject))).await).reason, "unknown_operation");
    assert_eq!(refused(within(client.decide(decide("first", None))).await).reason, "malformed");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_dies_its_agents_go_on_elsewhere() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let mut agent = Agent::connect(&cluster, leader, 7).await;
    let (_, assignment) = agent.opened().await;
    agent.report(1, &assignment, AppState::Stopped).await;
    agent.until(|message| matches!(message, Message::ReportAck(_))).await;
    cluster.halt(leader).await;
    agent.ended().await;

    let other = cluster.running().next().unwrap();
    let mut again = None;
    eventually("a new leader takes the registration", async || {
        let mut agent = Agent::connect(&cluster, other, 8).await;
        let opened = agent.try_opened().await;
        again = opened.map(|opened| (agent, opened));
        again.is_some()
    })
    .await;
    let (mut agent, (_, assignment)) = again.unwrap();
    agent.report(1, &assignment, AppState::Stopped).await;
    agent.until(|message| matches!(message, Message::ReportAck(_))).await;
    let mut client = cluster.operator(other).await;
    let status = within(client.status(ask("shop"))).await.unwrap().into_inner();
    assert!(!status.freshness.unwrap().stale);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_hands_over_and_sends_agents_away() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let mut agent = Agent::connect(&cluster, leader, 7).await;
    agent.opened().await;
    let other = cluster.running().find(|id| *id != leader).unwrap();
    let term = cluster.term(other);
    let stopping = cluster.members.remove(&leader).unwrap();
    within(stopping.stop()).await;
    assert_eq!(agent.ended().await.reason, STOPPING);
    // Handed over, not elected after a timeout: the next term has a leader already.
    let new = cluster.leader().await;
    assert_ne!(new, leader);
    assert_eq!(cluster.term(new), term + 1);
    let mut client = cluster.operator(other).await;
    within(client.submit(submit("after", start()))).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_run_of_an_agent_ends_the_first_session() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.leader().await;
    let mut first = Agent::connect(&cluster, leader, 7).await;
    first.opened().await;
    first.beat("", None).await;
    eventually("the first run was heard", async || {
        let mut client = cluster.operator(leader).await;
        let status = client.status(ask("shop")).await.unwrap().into_inner();
        status.view.unwrap().nodes[0].heard_ms.is_some()
    })
    .await;
    // Another agent with a ledger of its own, while the first is there.
    let mut rival = Agent::connect_as(&cluster, leader, 9, &[9]).await;
    let Message::Refused(refused) = rival.next().await.unwrap() else { panic!("a rival was let in") };
    assert_eq!(refused.reason, "rival");
    // The same agent after a restart: its ledger knows the first run.
    let mut second = Agent::connect_as(&cluster, leader, 8, &[7, 8]).await;
    second.opened().await;
    first
        .until(|message| matches!(message, Message::Refused(refused) if refused.reason == "superseded"))
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_what_changes_and_members_know_each_other() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let mut agent = Agent::connect(&cluster, leader, 7).await;
    let (_, assignment) = agent.opened().await;
    let other = cluster.running().find(|id| *id != leader).unwrap();
    let mut client = cluster.operator(other).await;
    let mut watch = within(client.watch(ask("shop"))).await.unwrap().into_inner();
    let first = within(watch.message()).await.unwrap().unwrap();
    assert_eq!(first.view.unwrap().nodes[0].app, "unknown");
    agent.report(1, &assignment, AppState::Starting).await;
    agent.beat("load plugin 9/77", None).await;
    loop {
        let next = within(watch.message()).await.unwrap().unwrap();
        let node = &next.view.unwrap().nodes[0];
        if node.app == "starting" && node.detail == "load plugin 9/77" {
            break;
        }
    }
    let mut members = cluster.membership(other).await;
    let reply = within(members.members(v1::MembersRequest::default())).await.unwrap().into_inner();
    assert_eq!((reply.members.len(), reply.quorum, reply.leader), (3, 2, Some(leader)));
    assert!(reply.members.iter().all(|info| info.reachable && info.voter), "{:?}", reply.members);
    let metrics = cluster.get(leader, "/metrics").await.1;
    for line in ["soloist_coordinator_is_leader 1", "soloist_coordinator_fleets 1", "command=\"register\""] {
        assert!(metrics.contains(line), "{line} is not in:\n{metrics}");
    }
    assert_eq!(cluster.get(leader, "/healthz").await.0, 200);
    cluster.stop().await;
}

/// An agent's session, by hand.
struct Agent {
    to: mpsc::Sender<AgentMessage>,
    from: Result<Streaming<CoordinatorMessage>, tonic::Status>,
}

impl Agent {
    async fn connect(cluster: &Cluster, member: u64, incarnation: u64) -> Agent {
        Agent::connect_as(cluster, member, incarnation, &[7, 8]).await
    }

    async fn connect_as(cluster: &Cluster, member: u64, incarnation: u64, lineage: &[u64]) -> Agent {
        let address = format!("http://{}", cluster.addresses[&member]);
        let mut client = within(AgentServiceClient::connect(address)).await.unwrap();
        let (to, messages) = mpsc::channel(16);
        let greeting = Greeting {
            fleet: FleetId::new("shop").unwrap(),
            node: NodeId::new("a").unwrap(),
            registration: Registration {
                incarnation: Incarnation(incarnation),
                lineage: lineage.iter().copied().map(Incarnation).collect(),
                fresh: lineage.len() == 1,
                machine: MachineId("machine".into()),
                boot: BootId("boot".into()),
                address: String::new(),
                role: soloist_core::command::Role::App,
            },
            version: "test".into(),
            cluster: String::new(),
        };
        to.send(greeting.into()).await.unwrap();
        let from = within(client.session(ReceiverStream::new(messages))).await;
        Agent { to, from: from.map(tonic::Response::into_inner) }
    }

    async fn next(&mut self) -> Result<Message, Problem> {
        let from = self.from.as_mut().map_err(|status| from_status(status))?;
        match within(from.message()).await {
            Ok(Some(message)) => Ok(message.message.unwrap()),
            Ok(None) => Err(Problem::new(tonic::Code::Ok, "ended", "", "")),
            Err(status) => Err(from_status(&status)),
        }
    }

    async fn until(&mut self, wanted: impl Fn(&Message) -> bool) {
        while !wanted(&self.next().await.unwrap()) {}
    }

    async fn try_opened(&mut self) -> Option<(u64, Assignment)> {
        let Message::Registered(registered) = self.next().await.ok()? else { return None };
        let Message::Assignment(assignment) = self.next().await.ok()? else { return None };
        Some((registered.floor, assignment.try_into().unwrap()))
    }

    async fn opened(&mut self) -> (u64, Assignment) {
        self.try_opened().await.expect("the session opens with Registered and an Assignment")
    }

    async fn assigned(&mut self, wanted: impl Fn(&Assignment) -> bool) -> Assignment {
        loop {
            if let Message::Assignment(assignment) = self.next().await.unwrap() {
                let assignment = assignment.try_into().unwrap();
                if wanted(&assignment) {
                    return assignment;
                }
            }
        }
    }

    async fn ended(&mut self) -> Problem {
        loop {
            if let Err(problem) = self.next().await {
                return problem;
            }
        }
    }

    async fn report(&self, sequence: u64, assignment: &Assignment, app: AppState) {
        let observed = Observed {
            applied: assignment.generation,
            boot: BootId("boot".into()),
            launched: app.may_run().then_some(assignment.generation),
            app,
            ..Observed::default()
        };
        self.to.send(AgentMessage::report(sequence, observed)).await.unwrap();
    }

    async fn beat(&self, progress: &str, inventory: Option<v1::Inventory>) {
        self.to
            .send(v1::Beat { progress: progress.into(), inventory, facts: None, ping_ms: None }.into())
            .await
            .unwrap();
    }
}

fn plugins() -> v1::Inventory {
    let acl = v1::PluginInfo { name: "acl".into(), package: "@nocobase/plugin-acl".into(), enabled: true };
    v1::Inventory { plugins: vec![acl] }
}

fn ask(fleet: &str) -> v1::StatusRequest {
    v1::StatusRequest { fleet: fleet.into(), local: false }
}

fn plan(fleet: &str, request: Request) -> v1::PlanRequest {
    v1::PlanRequest { fleet: fleet.into(), request: Some(request.into()) }
}

fn start() -> Request {
    Request::Start { install: false, nodes: None }
}

fn submit(operation: &str, request: Request) -> v1::SubmitRequest {
    v1::SubmitRequest {
        fleet: "shop".into(),
        operation: operation.into(),
        request: Some(request.into()),
        submission: Some(v1::Submission { by: "test".into(), ..v1::Submission::default() }),
        skip_preflight: false,
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, tonic::Status>) -> Problem {
    from_status(&result.unwrap_err())
}
