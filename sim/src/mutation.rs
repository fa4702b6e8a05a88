//! The rules that can be taken away, to see that the checks notice: always in the world, never in `fsm`.

/// A rule that is taken away, or a known bug that is put back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mutation {
    /// Everything as it is.
    #[default]
    None,
    /// Elections do not ask whether the witnesses cover the specs.
    IgnoreCovers,
    /// Specs of older epochs are dropped by the decision.
    DropInherited,
    /// Elections look at the confirmed spec, and not at those behind it.
    IgnorePending,
    /// A keeper that restarts has forgotten its newest assignment, and a seal with it.
    ForgetSeal,
    /// A seal counts in every later election, whether it still holds or not.
    OldSeals,
    /// A node that reports is a witness, sealed or not.
    Unsealed,
    /// A seal by reload is reported before its signs are there.
    EarlySeal,
    /// Every witness is taken to have as much as the others.
    NoPositions,
    /// A timeline of no epoch ranks by its number.
    NumberedPositions,
    /// A node connects without the proof of rule 10.
    NoPrefixCheck,
    /// Copies are made from any node that runs.
    CloneFromAny,
    /// A promotion takes the number after the node's own.
    PlainTimelines,
    /// Late answers are taken, in whatever order.
    Unordered,
    /// Generations are not compared: specs are what they say.
    NoGenerations,
    /// A keeper without state takes an answer to an earlier process.
    NoNonce,
    /// The blocking step of rule 9 is left out.
    NoBlocking,
    /// The signs of rule 9 are not waited for.
    NoSigns,
    /// Nothing is waited for when going to asynchronous.
    NoProbe,
    /// The barrier of rule 9 is left out.
    NoBarrier,
    /// A standby passes the barrier by being connected.
    CountConnected,
    /// A promoted node acknowledges from its first moment on.
    PromotesOpen,
    /// A primary whose lease is over goes on.
    NoLease,
    /// A keeper that has heard nothing starts its primary and lets it run.
    StartsAlone,
    /// With loss accepted, the monitor does not wait for the end of leases.
    NoLeaseWait,
    /// A spec of an older epoch can be covered by its own members only.
    OwnWitnesses,
    /// Who has left the path of the newest epoch is no witness, and that path begins where its primary
    /// stood when it was elected.
    OnPathOnly,
    /// A spec is not changed again before the last change is confirmed.
    OnePending,
    /// A primary without data is taken for one that is alive.
    EmptyIsAlive,
    /// Loss is accepted whether or not the old primary's standbys could still acknowledge for it.
    Unfenced,
    /// The monitor decides on what it has read before, and stores that over what it has now.
    StaleView,
    /// Nothing follows from a keeper that knows higher numbers than the record.
    OldRecord,
    /// A primary that has fenced itself is taken back by no other goal.
    FencedStays,
    /// A node that was dropped promotes itself.
    DroppedPromotes,
    /// With two nodes a candidate priority of 0 does not count.
    ZeroPriority,
    /// The monitor replaces primaries during a pause, too.
    NoPause,
    /// A keeper carries out no order.
    IgnoresOrders,
    /// A keeper says of each order that it is done, and does nothing.
    SaysDone,
    /// Whoever streamed from a standby goes on when that has become the primary, as it was let in before.
    KeepsOldSlots,
    /// A node that streams from a standby is in the sync set.
    CountsCascaded,
    /// What was restored from a backup is a witness from its first moment on.
    TrustsBackups,
    /// A node is promoted that somebody has promoted by hand since it was elected.
    PromotesStrays,
}

impl Mutation {
    /// All of them, and none.
    pub const ALL: [Self; 42] = [
        Self::None,
        Self::IgnoreCovers,
        Self::DropInherited,
        Self::IgnorePending,
        Self::ForgetSeal,
        Self::OldSeals,
        Self::Unsealed,
        Self::EarlySeal,
        Self::NoPositions,
        Self::NumberedPositions,
        Self::NoPrefixCheck,
        Self::CloneFromAny,
        Self::PlainTimelines,
        Self::Unordered,
        Self::NoGenerations,
        Self::NoNonce,
        Self::NoBlocking,
        Self::NoSigns,
        Self::NoProbe,
        Self::NoBarrier,
        Self::CountConnected,
        Self::PromotesOpen,
        Self::NoLease,
        Self::StartsAlone,
        Self::NoLeaseWait,
        Self::OwnWitnesses,
        Self::OnPathOnly,
        Self::OnePending,
        Self::EmptyIsAlive,
        Self::Unfenced,
        Self::StaleView,
        Self::OldRecord,
        Self::FencedStays,
        Self::DroppedPromotes,
        Self::ZeroPriority,
        Self::NoPause,
        Self::IgnoresOrders,
        Self::SaysDone,
        Self::KeepsOldSlots,
        Self::CountsCascaded,
        Self::TrustsBackups,
        Self::PromotesStrays,
    ];
}

/// A name that is none of a mutation's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not one of {names}", names = Mutation::ALL.map(|m| m.to_string()).join(", "))]
pub struct InvalidMutation(String);

/// As in the source, with small letters and hyphens: `ignore-covers`.
impl std::fmt::Display for Mutation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = format!("{self:?}");
        for (index, letter) in words.char_indices() {
            if letter.is_uppercase() && index > 0 {
                f.write_str("-")?;
            }
            write!(f, "{}", letter.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Mutation {
    type Err = InvalidMutation;

    fn from_str(text: &str) -> Result<Self, InvalidMutation> {
        let named = Self::ALL.into_iter().find(|mutation| mutation.to_string() == text);
        named.ok_or_else(|| InvalidMutation(text.to_owned()))
    }
}
