//! Which windows there are (WIN-03 … WIN-05, WIN-13).

use std::time::Duration;

use tidemill_core::Result;
use tidemill_core::window::{Window, WindowKind, WindowSpec};

/// How records are put into windows of time: made by [`Tumbling`], [`Sliding`] or [`Session`], over event time unless said
/// otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    kind: WindowKind,
    offset: i64,
    domain: TimeDomain,
    is_whole: bool,
}

/// Whose time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeDomain {
    /// That of the records.
    Event,
    /// That of the machine.
    Processing,
}

/// Windows of one size, side by side.
#[derive(Clone, Copy, Debug)]
pub struct Tumbling;

impl Tumbling {
    /// Windows of `size`, beginning at multiples of it since 1970.
    pub fn of(size: Duration) -> Windows {
        Windows::new(WindowKind::Tumble { size: millis(size) })
    }
}

/// Windows of one size that begin every `slide`.
#[derive(Clone, Copy, Debug)]
pub struct Sliding;

impl Sliding {
    /// Windows of `size` that begin every `slide`. A record is in `size / slide` windows; with `slide > size` the records
    /// between windows are in none (WIN-16).
    pub fn of(size: Duration, slide: Duration) -> Windows {
        Windows::new(WindowKind::Hop { size: millis(size), slide: millis(slide) })
    }
}

/// Windows that last as long as records keep coming.
#[derive(Clone, Copy, Debug)]
pub struct Session;

impl Session {
    /// Records at most `gap` apart are in one window, which ends `gap` behind the last of them (SUB-04).
    pub fn with_gap(gap: Duration) -> Windows {
        Windows::new(WindowKind::Session { gap: millis(gap) })
    }
}

impl Windows {
    fn new(kind: WindowKind) -> Self {
        Self { kind, offset: 0, domain: TimeDomain::Event, is_whole: false }
    }

    /// One window of all records, complete at the end of the input.
    pub(super) fn whole() -> Self {
        Self { is_whole: true, ..Self::new(WindowKind::Tumble { size: 1 }) }
    }

    /// Moves window starts by so many milliseconds: −8 hours for days of a zone 8 hours ahead (WIN-13). Sessions have none.
    #[must_use]
    pub fn with_offset_millis(self, offset: i64) -> Self {
        Self { offset, ..self }
    }

    /// Puts records into windows by the time at which they arrive (TIM-03). Such windows are never late, and are the same in no
    /// two runs; at the end of a bounded input those still open are completed.
    #[must_use]
    pub fn in_processing_time(self) -> Self {
        Self { domain: TimeDomain::Processing, ..self }
    }

    /// Whose time it is.
    pub(super) fn domain(&self) -> TimeDomain {
        self.domain
    }

    /// Whether windows need to know the time of a record.
    pub(super) fn needs_event_time(&self) -> bool {
        self.domain == TimeDomain::Event && !self.is_whole
    }

    /// The windows checked and ready for arithmetic.
    pub(super) fn assigner(&self) -> Result<Assigner> {
        Ok(match (self.is_whole, self.kind) {
            (true, _) => Assigner::Whole,
            (false, WindowKind::Session { gap }) => {
                WindowSpec::new(self.kind, 0)?;
                Assigner::Session { gap }
            }
            (false, kind) => Assigner::Sliced(WindowSpec::new(kind, self.offset)?),
        })
    }
}

/// The arithmetic of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Assigner {
    /// Windows that are runs of whole slices.
    Sliced(WindowSpec),
    /// Windows that depend on the records.
    Session {
        /// Records at most this far apart are together.
        gap: i64,
    },
    /// One window.
    Whole,
}

/// All of time.
pub(super) const WHOLE: Window = Window { start: i64::MIN, end: i64::MAX };

impl Assigner {
    /// The windows that contain a slice, by end.
    pub fn windows_of_slice(&self, slice: i64) -> Result<Vec<Window>> {
        match self {
            Self::Sliced(spec) => spec.windows_of_slice(slice).map(Iterator::collect),
            Self::Session { .. } => Ok(Vec::new()),
            Self::Whole => Ok(vec![WHOLE]),
        }
    }

    /// Start of the slice that `time` falls into.
    pub fn slice_start(&self, time: i64) -> Result<i64> {
        match self {
            Self::Sliced(spec) => spec.slice_start(time),
            Self::Session { .. } | Self::Whole => Ok(WHOLE.start),
        }
    }

    /// The window whose last moment is `last`, if there is one.
    pub fn window_ending_with(&self, last: i64) -> Option<Window> {
        let end = last.checked_add(1)?;
        match self {
            Self::Sliced(spec) => {
                let (size, slide) = match spec.kind {
                    WindowKind::Tumble { size } => (size, size),
                    WindowKind::Hop { size, slide } => (size, slide),
                    WindowKind::Cumulate { .. } | WindowKind::Session { .. } => return None,
                };
                let start = end.checked_sub(size)?;
                let aligned = start.checked_sub(spec.offset)?.rem_euclid(slide) == 0;
                aligned.then_some(Window { start, end })
            }
            Self::Session { .. } => None,
            Self::Whole => (end == WHOLE.end).then_some(WHOLE),
        }
    }
}

/// The last moment of a window: it is complete when the watermark has reached this, and its results have this time (SUB-26).
pub(super) fn last_moment(window: &Window) -> i64 {
    window.end.saturating_sub(1)
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl std::fmt::Display for Assigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sliced(spec) => spec.fmt(f),
            Self::Session { gap } => write!(f, "SESSION(gap={gap})"),
            Self::Whole => f.write_str("everything"),
        }
    }
}
