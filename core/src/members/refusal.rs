//! Why a change of the cluster is refused.

/// Why a change of the cluster is refused. The text says what is wrong; [`Refusal::hint`] says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody answers at the address.
    #[error("member {id} does not answer at {address}: {why}")]
    NotRunning {
        /// Who was looked for.
        id: u64,
        /// Where.
        address: String,
        /// What happened.
        why: String,
    },
    /// Somebody else answers there.
    #[error("at {address} is member {member} of cluster \"{cluster}\", and not member {id} of this one")]
    Stranger {
        /// Who was looked for.
        id: u64,
        /// Where.
        address: String,
        /// The cluster of who answers.
        cluster: String,
        /// Its id.
        member: u64,
    },
    /// A newcomer brings a log of its own.
    #[error("member {id} at {address} has a log already, and it is not this cluster's")]
    NotEmpty {
        /// The newcomer.
        id: u64,
        /// Where.
        address: String,
    },
    /// A member came back without what it had acknowledged.
    #[error("member {id} has lost its log: it may have forgotten votes that it gave")]
    LostLog {
        /// The member.
        id: u64,
    },
    /// The id belonged to a member that was removed.
    #[error("id {id} belonged to a member that was removed, and is never used again")]
    IdUsed {
        /// The id.
        id: u64,
        /// One that was never used.
        free: u64,
    },
    /// The id belongs to a member at another address.
    #[error("member {id} belongs to the cluster already, at {address}")]
    IdTaken {
        /// The id.
        id: u64,
        /// Where that member is.
        address: String,
    },
    /// The address belongs to another member.
    #[error("{address} is the address of member {id}")]
    AddressTaken {
        /// The address.
        address: String,
        /// Whose it is.
        id: u64,
    },
    /// The newcomer's release is too old for this cluster.
    #[error(
        "member {id} (version {version}) goes up to feature level {level_max}, and the cluster is at {level}"
    )]
    TooOld {
        /// The newcomer.
        id: u64,
        /// Its version.
        version: String,
        /// The highest level that it knows.
        level_max: u32,
        /// The cluster's level.
        level: u32,
    },
    /// A voter does not answer while another is to be added.
    #[error("member {id} is not made a voter while others do not answer: {}", list(.silent))]
    DeadFirst {
        /// Who is to vote.
        id: u64,
        /// Who does not answer.
        silent: Vec<u64>,
    },
    /// No such member.
    #[error("there is no member {id}; the members are {}", list(.known))]
    Unknown {
        /// What was asked for.
        id: u64,
        /// Those that there are.
        known: Vec<u64>,
    },
    /// Without it nobody could decide any more.
    #[error("member {id} is the last voter: the cluster is what it holds")]
    LastVoter {
        /// The member.
        id: u64,
    },
    /// Those that are left could not decide any more.
    #[error(
        "without member {id} nothing could be decided any more: of the voters that are left {answering} would answer and \
         {needed} are needed"
    )]
    NoQuorum {
        /// Who was to be removed.
        id: u64,
        /// How many of the others answer.
        answering: usize,
        /// How many would be needed.
        needed: usize,
        /// Who does not answer.
        silent: Vec<u64>,
    },
    /// A learner does not lead.
    #[error("member {id} is a learner: it does not vote, and cannot lead")]
    Learner {
        /// The member.
        id: u64,
    },
    /// Members do not answer, and it is not known what they can follow.
    #[error("not every member answers: {} is silent", list(.silent))]
    Unheard {
        /// Who.
        silent: Vec<u64>,
    },
    /// Members cannot follow.
    #[error("feature level {level} is not known to every member: {}", behind(.members))]
    CannotFollow {
        /// The level.
        level: u32,
        /// Who is behind: id, version, and the level up to which it goes.
        members: Vec<(u64, String, u32)>,
    },
}

impl Refusal {
    /// One word for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::NotRunning { .. } => "not_running",
            Refusal::Stranger { .. } => "stranger",
            Refusal::NotEmpty { .. } => "not_empty",
            Refusal::LostLog { .. } => "lost_log",
            Refusal::IdUsed { .. } => "id_used",
            Refusal::IdTaken { .. } => "id_taken",
            Refusal::AddressTaken { .. } => "address_taken",
            Refusal::TooOld { .. } => "too_old",
            Refusal::DeadFirst { .. } => "dead_first",
            Refusal::Unknown { .. } => "unknown_member",
            Refusal::LastVoter { .. } => "last_voter",
            Refusal::NoQuorum { .. } => "no_quorum",
            Refusal::Learner { .. } => "learner",
            Refusal::Unheard { .. } => "unheard",
            Refusal::CannotFollow { .. } => "cannot_follow",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Refusal::NotRunning { id, address, .. } => format!(
                "start it first; a new member with: soloist-coordinator --join --id {id} --listen {address} --cluster NAME \
                 --data DIR"
            ),
            Refusal::Stranger { .. } => "correct the address, or the id and the cluster's name of that coordinator".into(),
            Refusal::NotEmpty { .. } => {
                "stop it; if nothing of that log is needed, give it an empty data folder and start it with --join, without a \
                 list of members"
                    .into()
            }
            Refusal::LostLog { id } => format!(
                "stop it, remove it (soloist cluster remove {id}), and let it join with an empty folder under an id that was \
                 never used"
            ),
            Refusal::IdUsed { free, .. } => format!("start it with an empty folder under another id, for example {free}"),
            Refusal::IdTaken { id, .. } => {
                format!("for a member that has moved: soloist cluster move {id} ADDRESS; for a new one choose another id")
            }
            Refusal::AddressTaken { .. } => "give each member its own address".into(),
            Refusal::TooOld { .. } => "install the version of the other members, then try again".into(),
            Refusal::DeadFirst { silent, .. } => format!(
                "start it again, or remove it first: soloist cluster remove {}; the new one stays a learner until then",
                silent.first().copied().unwrap_or_default()
            ),
            Refusal::Unknown { .. } => "see soloist cluster status".into(),
            Refusal::LastVoter { .. } => "add another member first: soloist cluster add ID ADDRESS".into(),
            Refusal::NoQuorum { silent, .. } => {
                format!("start the silent ones, or remove one of them first: {}", list(silent))
            }
            Refusal::Learner { id } => format!("make it a voter: soloist cluster add {id} ADDRESS"),
            Refusal::Unheard { .. } => {
                "start it, or remove it if it does not come back; then finalize again".into()
            }
            Refusal::CannotFollow { .. } => {
                "upgrade it, or raise max_feature_level in its configuration; then finalize again".into()
            }
        }
    }
}

fn list(ids: &[u64]) -> String {
    ids.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

fn behind(members: &[(u64, String, u32)]) -> String {
    let each = members
        .iter()
        .map(|(id, version, level)| format!("member {id} (version {version}) goes up to {level}"));
    each.collect::<Vec<_>>().join(", ")
}
