//! The play: what is done, and what is told of it.

use std::time::{Duration, SystemTime};

use soloist_core::{
    ids::{FleetId, NodeId, OperationId},
    operation::{PluginChange, Request},
    view::{FleetView, OperationView},
};
use soloist_demo::monitor::{Monitor, MonitorOptions, is_standin};
use soloist_proto::v1;
use tokio::time::Instant;

use super::{
    judge::{self, Times},
    stage::{NODES, Stage},
};
use crate::{
    client::Client,
    commands::{
        Context,
        operate::{Asking, new_id, submit},
    },
    error::{CtlError, Result},
    follow::{Follow, Progress, goes_on_by_itself, verdict},
    render::json::Event,
    ui::{Format, Ui},
    watch::{Sight, Watch},
};

/// How long anything in the play may take; the whole of it takes half a minute.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what cannot be followed yet.
const LOOK: Duration = Duration::from_millis(100);
/// The plugin that is enabled.
const PLUGIN: &str = "@nocobase/plugin-map";

/// A play on a stage.
pub(super) struct Play<'a> {
    ui: Ui,
    stage: &'a mut Stage,
    context: Context,
    fleet: FleetId,
    began: Instant,
}

impl Play<'_> {
    pub(super) fn new(ui: Ui, stage: &mut Stage) -> Result<Play<'_>> {
        let fleet = stage.fleet().clone();
        // The story is text, whatever the format of data.
        let quiet = Ui::new(Format::Table);
        let context = Context { client: stage.client()?, fleet: Some(fleet.clone()), ui: quiet };
        Ok(Play { ui, stage, context, fleet, began: Instant::now() })
    }

    /// Plays it. `false` if the witness saw what must not be.
    pub(super) async fn perform(&mut self) -> Result<bool> {
        let seen_from = SystemTime::now();
        let monitor = Monitor::start(MonitorOptions::new(is_standin))
            .map_err(|error| CtlError::failed(format!("cannot watch processes: {error}")))?;
        self.say("three coordinators and three agents start on the loopback")?;
        self.raise().await?;
        let install = self.first_start().await?;
        let (plugin, killed) = self.plugin_change().await?;
        self.say(&format!("member {killed} is started again"))?;
        self.stage.start_coordinator(killed)?;
        self.all_serve().await?;
        let events = self.events().await?;
        let recording = monitor.stop();
        let times = Times::new(&events, &install, &plugin, seen_from);
        let judgement = judge::judge(&recording, &times, self.stage)?;
        self.ui.text(&judgement.text)?;
        Ok(judgement.clean)
    }

    fn say(&self, text: &str) -> Result<()> {
        self.ui.text(&format!("[{:6.1} s] {text}", self.began.elapsed().as_secs_f64()))
    }

    async fn raise(&mut self) -> Result<()> {
        for id in 1..=3 {
            self.stage.start_coordinator(id)?;
        }
        for node in NODES {
            self.stage.start_agent(node)?;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(fallen) = self.stage.fallen() {
                return Err(CtlError::failed(fallen));
            }
            // Not there yet is what a start looks like.
            let status = self.context.status(&self.fleet).await;
            if let Ok((view, fresh)) = &status
                && view.nodes.len() == NODES.len()
                && !fresh.stale
            {
                let leader = fresh.leader.unwrap_or_default();
                return self.say(&format!("member {leader} leads; enrolled: {}", apps(view)));
            }
            if Instant::now() > deadline {
                let why = status.err().map(|error| error.message).unwrap_or_default();
                return Err(CtlError::failed(format!("the agents do not enrol: {why}")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Asks for an operation and begins to follow it.
    async fn ask(&self, word: &str, request: Request) -> Result<(OperationId, Follow)> {
        let id = new_id(word)?;
        let asking = Asking { reason: "the demo".into(), ..Asking::default() };
        submit(&self.context, &self.fleet, &id, &request, &asking).await?;
        let progress = Progress::narrated(self.ui, self.began);
        let follow = Follow::new(&self.context.client, &self.fleet, &id, progress);
        Ok((id, follow))
    }

    async fn first_start(&mut self) -> Result<OperationId> {
        let names = NODES.join(",");
        self.say(&format!("$ soloist start --install --nodes {names}"))?;
        let nodes = NODES.iter().map(|node| node_id(node)).collect::<Result<_>>()?;
        let (id, mut follow) =
            self.ask("start", Request::Start { install: true, nodes: Some(nodes) }).await?;
        self.finish(&mut follow).await?;
        self.all_serve().await?;
        Ok(id)
    }

    /// Enables a plugin, and kills the leader while it is being enabled. Returns the operation and the member.
    async fn plugin_change(&mut self) -> Result<(OperationId, usize)> {
        self.say(&format!("$ soloist plugin enable {PLUGIN} --on node-1"))?;
        let request = Request::Plugin {
            change: PluginChange::Enable,
            plugin: PLUGIN.to_owned(),
            on: Some(node_id("node-1")?),
        };
        let (id, mut follow) = self.ask("plugin", request).await?;
        let granted = tokio::time::timeout(PATIENCE, async {
            loop {
                let operation = follow.next().await?;
                if operation.ended {
                    verdict(&operation)?;
                }
                if operation.granted {
                    return Ok::<_, CtlError>(());
                }
            }
        });
        granted.await.map_err(|_| CtlError::failed("the lock is not granted"))??;
        let leader = self.leader().await?;
        self.say(&format!("kill -9 of member {leader}, the leader, in the middle of it"))?;
        self.stage.kill_coordinator(leader)?;
        let killed = Instant::now();
        let next = self.next_leader(leader).await?;
        self.say(&format!(
            "member {next} leads, {:.1} s later; the operation goes on",
            killed.elapsed().as_secs_f64()
        ))?;
        self.finish(&mut follow).await?;
        Ok((id, leader))
    }

    async fn finish(&mut self, follow: &mut Follow) -> Result<OperationView> {
        let end = async {
            loop {
                let operation = follow.next().await?;
                if operation.ended {
                    return Ok(operation);
                }
                if operation.status == "blocked" && !goes_on_by_itself(&operation) {
                    return Err(CtlError::failed(format!("blocked: {}", operation.detail)));
                }
            }
        };
        let operation = tokio::time::timeout(PATIENCE, end).await;
        let operation = operation.map_err(|_| CtlError::failed("the operation does not end"))??;
        verdict(&operation)?;
        let took = crate::render::length(operation.age);
        self.say(&format!("{}: {} in {took}", operation.request, operation.status))?;
        Ok(operation)
    }

    async fn leader(&self) -> Result<usize> {
        let (_, fresh) = self.context.status(&self.fleet).await?;
        let leader = fresh.leader.and_then(|leader| usize::try_from(leader).ok());
        leader.ok_or_else(|| CtlError::failed("no member says who leads"))
    }

    async fn next_leader(&self, old: usize) -> Result<usize> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok((_, fresh)) = self.context.status(&self.fleet).await
                && !fresh.stale
                && let Some(leader) = fresh.leader.and_then(|leader| usize::try_from(leader).ok())
                && leader != old
            {
                return Ok(leader);
            }
            if Instant::now() > deadline {
                return Err(CtlError::failed("no other member takes the lead"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until every node serves, and tells it.
    async fn all_serve(&self) -> Result<()> {
        let mut watch = Watch::new(&self.context.client, &self.fleet);
        let all = async {
            loop {
                if let Sight::View(view, fresh) = watch.next().await?
                    && !fresh.stale
                    && view.nodes.iter().all(|node| node.app == "serving")
                {
                    return Ok::<_, CtlError>(view);
                }
            }
        };
        let view = tokio::time::timeout(PATIENCE, all).await;
        let view = view.map_err(|_| CtlError::failed("not every node serves"))??;
        self.say(&format!("nodes: {}", apps(&view)))
    }

    async fn events(&self) -> Result<Vec<Event>> {
        events(&self.context.client, &self.fleet).await
    }
}

async fn events(client: &Client, fleet: &FleetId) -> Result<Vec<Event>> {
    let request = v1::EventsRequest { fleet: fleet.to_string(), after_index: 0, follow: false, older: false };
    let stream = client.call(|mut stub| {
        let request = request.clone();
        async move { stub.events(request).await }
    });
    let mut stream = stream.await?;
    let mut events = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(event)) => events.push(event.into()),
            Ok(None) => return Ok(events),
            Err(status) => return Err(soloist_proto::errors::from_status(&status).into()),
        }
    }
}

fn node_id(name: &str) -> Result<NodeId> {
    NodeId::new(name).map_err(|error| CtlError::failed(error.to_string()))
}

fn apps(view: &FleetView) -> String {
    let each = view.nodes.iter().map(|node| format!("{} {}", node.node, node.app));
    each.collect::<Vec<_>>().join(", ")
}
