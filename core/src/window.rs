//! Windows over event time, and the slices that they share (WIN-03 … WIN-05, WIN-13, NSQ-01).
//!
//! All arithmetic is on `i64` in the column's own unit, floored for negatives, checked. A window is half open,
//! `[start, end)`, and complete when the watermark has passed `end - 1`.
//!
//! Overlapping windows are not kept apart: time is cut into **slices** so fine that every window is a run of whole slices,
//! a row is added to one slice, and a window that fires merges its slices.
//!
//! ```text
//! HOP size 3, slide 1:   |----w0----|             CUMULATE max 3, step 1:  |-w0|
//!                            |----w1----|                                  |--w1--|
//! slices of 1:           |  |   |   |   |                                  |---w2----|
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A stretch of time, half open, in the unit of its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    /// First moment that no longer belongs to the window. Leads the order, so that windows sort by when they are complete.
    pub end: i64,
    /// First moment that belongs to the window.
    pub start: i64,
}

/// How rows are put into windows; lengths and offset in the unit of the time column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowKind {
    /// Windows of one size, side by side.
    Tumble {
        /// Length of a window.
        size: i64,
    },
    /// Windows of one size that begin every `slide`. With `slide > size` rows between windows belong to none.
    Hop {
        /// Length of a window.
        size: i64,
        /// Distance between window starts.
        slide: i64,
    },
    /// Windows that share a start and grow by `step` until they are `max` long, then start anew.
    Cumulate {
        /// Length of the longest window.
        max: i64,
        /// By how much a window is longer than the one before.
        step: i64,
    },
    /// A window of rows no more than `gap` apart from the next (SUB-04), from the first row to the last plus `gap`.
    Session {
        /// Two rows whose distance is at most this belong together.
        gap: i64,
    },
}

/// A window kind and where its windows are aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowSpec {
    /// What kind of windows.
    pub kind: WindowKind,
    /// By how much window starts are moved from the epoch; negative moves them back (WIN-13).
    pub offset: i64,
}

impl WindowSpec {
    /// A checked specification: lengths are positive, a slide or step divides where it has to.
    pub fn new(kind: WindowKind, offset: i64) -> Result<Self> {
        let positive = |name: &str, value: i64| match value {
            1.. => Ok(()),
            _ => Err(Error::request(format!("{name} of a window is {value}")).with_hint("it must be positive")),
        };
        match kind {
            WindowKind::Tumble { size } => positive("size", size)?,
            WindowKind::Hop { size, slide } => {
                positive("size", size)?;
                positive("slide", slide)?;
            }
            WindowKind::Cumulate { max, step } => {
                positive("size", max)?;
                positive("step", step)?;
                if max % step != 0 {
                    return Err(Error::request(format!("step {step} of CUMULATE does not divide its size {max}"))
                        .with_hint("the size must be a whole multiple of the step"));
                }
            }
            WindowKind::Session { gap } => positive("gap", gap)?,
        }
        Ok(Self { kind, offset })
    }

    /// Length of a slice: the coarsest cut of which every window is a whole run.
    pub fn slice_size(&self) -> i64 {
        match self.kind {
            WindowKind::Tumble { size } => size,
            WindowKind::Hop { size, slide } => gcd(size, slide),
            WindowKind::Cumulate { step, .. } => step,
            WindowKind::Session { gap } => gap,
        }
    }

    /// Start of the slice that `time` falls into.
    pub fn slice_start(&self, time: i64) -> Result<i64> {
        let size = self.slice_size();
        let start = time.checked_sub(self.offset).and_then(|shifted| time.checked_sub(shifted.rem_euclid(size)));
        start.filter(|start| start.checked_add(size).is_some()).ok_or_else(|| out_of_range(time))
    }

    /// All windows that contain the slice starting at `slice`, by end. None for a session, whose windows depend on its rows.
    pub fn windows_of_slice(&self, slice: i64) -> Result<Windows> {
        let (start, end, count, slide, growth) = match self.kind {
            WindowKind::Tumble { size } => (slice, slice.checked_add(size), 1, size, 0),
            WindowKind::Hop { size, slide } => {
                let latest = aligned(slice, slide, self.offset)?;
                let room = size - (slice - latest);
                let count = room.max(0).div_euclid(slide) + i64::from(room.max(0).rem_euclid(slide) > 0);
                let back = (count - 1).max(0).checked_mul(slide).and_then(|back| latest.checked_sub(back));
                let start = back.ok_or_else(|| out_of_range(slice))?;
                (start, start.checked_add(size), count, slide, 0)
            }
            WindowKind::Cumulate { max, step } => {
                let start = aligned(slice, max, self.offset)?;
                let shortest = (slice - start) / step + 1;
                (start, start.checked_add(shortest * step), max / step - shortest + 1, 0, step)
            }
            WindowKind::Session { .. } => (slice, Some(slice), 0, 0, 0),
        };
        let end = end.ok_or_else(|| out_of_range(start))?;
        let last = (count - 1).max(0).checked_mul(slide + growth).and_then(|ahead| end.checked_add(ahead));
        last.ok_or_else(|| out_of_range(slice))?;
        Ok(Windows { next: Window { start, end }, left: count, slide, growth })
    }

    /// Starts of the slices that make up `window`, ascending.
    pub fn slices_of_window(&self, window: Window) -> impl Iterator<Item = i64> + use<> {
        (window.start..window.end).step_by(self.slice_size() as usize)
    }

    /// How many windows a row belongs to at most.
    pub fn windows_per_row_max(&self) -> usize {
        let count = match self.kind {
            WindowKind::Tumble { .. } | WindowKind::Session { .. } => 1,
            WindowKind::Hop { size, slide } => (size as u64).div_ceil(slide as u64) as i64,
            WindowKind::Cumulate { max, step } => max / step,
        };
        count as usize
    }
}

/// Windows at equal distances, by end: those of a slice. There may be many (a day by the second), so none is kept.
#[derive(Clone, Debug)]
pub struct Windows {
    next: Window,
    left: i64,
    /// By how much a window begins later than the one before.
    slide: i64,
    /// By how much a window is longer than the one before.
    growth: i64,
}

impl Windows {
    /// The first window for which `is_past` does not hold, where it holds for no window behind one for which it does not.
    pub fn first_beyond(mut self, mut is_past: impl FnMut(Window) -> bool) -> Option<Window> {
        let (mut past, mut rest) = (0, self.left);
        while past < rest {
            let middle = past + (rest - past) / 2;
            match is_past(self.at(middle)) {
                true => past = middle + 1,
                false => rest = middle,
            }
        }
        self.nth(past as usize)
    }

    /// The window `ahead` of the next, one of those that are left.
    fn at(&self, ahead: i64) -> Window {
        let Window { start, end } = self.next;
        Window { start: start + ahead * self.slide, end: end + ahead * (self.slide + self.growth) }
    }
}

impl Iterator for Windows {
    type Item = Window;

    fn next(&mut self) -> Option<Window> {
        self.nth(0)
    }

    fn nth(&mut self, skipped: usize) -> Option<Window> {
        let skipped = i64::try_from(skipped).ok().filter(|skipped| *skipped < self.left)?;
        let found = self.at(skipped);
        self.left -= skipped + 1;
        if self.left > 0 {
            self.next = self.at(skipped + 1);
        }
        Some(found)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Windows {}

impl DoubleEndedIterator for Windows {
    fn next_back(&mut self) -> Option<Window> {
        let last = (self.left > 0).then(|| self.at(self.left - 1))?;
        self.left -= 1;
        Some(last)
    }
}

impl fmt::Display for WindowSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            WindowKind::Tumble { size } => write!(f, "TUMBLE(size={size}")?,
            WindowKind::Hop { size, slide } => write!(f, "HOP(size={size}, slide={slide}")?,
            WindowKind::Cumulate { max, step } => write!(f, "CUMULATE(size={max}, step={step}")?,
            WindowKind::Session { gap } => write!(f, "SESSION(gap={gap}")?,
        }
        if self.offset != 0 {
            write!(f, ", offset={}", self.offset)?;
        }
        f.write_str(")")
    }
}

/// The last multiple of `size` (moved by `offset`) at or before `time`.
fn aligned(time: i64, size: i64, offset: i64) -> Result<i64> {
    let shifted = time.checked_sub(offset).ok_or_else(|| out_of_range(time))?;
    time.checked_sub(shifted.rem_euclid(size)).ok_or_else(|| out_of_range(time))
}

fn gcd(left: i64, right: i64) -> i64 {
    if right == 0 { left } else { gcd(right, left % right) }
}

fn out_of_range(time: i64) -> Error {
    Error::data(format!("time {time} is too far from 1970 for a window"))
        .with_hint("the window's bounds overflow 64 bits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(kind: WindowKind, offset: i64) -> WindowSpec {
        WindowSpec::new(kind, offset).unwrap()
    }

    /// The obvious way: try every start near the row.
    fn windows_by_definition(spec: WindowSpec, time: i64) -> Vec<Window> {
        let mut found = vec![];
        for start in time - 200..=time {
            let starts_at = |size: i64| (start - spec.offset).rem_euclid(size) == 0;
            let mut consider = |size: i64| {
                if time < start + size {
                    found.push(Window { start, end: start + size });
                }
            };
            match spec.kind {
                WindowKind::Tumble { size } if starts_at(size) => consider(size),
                WindowKind::Hop { size, slide } if starts_at(slide) => consider(size),
                WindowKind::Cumulate { max, step } if starts_at(max) => {
                    (1..=max / step).for_each(|steps| consider(steps * step));
                }
                _ => {}
            }
        }
        found.sort();
        found
    }

    fn any_kind() -> impl Strategy<Value = WindowKind> {
        prop_oneof![
            (1..50i64).prop_map(|size| WindowKind::Tumble { size }),
            (1..50i64, 1..50i64).prop_map(|(size, slide)| WindowKind::Hop { size, slide }),
            (1..8i64, 1..8i64).prop_map(|(steps, step)| WindowKind::Cumulate { max: steps * step, step }),
        ]
    }

    proptest! {
        #[test]
        fn slices_give_the_windows_of_the_definition(kind in any_kind(), offset in -60..60i64, time in -500..500i64) {
            let spec = spec(kind, offset);
            let slice = spec.slice_start(time).unwrap();
            let windows = spec.windows_of_slice(slice).unwrap();
            let all: Vec<Window> = windows.clone().collect();
            prop_assert_eq!(&all, &windows_by_definition(spec, time));
            prop_assert_eq!(windows.len(), all.len());
            prop_assert_eq!(windows.clone().next_back(), all.last().copied());
            for window in &all {
                prop_assert!(spec.slices_of_window(*window).any(|start| start == slice));
                let beyond = all.iter().find(|other| other.end > window.end).copied();
                prop_assert_eq!(windows.clone().first_beyond(|other| other.end <= window.end), beyond);
            }
        }

        #[test]
        fn no_time_makes_it_panic(kind in any_kind(), offset in any::<i64>(), time in any::<i64>()) {
            let spec = spec(kind, offset);
            if let Ok(slice) = spec.slice_start(time) {
                let _ = spec.windows_of_slice(slice).map(|windows| windows.for_each(drop));
            }
        }
    }

    #[test]
    fn wrong_lengths_are_named() {
        assert!(WindowSpec::new(WindowKind::Tumble { size: 0 }, 0).is_err());
        let error = WindowSpec::new(WindowKind::Cumulate { max: 10, step: 3 }, 0).unwrap_err();
        assert!(error.to_string().contains("step 3"));
    }
}
