//! Which nodes are given to users.

use std::collections::BTreeMap;

use soloist_core::{
    command::Role,
    ids::NodeId,
    notice::Notice,
    time::Millis,
    traffic::{ServerSeen, TrafficSpec},
    view::BalancerView,
};

use super::{FieldError, name, unknown};
use crate::v1::{self, server_seen::Kind};

impl From<TrafficSpec> for v1::TrafficSpec {
    fn from(spec: TrafficSpec) -> Self {
        let servers = spec.servers.into_iter();
        Self {
            servers: servers.map(|(node, given)| v1::ServerSpec { node: node.into(), given }).collect(),
            within_ms: spec.within.0,
        }
    }
}

impl TryFrom<v1::TrafficSpec> for TrafficSpec {
    type Error = FieldError;
    fn try_from(spec: v1::TrafficSpec) -> Result<Self, FieldError> {
        let servers = spec.servers.into_iter();
        let servers = servers.map(|server| Ok((name("servers.node", server.node)?, server.given)));
        Ok(Self { servers: servers.collect::<Result<_, FieldError>>()?, within: Millis(spec.within_ms) })
    }
}

/// Servers as a message carries them.
pub(super) fn servers(servers: BTreeMap<NodeId, ServerSeen>) -> Vec<v1::ServerSeen> {
    let message = |(node, seen): (NodeId, ServerSeen)| {
        let (kind, cut) = match seen {
            ServerSeen::In => (Kind::In, 0),
            ServerSeen::Draining => (Kind::Draining, 0),
            ServerSeen::Out { cut } => (Kind::Out, cut),
        };
        v1::ServerSeen { node: node.into(), kind: kind.into(), cut }
    };
    servers.into_iter().map(message).collect()
}

/// Servers, each once; a later one of the same node counts.
pub(super) fn seen(servers: Vec<v1::ServerSeen>) -> Result<BTreeMap<NodeId, ServerSeen>, FieldError> {
    let value = |server: v1::ServerSeen| {
        let seen = match server.kind() {
            Kind::Unspecified => return Err(unknown("servers.kind")),
            Kind::In => ServerSeen::In,
            Kind::Draining => ServerSeen::Draining,
            Kind::Out => ServerSeen::Out { cut: server.cut },
        };
        Ok((name("servers.node", server.node)?, seen))
    };
    servers.into_iter().map(value).collect()
}

impl From<Role> for v1::registration::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::App => v1::registration::Role::App,
            Role::Balancer => v1::registration::Role::Balancer,
        }
    }
}

impl From<v1::registration::Role> for Role {
    fn from(role: v1::registration::Role) -> Self {
        match role {
            v1::registration::Role::Unspecified | v1::registration::Role::App => Role::App,
            v1::registration::Role::Balancer => Role::Balancer,
        }
    }
}

impl From<Notice> for v1::Notice {
    fn from(notice: Notice) -> Self {
        Self { reason: notice.reason, remaining_ms: notice.remaining.map(|remaining| remaining.0) }
    }
}

impl From<v1::Notice> for Notice {
    fn from(notice: v1::Notice) -> Self {
        Self { reason: notice.reason, remaining: notice.remaining_ms.map(Millis) }
    }
}

impl From<BalancerView> for v1::BalancerView {
    fn from(view: BalancerView) -> Self {
        Self {
            node: view.node.into(),
            address: view.address,
            acknowledged: view.acknowledged,
            heard_ms: view.heard.map(|heard| heard.0),
            lost: view.lost,
            servers: servers(view.servers),
            unsteered: view.unsteered,
            assumed: view.assumed,
        }
    }
}

impl TryFrom<v1::BalancerView> for BalancerView {
    type Error = FieldError;
    fn try_from(view: v1::BalancerView) -> Result<Self, FieldError> {
        Ok(Self {
            node: name("node", view.node)?,
            address: view.address,
            acknowledged: view.acknowledged,
            heard: view.heard_ms.map(Millis),
            lost: view.lost,
            servers: seen(view.servers)?,
            unsteered: view.unsteered,
            assumed: view.assumed,
        })
    }
}
