//! From where keys came into memory lately: whoever leaves for the same pages leaves together with many.

use crate::state::tier::Place;

/// The places at which keys were looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stretch {
    /// None were.
    #[default]
    Nowhere,
    /// From this place on to that one, perhaps round the end.
    Between(Place, Place),
    /// In no order.
    Everywhere,
}

impl Stretch {
    /// More keys were looked up, at places between these.
    pub fn extend(&mut self, first: Place, last: Place) {
        *self = match *self {
            Self::Nowhere => Self::Between(first, last),
            Self::Between(from, to) => {
                let (is_behind, is_before) = (to <= first, last < from);
                let goes_on = if from <= to { is_behind || is_before } else { is_behind && is_before };
                if goes_on { Self::Between(from, last) } else { Self::Everywhere }
            }
            Self::Everywhere => Self::Everywhere,
        };
    }

    /// Whether no place is in it.
    pub fn is_empty(&self) -> bool {
        *self == Self::Nowhere
    }

    /// Whether a place is in it.
    pub fn has(&self, place: Place) -> bool {
        match *self {
            Self::Nowhere => false,
            Self::Between(from, to) if from <= to => from <= place && place <= to,
            Self::Between(from, to) => from <= place || place <= to,
            Self::Everywhere => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_goes_on_round_the_end_until_it_meets_its_beginning() {
        // Of one key group the low half of the hash is the order.
        let place = |hash| Place::of(hash, 1);
        let seen = |steps: &[(u64, u64)]| {
            let mut stretch = Stretch::default();
            steps.iter().for_each(|(first, last)| stretch.extend(place(*first), place(*last)));
            (0..8).filter(|hash| stretch.has(place(*hash))).collect::<Vec<u64>>()
        };
        assert!(seen(&[]).is_empty());
        assert_eq!(seen(&[(2, 3)]), [2, 3]);
        assert_eq!(seen(&[(2, 3), (3, 5)]), [2, 3, 4, 5]);
        assert_eq!(seen(&[(4, 5), (6, 6), (0, 1)]), [0, 1, 4, 5, 6, 7]);
        assert_eq!(seen(&[(4, 5), (0, 1), (1, 2)]), [0, 1, 2, 4, 5, 6, 7]);
        assert_eq!(seen(&[(4, 5), (0, 1), (1, 4)]), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(seen(&[(4, 5), (3, 5)]), [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
