//! The safety rules by name, each of which the simulation can switch off to show that it would notice.

/// A safety rule. In a release build every rule always holds; the feature `mutations` lets a test switch one off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A crashed app is not a stopped node: its agent would start it again.
    CrashIsNoEvidence,
    /// A report that contradicts stop evidence withdraws it.
    EvidenceIsWithdrawn,
    /// A report older than the last accepted one is dropped.
    ReportsInOrder,
    /// An agent refuses an assignment below the one it has.
    GenerationsRise,
    /// An agent acts only on what it was assigned after it registered.
    RegisterFirst,
    /// An abort frees the lock only when nothing unsafe can still execute.
    AbortKeepsLock,
    /// Attempt n+1 starts only when attempt n has ended.
    OneAttempt,
    /// A right to migrate is spent when it is used.
    MigrateIsSpent,
    /// Only one node holds a right to migrate.
    OneMigrate,
    /// Only an operation that asked for it gives a right to migrate.
    MigrateNeedsIntent,
    /// A plain start needs code and database of one version, an installed database and no upgrade marker.
    PlainNeedsSameVersion,
    /// Nothing exclusive begins while a foreign process is known.
    ForeignBlocks,
    /// Nothing exclusive begins while a database session of nobody in the fleet is known.
    SessionBlocks,
    /// A restore that is ended in the middle leaves everything stopped.
    HalfRestoreStops,
    /// An upgrade goes back by itself only while no user can have written since its backup.
    WritesAreKept,
    /// Packages that were exchanged go back on every node when the exchange is taken back.
    PackagesGoBack,
    /// What is changed inside a running app is changed while that app is one process.
    OneProcess,
    /// A start by hand is forgotten when the coordinators can be asked again and nothing runs.
    HandEndsWhenAsked,
    /// Where a fence acts, the number of a wish that is older than the last one is refused.
    FenceHasNumbers,
    /// A fence holds when nobody is left inside.
    FenceIsProven,
    /// A fence counts only for what changes nothing else than it covers.
    FenceCovers,
    /// A fence is lifted when its node has acknowledged a stop.
    FencedUntilStopped,
    /// Users are away from a node when whoever sends them there has said so.
    DrainIsProven,
    /// A node is stopped in order only when nothing is under way there, or the time for that has passed.
    QuietIsAwaited,
    /// The first node serves before the second starts.
    FirstServes,
    /// Time is the leader's elapsed time, never a wall clock.
    ElapsedTime,
    /// A new leader gives every live lease its full length again.
    PromoteExtends,
}

impl Rule {
    /// Every rule, for tests that walk them all.
    pub const ALL: [Rule; 27] = [
        Rule::CrashIsNoEvidence,
        Rule::EvidenceIsWithdrawn,
        Rule::ReportsInOrder,
        Rule::GenerationsRise,
        Rule::RegisterFirst,
        Rule::AbortKeepsLock,
        Rule::OneAttempt,
        Rule::MigrateIsSpent,
        Rule::OneMigrate,
        Rule::MigrateNeedsIntent,
        Rule::PlainNeedsSameVersion,
        Rule::ForeignBlocks,
        Rule::SessionBlocks,
        Rule::HalfRestoreStops,
        Rule::WritesAreKept,
        Rule::PackagesGoBack,
        Rule::OneProcess,
        Rule::HandEndsWhenAsked,
        Rule::FenceHasNumbers,
        Rule::FenceIsProven,
        Rule::FenceCovers,
        Rule::FencedUntilStopped,
        Rule::DrainIsProven,
        Rule::QuietIsAwaited,
        Rule::FirstServes,
        Rule::ElapsedTime,
        Rule::PromoteExtends,
    ];

    /// Whether the rule holds.
    #[cfg(not(feature = "mutations"))]
    #[inline]
    pub const fn holds(self) -> bool {
        true
    }

    /// Whether the rule holds in this thread.
    #[cfg(feature = "mutations")]
    pub fn holds(self) -> bool {
        BROKEN.with(|broken| broken.get() != Some(self))
    }

    /// Runs `work` with this rule switched off in this thread.
    #[cfg(feature = "mutations")]
    pub fn broken<R>(self, work: impl FnOnce() -> R) -> R {
        struct Mend;
        impl Drop for Mend {
            fn drop(&mut self) {
                BROKEN.with(|broken| broken.set(None));
            }
        }
        BROKEN.with(|broken| broken.set(Some(self)));
        let _mend = Mend;
        work()
    }
}

#[cfg(feature = "mutations")]
thread_local! {
    static BROKEN: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}
