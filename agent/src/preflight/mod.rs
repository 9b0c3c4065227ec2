//! Preflight on one node: gathers what the coordinators compare with the other nodes.
//!
//! All of it is looking, but for one small file: the nonce that this node leaves on the shared storage. Everything
//! has a deadline, and no value of a setting is part of what is gathered.

mod programs;
mod settings;
mod space;
mod storage;
mod supervisor;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use soloist_core::preflight::{NodeFacts, Place, check};
use soloist_core::time::Millis;
use tokio::sync::Mutex;

use crate::host::comers::comers;
use crate::host::disk::DiskReader;
use crate::http::Asks;
use crate::probe::shorten;
use crate::profile::{Launcher, NodeContext, Profile};

/// How long a disk may take to answer one question.
const DISK_DEADLINE: Duration = Duration::from_secs(3);
/// By then whoever asks `/ready` sends nobody any more.
const HEEDED: Duration = Duration::from_secs(10);
/// For how long it is watched whether somebody comes all the same.
const WATCHED: Duration = Duration::from_secs(2);

/// Gathers facts for preflight.
#[derive(Debug)]
pub struct Gatherer {
    context: NodeContext,
    /// For the app folder and the host's own folders.
    disk: DiskReader,
    /// For the shared storage, which hangs more often.
    storage: DiskReader,
    nonce: Mutex<Option<storage::Nonce>>,
    /// Whether programs of the operator's own make the backups.
    own_backups: bool,
    /// Who asks `/ready`.
    asks: Arc<Asks>,
    /// The host's file system; another one in tests only.
    root: PathBuf,
}

impl Gatherer {
    /// Gathers for this node; `own_backups` says whether programs of the operator's own make its backups. Reads and writes
    /// nothing yet.
    pub fn new(context: NodeContext, own_backups: bool, asks: Arc<Asks>) -> Self {
        Self { own_backups, asks, ..Self::with_root(context, "/".into()) }
    }

    /// The same with another root for what is looked up of the host: units, accounts, homes.
    pub fn with_root(context: NodeContext, root: PathBuf) -> Self {
        let (disk, storage) = (DiskReader::new(DISK_DEADLINE), DiskReader::new(DISK_DEADLINE));
        Self {
            context,
            disk,
            storage,
            nonce: Mutex::default(),
            own_backups: false,
            asks: Arc::default(),
            root,
        }
    }

    /// Gathers everything. Takes some seconds at most, whatever hangs.
    pub async fn gather(&self, profile: &Profile) -> NodeFacts {
        let premises = profile.premises().await;
        let (seen, survey) = tokio::join!(profile.facts(), profile.survey());
        let mut facts = NodeFacts {
            code: seen.code,
            database: seen.database,
            upgrading: seen.upgrading,
            sessions: seen.sessions,
            own_backups: self.own_backups,
            asked: self.asks.last().map(|ago| Millis(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX))),
            came: self.came(profile).await,
            ..NodeFacts::default()
        };
        if let (None, Some(why)) = (&facts.database, seen.database_error) {
            fail(&mut facts, check::DATABASE, &why);
        }
        match survey {
            Some(Ok(survey)) => (facts.server, facts.sub_apps) = (Some(survey.server), Some(survey.sub_apps)),
            Some(Err(why)) => fail(&mut facts, check::DATABASE, &why),
            None => {}
        }
        self.space(&mut facts, Place::App, &self.disk, &premises.app_folder).await;
        self.space(&mut facts, Place::Data, &self.disk, &self.context.data_folder).await;
        if let Some(launcher) = premises.launcher {
            if let (None, Some(why)) = (&facts.code, seen.refusal) {
                fail(&mut facts, check::CODE, &why);
            }
            self.launcher(&mut facts, &premises.app_folder, &launcher).await;
        }
        facts
    }

    /// Who opens connections to the app although whoever asks `/ready` has long been told to send nobody; `None` where users may
    /// come.
    async fn came(&self, profile: &Profile) -> Option<Vec<String>> {
        self.asks.away_for().filter(|away| *away >= HEEDED)?;
        let origin = profile.origin().await.ok()?;
        let port = origin.rsplit_once(':')?.1.parse().ok()?;
        // What cannot be looked at is not told.
        let come = comers(port, WATCHED).await.ok()?;
        Some(come.into_iter().map(|address| address.to_string()).collect())
    }

    /// What there is only on a NocoBase node.
    async fn launcher(&self, facts: &mut NodeFacts, app_folder: &Path, launcher: &Launcher) {
        facts.searched = true;
        match programs::node(launcher).await {
            Ok(node) => facts.node = Some(node),
            Err(why) => fail(facts, check::NODE_VERSION, &why),
        }
        facts.supervisors = supervisor::find(&self.disk, &self.root, app_folder).await;
        let vars = match &launcher.environment {
            Ok(vars) => vars,
            Err(why) => {
                // Then it is not known where the database is, either.
                facts.failed.clear();
                return fail(facts, check::SETTINGS, why);
            }
        };
        let get = |key: &str| vars.get(key).map_or("", String::as_str);
        facts.settings = Some(settings::fingerprints(&self.context.fleet, vars, &launcher.set));
        if !self.own_backups {
            match programs::dump(launcher, get("DB_DIALECT")).await {
                Ok(dump) => facts.dump = dump,
                Err(why) => fail(facts, check::DUMP_CLIENT, &why),
            }
        }
        let folder = PathBuf::from(get("STORAGE_PATH"));
        let mut nonce = self.nonce.lock().await;
        match storage::exchange(&self.storage, &folder, &self.context, &mut nonce).await {
            Ok(found) => facts.storage = Some(found),
            Err(error) => {
                return fail(facts, check::STORAGE, &format!("the storage {}: {error}", folder.display()));
            }
        }
        drop(nonce);
        self.space(facts, Place::Storage, &self.storage, &folder).await;
        if launcher.downloads {
            let key = folder.join(".license/license-key");
            if self.storage.exists(key).await.unwrap_or(false) {
                facts.commercial.push("a license key lies on the storage (.license/license-key)".into());
            }
            if !get("NOCOBASE_PKG_USERNAME").is_empty() && !get("NOCOBASE_PKG_PASSWORD").is_empty() {
                facts.commercial.push("NOCOBASE_PKG_USERNAME and NOCOBASE_PKG_PASSWORD are set".into());
            }
        }
    }

    async fn space(&self, facts: &mut NodeFacts, place: Place, disk: &DiskReader, path: &Path) {
        match space::free(disk, place, path).await {
            Ok(space) => facts.spaces.push(space),
            Err(error) => fail(facts, check::SPACE, &format!("{}: {error}", path.display())),
        }
    }
}

/// Notes what could not be found out; the first reason stays.
fn fail(facts: &mut NodeFacts, check: &str, why: &str) {
    facts.failed.entry(check.to_owned()).or_insert_with(|| shorten(why));
}
