//! A set of positions, one bit each.

/// Positions below a bound.
#[derive(Debug, Clone)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn below(bound: u64) -> Self {
        let words = usize::try_from(bound.div_ceil(64)).unwrap_or(usize::MAX);
        Self(vec![0; words])
    }

    /// Says whether it was new. Beyond the bound nothing is.
    pub(super) fn insert(&mut self, position: u64) -> bool {
        let (word, bit) = place(position);
        let Some(word) = self.0.get_mut(word) else {
            return false;
        };
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Those that are not in the other, in order.
    pub(super) fn without(&self, other: &Self) -> impl Iterator<Item = u64> {
        let words = self.0.iter().zip(&other.0);
        let rests = (0..).step_by(64).zip(words.map(|(a, b)| a & !b));
        rests.flat_map(|(first, rest)| {
            (0..64_u64)
                .filter(move |bit| rest >> bit & 1 == 1)
                .map(move |bit| first + bit)
        })
    }
}

fn place(position: u64) -> (usize, u64) {
    let word = usize::try_from(position / 64).unwrap_or(usize::MAX);
    (word, 1 << (position % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_new_once() {
        let mut bits = Bits::below(130);
        for position in [0, 63, 64, 129] {
            assert!(bits.insert(position));
            assert!(!bits.insert(position));
        }
        assert!(!bits.insert(10_000));
    }

    #[test]
    fn what_the_other_has_not_is_found_in_order() {
        let (mut all, mut some) = (Bits::below(200), Bits::below(200));
        for position in [0, 5, 63, 64, 199] {
            all.insert(position);
        }
        some.insert(5);
        some.insert(64);
        let left: Vec<_> = all.without(&some).collect();
        assert_eq!(left, [0, 63, 199]);
        assert_eq!(some.without(&all).count(), 0);
    }
}
