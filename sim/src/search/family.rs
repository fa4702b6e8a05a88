//! The searches of `make check-deep`: each kind of what may happen alone and most in pairs, as far as they
//! can be completed, and the two that are part of every test run.

use super::budget::NAMES;
use super::{Budget, InvalidBudget, Known, Search};
use crate::world::Mutation;
use shared::settings::Settings;
use std::fmt;
use std::sync::Arc;

/// A search by its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// How many data nodes.
    pub nodes: u64,
    /// `number_sync_standbys`.
    pub required: u32,
    /// What may happen.
    pub budget: Budget,
    /// See [`Search::lags`].
    pub lags: bool,
    /// See [`Search::guarded`].
    pub guarded: bool,
    /// Whether P3 is asked of every state, too.
    pub finds_back: bool,
}

/// What is searched on every test run: both complete, with as many states as `docs/proof.md` says.
pub fn quick() -> Result<[Member; 2], InvalidBudget> {
    let two = Member::new(2, 1, "writes=1,crashes=1,changes=1,switchovers=1")?;
    let three = Member::new(3, 1, "writes=1,crashes=1,cuts=1")?;
    Ok([two.safety(), three.safety()])
}

/// Two nodes: pairs that are too large to be searched to their end: with the third node that joins they
/// are searches of three.
const TOO_LARGE: [(&str, &str); 11] = [
    ("crashes", "joins"),
    ("cuts", "joins"),
    ("lost-disks", "joins"),
    ("lost-states", "joins"),
    ("late", "joins"),
    ("switchovers", "joins"),
    ("maintenances", "joins"),
    ("drops", "joins"),
    ("changes", "joins"),
    ("overrides", "joins"),
    ("ticks", "joins"),
];

/// Three nodes: what is too large even alone.
const TOO_LARGE_OF_THREE: [&str; 3] = ["lost-disks", "maintenances", "joins"];

/// Three nodes: what is searched alone only.
const ALONE: [&str; 4] = ["switchovers", "drops", "overrides", "ticks"];

/// Three nodes: pairs of the others that are too large.
const TOO_LARGE_PAIRS: [(&str, &str); 4] = [
    ("crashes", "lost-states"),
    ("crashes", "changes"),
    ("crashes", "promotions"),
    ("lost-states", "changes"),
];

/// What is searched alone and of two nodes only; the walks have it beside everything else.
const ALONE_OF_TWO: [&str; 2] = ["orders", "pauses"];

/// So many states come of these in pairs that to ask P3 of each would take minutes.
const MANY: [&str; 4] = ["lost-disks", "maintenances", "overrides", "joins"];

/// The family: each kind alone and each two together, of two nodes, and of three nodes of which one or
/// two others are waited for. P3 is asked of each kind alone, and of pairs of two nodes.
pub fn deep() -> Result<Vec<Member>, InvalidBudget> {
    let mut family = Vec::new();
    for (nodes, required) in [(2, 1), (3, 1), (3, 2)] {
        let kinds: Vec<_> = NAMES.iter().skip(1).filter(|kind| is_alone(nodes, kind)).collect();
        for (index, kind) in kinds.iter().enumerate() {
            family.push(Member::new(nodes, required, &format!("writes=1,{kind}=1"))?);
            for other in kinds.iter().skip(index + 1).filter(|other| is_pair(nodes, kind, other)) {
                let bounds = format!("writes=1,{kind}=1,{other}=1");
                let many = nodes > 2 || MANY.contains(*kind) || MANY.contains(*other);
                let member = Member::new(nodes, required, &bounds)?;
                family.push(if many { member.safety() } else { member });
            }
        }
    }
    // A cut matters most when timers run out.
    let few = |kind: &&&str| !MANY.contains(*kind) && !ALONE_OF_TWO.contains(*kind);
    for kind in NAMES.iter().skip(1).filter(few) {
        if !["cuts", "ticks"].contains(kind) {
            let bounds = format!("writes=1,cuts=1,ticks=1,{kind}=1");
            family.push(Member::new(2, 1, &bounds)?.safety());
        }
    }
    family.push(Member::new(2, 1, "writes=1,crashes=1,changes=1")?.lagging());
    family.push(Member::new(2, 1, "writes=1,overrides=1,ticks=1")?.guarded());
    family.push(Member::new(3, 2, "writes=1,changes=1")?.lagging());
    Ok(family)
}

fn is_alone(nodes: u64, kind: &str) -> bool {
    nodes == 2 || !(TOO_LARGE_OF_THREE.contains(&kind) || ALONE_OF_TWO.contains(&kind))
}

fn is_pair(nodes: u64, kind: &str, other: &str) -> bool {
    let among = |pairs: &[(&str, &str)]| {
        pairs.iter().any(|pair| *pair == (kind, other) || *pair == (other, kind))
    };
    if ALONE_OF_TWO.contains(&kind) || ALONE_OF_TWO.contains(&other) {
        return false;
    }
    if nodes == 2 {
        return !among(&TOO_LARGE);
    }
    let alone = ALONE.contains(&kind) || ALONE.contains(&other);
    !alone && !among(&TOO_LARGE_PAIRS)
}

impl Member {
    fn new(nodes: u64, required: u32, bounds: &str) -> Result<Self, InvalidBudget> {
        let budget = bounds.parse()?;
        Ok(Self { nodes, required, budget, lags: false, guarded: false, finds_back: true })
    }

    fn lagging(self) -> Self {
        Self { lags: true, ..self }
    }

    fn guarded(self) -> Self {
        Self { guarded: true, ..self }
    }

    /// The same without P3.
    #[must_use]
    pub fn safety(self) -> Self {
        Self { finds_back: false, ..self }
    }

    /// The search.
    pub fn search(&self) -> Search {
        let number_sync_standbys = Some(self.required);
        Search {
            nodes: self.nodes,
            settings: Settings { number_sync_standbys, ..Settings::default() },
            budget: self.budget,
            mutation: Mutation::None,
            guarded: self.guarded,
            lags: self.lags,
            finds_back: self.finds_back.then(|| Arc::new(Known::new())),
        }
    }
}

/// A row of the table in `docs/proof.md`, up to the figures.
impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, required, budget, lags, guarded, finds_back } = self;
        write!(f, "| {nodes} | {required} | {budget}")?;
        if *lags {
            f.write_str(", reloads one by one")?;
        }
        if *guarded {
            f.write_str(", guarded")?;
        }
        f.write_str(if *finds_back { " | yes |" } else { " | no |" })
    }
}
