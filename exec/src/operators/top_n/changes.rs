//! What differs between two rankings of a partition, as updates.

use arrow::row::OwnedRow;
use tidemill_core::RowKind;

use super::TopN;
use super::column::Ranked;

/// What differs between two rankings.
#[derive(Default)]
pub struct Changes {
    /// Rows that come or go.
    pub rows: Vec<OwnedRow>,
    /// Their ranks.
    pub ranks: Vec<u64>,
    /// What happens to each.
    pub kinds: Vec<u8>,
}

impl Changes {
    fn push(&mut self, ranked: &Ranked, rank: usize, kind: RowKind) {
        self.rows.push(ranked.row.clone());
        self.ranks.push(rank as u64);
        self.kinds.push(kind as u8);
    }

    /// Adds what leads from one ranking to the other.
    pub fn compare(&mut self, before: &[Ranked], after: &[Ranked], plan: &TopN) {
        match plan.emits_rank {
            true => self.compare_by_rank(before, after, plan.first),
            false => self.compare_as_sets(before, after),
        }
    }

    /// With the rank a row of its own: who moved is an update of that rank.
    fn compare_by_rank(&mut self, before: &[Ranked], after: &[Ranked], first: usize) {
        for place in 0..before.len().max(after.len()) {
            let rank = first + place;
            match (before.get(place), after.get(place)) {
                (Some(old), Some(new)) if old.row != new.row => {
                    self.push(old, rank, RowKind::UpdateBefore);
                    self.push(new, rank, RowKind::UpdateAfter);
                }
                (Some(old), None) => self.push(old, rank, RowKind::Delete),
                (None, Some(new)) => self.push(new, rank, RowKind::Insert),
                _ => {}
            }
        }
    }

    /// Without the rank only who entered and who left matters; who left goes first.
    fn compare_as_sets(&mut self, before: &[Ranked], after: &[Ranked]) {
        let mut stays = vec![false; after.len()];
        for old in before {
            let twin = after.iter().enumerate().position(|(place, new)| !stays[place] && new.row == old.row);
            match twin {
                Some(place) => stays[place] = true,
                None => self.push(old, 0, RowKind::Delete),
            }
        }
        for (new, _) in after.iter().zip(stays).filter(|(_, stays)| !stays) {
            self.push(new, 0, RowKind::Insert);
        }
    }
}
