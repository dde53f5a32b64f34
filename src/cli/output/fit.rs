//! How wide the columns of a box are when not all of them fit.
//!
//! Long columns are cut down to a common width first; when even narrow ones do not fit, the last columns are left out.

/// What the borders of a box add to each column (`│ text `), beside the one `│` at the end.
const BORDER: usize = 3;

/// Columns are not cut below this width as long as fewer of them can be shown.
const NARROWEST: usize = 12;

/// The widths of the columns that are shown, first to last, in a box no wider than `available`.
///
/// At least one column is shown, and each is at least one character wide.
pub fn fit(natural: &[usize], available: Option<usize>) -> Vec<usize> {
    let natural: Vec<usize> = natural.iter().map(|width| (*width).max(1)).collect();
    let Some(room) = available.map(|available| available.saturating_sub(1)) else { return natural };
    if natural.iter().map(|width| width + BORDER).sum::<usize>() <= room {
        return natural;
    }
    let mut used = 0;
    let shown = natural.iter().take_while(|width| {
        used += (**width).min(NARROWEST) + BORDER;
        used <= room
    });
    let shown = shown.count().max(1).min(natural.len());
    let budget = room.saturating_sub(shown * BORDER);
    let columns = &natural[..shown];
    let fits = |cap: usize| columns.iter().map(|width| (*width).min(cap)).sum::<usize>() <= budget;
    // No column is wider than the budget, so the search is short.
    let cap = (1..=budget).rev().find(|cap| fits(*cap)).unwrap_or(1);
    columns.iter().map(|width| (*width).min(cap)).collect()
}

#[cfg(test)]
mod tests {
    use super::fit;

    #[test]
    fn what_fits_stays() {
        assert_eq!(fit(&[3, 4], None), [3, 4]);
        assert_eq!(fit(&[3, 4], Some(14)), [3, 4]);
    }

    #[test]
    fn long_columns_share_what_is_left() {
        assert_eq!(fit(&[5, 100, 100], Some(60)), [5, 22, 22]);
    }

    #[test]
    fn the_last_columns_go_when_narrow_ones_do_not_fit() {
        assert_eq!(fit(&[50; 10], Some(50)), [13, 13, 13]);
        assert_eq!(fit(&[50], Some(10)), [6]);
        assert_eq!(fit(&[50, 50], Some(0)), [1]);
    }
}
