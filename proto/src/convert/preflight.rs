//! Preflight: what nodes say about themselves, and findings.

use std::collections::BTreeMap;

use soloist_core::{
    ids::{NodeId, Version},
    preflight::{Finding, NodeFacts, Place, Release, Severity, Space, StorageFacts, Told},
    time::Millis,
};

use super::{FieldError, each, maybe, name, nested, unknown};
use crate::v1;

/// A list of pairs as a map; a name that occurs twice is an error.
fn map<K: Ord, V>(
    field: &str,
    pairs: impl IntoIterator<Item = Result<(K, V), FieldError>>,
) -> Result<BTreeMap<K, V>, FieldError> {
    let mut map = BTreeMap::new();
    for pair in pairs {
        let (key, value) = pair?;
        if map.insert(key, value).is_some() {
            return Err(FieldError::new(field, "names something twice"));
        }
    }
    Ok(map)
}

impl From<Release> for v1::Release {
    fn from(Release { product, major, text }: Release) -> Self {
        Self { product, major, text }
    }
}

impl TryFrom<v1::Release> for Release {
    type Error = FieldError;
    fn try_from(release: v1::Release) -> Result<Self, FieldError> {
        let v1::Release { product, major, text } = release;
        Ok(Self { product, major, text })
    }
}

impl From<BTreeMap<String, String>> for v1::Settings {
    fn from(settings: BTreeMap<String, String>) -> Self {
        let each = settings.into_iter().map(|(name, print)| v1::Fingerprint { name, print });
        Self { settings: each.collect() }
    }
}

impl TryFrom<v1::Settings> for BTreeMap<String, String> {
    type Error = FieldError;
    fn try_from(settings: v1::Settings) -> Result<Self, FieldError> {
        map("settings", settings.settings.into_iter().map(|one| Ok((one.name, one.print))))
    }
}

impl From<StorageFacts> for v1::StorageFacts {
    fn from(facts: StorageFacts) -> Self {
        let seen = facts.seen.into_iter();
        let seen = seen.map(|(node, nonces)| v1::SeenNonce { node: node.into(), nonces });
        Self { nonce: facts.nonce, before: facts.before, age_ms: facts.age.0, seen: seen.collect() }
    }
}

impl TryFrom<v1::StorageFacts> for StorageFacts {
    type Error = FieldError;
    fn try_from(facts: v1::StorageFacts) -> Result<Self, FieldError> {
        let seen = facts.seen.into_iter();
        let seen = seen.map(|seen| Ok((name::<NodeId>("seen.node", seen.node)?, seen.nonces)));
        Ok(Self {
            nonce: facts.nonce,
            before: facts.before,
            age: Millis(facts.age_ms),
            seen: map("seen", seen)?,
        })
    }
}

impl From<Space> for v1::Space {
    fn from(space: Space) -> Self {
        use v1::space::Place as Wire;
        let place = match space.place {
            Place::Storage => Wire::Storage,
            Place::App => Wire::App,
            Place::Data => Wire::Data,
        };
        Self { place: place.into(), path: space.path, free: space.free }
    }
}

impl TryFrom<v1::Space> for Space {
    type Error = FieldError;
    fn try_from(space: v1::Space) -> Result<Self, FieldError> {
        use v1::space::Place as Wire;
        let place = match space.place() {
            Wire::Unspecified => return Err(unknown("place")),
            Wire::Storage => Place::Storage,
            Wire::App => Place::App,
            Wire::Data => Place::Data,
        };
        Ok(Self { place, path: space.path, free: space.free })
    }
}

impl From<NodeFacts> for v1::NodeFacts {
    fn from(facts: NodeFacts) -> Self {
        let failed = facts.failed.into_iter().map(|(check, why)| v1::FailedCheck { check, why });
        Self {
            code: facts.code.map(|version| version.0),
            settings: facts.settings.map(Into::into),
            node: facts.node.map(Into::into),
            storage: facts.storage.map(Into::into),
            database: facts.database.map(Into::into),
            server: facts.server.map(Into::into),
            dump: facts.dump.map(Into::into),
            own_backups: facts.own_backups,
            asked_ms: facts.asked.map(|asked| asked.0),
            came: facts.came.map(|addresses| v1::Addresses { addresses }),
            spaces: facts.spaces.into_iter().map(Into::into).collect(),
            upgrading: facts.upgrading,
            searched: facts.searched,
            commercial: facts.commercial,
            sub_apps: facts.sub_apps,
            supervisors: facts.supervisors,
            sessions: facts.sessions.into_iter().map(Into::into).collect(),
            failed: failed.collect(),
        }
    }
}

impl TryFrom<v1::NodeFacts> for NodeFacts {
    type Error = FieldError;
    fn try_from(facts: v1::NodeFacts) -> Result<Self, FieldError> {
        Ok(Self {
            code: facts.code.map(Version),
            settings: maybe("settings", facts.settings)?,
            node: maybe("node", facts.node)?,
            storage: maybe("storage", facts.storage)?,
            database: maybe("database", facts.database)?,
            server: maybe("server", facts.server)?,
            dump: maybe("dump", facts.dump)?,
            own_backups: facts.own_backups,
            asked: facts.asked_ms.map(Millis),
            came: facts.came.map(|came| came.addresses),
            spaces: each("spaces", facts.spaces)?,
            upgrading: facts.upgrading,
            searched: facts.searched,
            commercial: facts.commercial,
            sub_apps: facts.sub_apps,
            supervisors: facts.supervisors,
            sessions: each("sessions", facts.sessions)?,
            failed: map("failed", facts.failed.into_iter().map(|one| Ok((one.check, one.why))))?,
        })
    }
}

impl TryFrom<v1::ToldFacts> for Told {
    type Error = FieldError;
    fn try_from(told: v1::ToldFacts) -> Result<Self, FieldError> {
        Ok(Self {
            facts: nested("facts", told.facts)?,
            age: Millis(told.age_ms),
            sent_wall_ms: told.sent_wall_ms,
            heard_wall_ms: told.heard_wall_ms,
        })
    }
}

impl From<Finding> for v1::Finding {
    fn from(finding: Finding) -> Self {
        use v1::finding::Severity as Wire;
        let severity = match finding.severity {
            Severity::Problem => Wire::Problem,
            Severity::Warning => Wire::Warning,
        };
        Self {
            severity: severity.into(),
            check: finding.check,
            nodes: finding.nodes.into_iter().map(Into::into).collect(),
            text: finding.text,
            remedy: finding.remedy,
        }
    }
}

impl TryFrom<v1::Finding> for Finding {
    type Error = FieldError;
    fn try_from(finding: v1::Finding) -> Result<Self, FieldError> {
        use v1::finding::Severity as Wire;
        let severity = match finding.severity() {
            Wire::Unspecified => return Err(unknown("severity")),
            Wire::Problem => Severity::Problem,
            Wire::Warning => Severity::Warning,
        };
        let nodes = finding.nodes.into_iter().map(|node| name("nodes", node)).collect::<Result<_, _>>()?;
        Ok(Self { severity, check: finding.check, nodes, text: finding.text, remedy: finding.remedy })
    }
}
