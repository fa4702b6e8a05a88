//! Chance that replays: everything random in a world comes from its seed. And its absence, for
//! worlds in which every choice is an action of its own.

/// A generator (splitmix64), or none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Random(Option<u64>);

impl Random {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self(Some(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66_D1CE_4E5B))
    }

    /// The generator of one step of a walk: what one step draws is nothing to the others, so that they
    /// stay what they are when one is left out.
    pub fn of_step(seed: u64, step: usize) -> Self {
        let step = u64::try_from(step).unwrap_or(u64::MAX);
        let mut mixed = Self::new(seed ^ step.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        mixed.draw();
        mixed
    }

    /// Nothing is left to chance: what happens once in so many times never does.
    pub fn none() -> Self {
        Self(None)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        let Some(state) = &mut self.0 else { return 0 };
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 for 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw().checked_rem(bound).unwrap_or(0)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.0.is_some() && self.below(n) == 0
    }

    /// One of these.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let length = u64::try_from(from.len()).ok()?;
        let index = usize::try_from(self.below(length)).ok()?;
        from.get(index).cloned()
    }
}
