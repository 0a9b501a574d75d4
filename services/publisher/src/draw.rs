//! Numbers that look random and are a pure function of a seed.
//!
//! Nothing is drawn in sequence: what is drawn for position 10,000,000 needs none of the
//! draws before it. So nothing of what was sent has to be kept, and the same seed gives
//! the same events to a process that starts again and to the one that checks them.

use lifecycle::{GOLDEN, mix};

/// What a number is drawn for. The same position gets unrelated numbers for each.
#[derive(Debug, Clone, Copy)]
pub(crate) enum For {
    Kind = 1,
    Distance,
    Malformed,
    Fault,
    Topic,
    Id,
    Content,
    Epoch,
    Order,
}

/// Where all draws of a run begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seed(pub(crate) u64);

impl Seed {
    /// The number of a position for a purpose.
    pub(crate) fn draw(self, purpose: For, position: u64) -> u64 {
        let stream = mix(self.0 ^ (purpose as u64).wrapping_mul(GOLDEN));
        mix(stream.wrapping_add(position.wrapping_mul(GOLDEN)))
    }

    /// A sequence of numbers of a position, for what needs many.
    pub(crate) fn stream(self, purpose: For, position: u64) -> Stream {
        Stream(self.draw(purpose, position))
    }
}

/// SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>).
#[derive(Debug, Clone)]
pub(crate) struct Stream(u64);

impl Stream {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }
}

/// A share of all draws, as the bound below which a draw belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Share(u64);

/// A double holds so many bits of a share, and so many are compared.
const SHARE_BITS: u32 = 53;

impl Share {
    pub(crate) const NONE: Self = Self(0);

    /// A share from 0 to 1; what lies outside is taken for the nearer of the two.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "2^53 times a number from 0 to 1 is a whole number that both hold"
    )]
    pub(crate) fn new(share: f64) -> Self {
        Self((share.clamp(0.0, 1.0) * (1_u64 << SHARE_BITS) as f64) as u64)
    }

    /// As a number from 0 to 1.
    #[expect(
        clippy::cast_precision_loss,
        reason = "both numbers have 53 bits at most"
    )]
    pub(crate) fn as_f64(self) -> f64 {
        self.0 as f64 / (1_u64 << SHARE_BITS) as f64
    }

    pub(crate) fn has(self, draw: u64) -> bool {
        draw >> (64 - SHARE_BITS) < self.0
    }
}

/// A permutation of the numbers below 2^62 that can be undone: it hides a position in the
/// bits that a UUID leaves free, and finds it there again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shuffle {
    before: u64,
    after: u64,
}

impl Shuffle {
    const MASK: u64 = (1 << 62) - 1;
    const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;
    const INVERSE: u64 = inverse(Self::FACTOR);

    pub(crate) fn new(seed: Seed) -> Self {
        Self {
            before: seed.draw(For::Id, 0) & Self::MASK,
            after: seed.draw(For::Id, 1) & Self::MASK,
        }
    }

    /// Of a number below 2^62.
    pub(crate) fn hide(self, number: u64) -> u64 {
        let mut x = (number ^ self.before) & Self::MASK;
        x = x.wrapping_mul(Self::FACTOR) & Self::MASK;
        x ^= x >> 31;
        x = x.wrapping_mul(Self::FACTOR) & Self::MASK;
        x ^= x >> 31;
        x ^ self.after
    }

    /// The number that was hidden.
    pub(crate) fn find(self, hidden: u64) -> u64 {
        let mut x = (hidden ^ self.after) & Self::MASK;
        // Shifting by half the width undoes itself.
        x ^= x >> 31;
        x = x.wrapping_mul(Self::INVERSE) & Self::MASK;
        x ^= x >> 31;
        x = x.wrapping_mul(Self::INVERSE) & Self::MASK;
        x ^ self.before
    }
}

/// The number that an odd one is to be multiplied with for 1, modulo 2^64: each step of
/// Newton's method doubles how many of its bits are right, and the first has three.
const fn inverse(odd: u64) -> u64 {
    let mut x = odd;
    let mut step = 0;
    while step < 5 {
        x = x.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(x)));
        step += 1;
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_seed_purpose_and_position_alone() {
        let draw = Seed(7).draw(For::Kind, 1_000_000);
        assert_eq!(draw, Seed(7).draw(For::Kind, 1_000_000));
        assert_ne!(draw, Seed(8).draw(For::Kind, 1_000_000));
        assert_ne!(draw, Seed(7).draw(For::Topic, 1_000_000));
        assert_ne!(draw, Seed(7).draw(For::Kind, 1_000_001));
    }

    #[test]
    fn a_share_holds_its_share_of_the_draws() {
        for (share, low, high) in [(0.0, 0, 0), (0.3, 29_500, 30_500), (1.0, 100_000, 100_000)] {
            let share = Share::new(share);
            let held = (0..100_000).filter(|n| share.has(Seed(7).draw(For::Kind, *n)));
            let held = held.count();
            assert!((low..=high).contains(&held), "{share:?}: {held}");
        }
    }

    #[test]
    fn what_is_hidden_is_found_and_looks_like_nothing() {
        let shuffle = Shuffle::new(Seed(7));
        for number in (0..1_000).chain([1 << 40, (1 << 62) - 1]) {
            let hidden = shuffle.hide(number);
            assert!(hidden <= Shuffle::MASK);
            assert_eq!(shuffle.find(hidden), number);
        }
        let near = shuffle.hide(1) ^ shuffle.hide(2);
        assert!((10..52).contains(&near.count_ones()), "{near:x}");
        assert_ne!(shuffle.hide(1), Shuffle::new(Seed(8)).hide(1));
    }
}
