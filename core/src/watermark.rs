//! Watermarks: how far event time has come, per channel, and how channels merge (SUB-06).
//!
//! A watermark `w` is a promise: no row with a time `<= w` (in milliseconds) follows. What breaks the promise is late.

use std::fmt;

/// Event time in milliseconds up to which a stream is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Watermark(pub i64);

impl Watermark {
    /// Nothing is known yet.
    pub const MIN: Self = Self(i64::MIN);
    /// The input has ended: all of time has passed (TIM-14).
    pub const MAX: Self = Self(i64::MAX);

    /// Whether a row or timer at `millis` is at or behind this watermark.
    pub fn has_passed(self, millis: i64) -> bool {
        millis <= self.0
    }
}

impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MIN => f.write_str("min"),
            Self::MAX => f.write_str("max"),
            Self(millis) => write!(f, "{millis}"),
        }
    }
}

/// What the merge of several channels says after one of them spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// The merged watermark rose to this.
    Watermark(Watermark),
    /// All channels are idle now; if their maximum was ahead of the output, that watermark goes first.
    Idle(Option<Watermark>),
    /// A channel spoke again after all were idle; the merged watermark may rise with it.
    Active(Option<Watermark>),
}

/// The watermarks of several channels merged into one.
///
/// The output is the minimum over active and aligned channels and strictly increases. A channel that comes back from idleness
/// counts again only once its watermark has reached the output. When all are idle and the last one to go stood at the output,
/// the maximum over all channels is flushed before the merge turns idle.
///
/// ```
/// use tidemill_core::watermark::{Merged, Watermark, WatermarkMerge};
/// let mut merge = WatermarkMerge::new(2);
/// assert_eq!(merge.watermark(0, Watermark(10)), None);
/// assert_eq!(merge.watermark(1, Watermark(4)), Some(Merged::Watermark(Watermark(4))));
/// assert_eq!(merge.idle(1), Some(Merged::Watermark(Watermark(10))));
/// ```
#[derive(Clone, Debug)]
pub struct WatermarkMerge {
    channels: Vec<ChannelTime>,
    output: Watermark,
    idle: bool,
}

#[derive(Clone, Debug)]
struct ChannelTime {
    watermark: Watermark,
    state: ChannelState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChannelState {
    /// Counts in the minimum.
    Aligned,
    /// Back from idleness, still behind the output: does not count yet.
    CatchingUp,
    Idle,
    Ended,
}

impl WatermarkMerge {
    /// A merge of `channels` channels, all active and at the beginning of time.
    pub fn new(channels: usize) -> Self {
        let start = ChannelTime { watermark: Watermark::MIN, state: ChannelState::Aligned };
        Self { channels: vec![start; channels], output: Watermark::MIN, idle: false }
    }

    /// The merged watermark.
    pub fn output(&self) -> Watermark {
        self.output
    }

    /// One channel's own watermark.
    pub fn channel(&self, channel: usize) -> Watermark {
        self.channels[channel].watermark
    }

    /// `channel` reached `watermark`; a regression is ignored, and so is what an idle channel says.
    pub fn watermark(&mut self, channel: usize, watermark: Watermark) -> Option<Merged> {
        let output = self.output;
        let time = &mut self.channels[channel];
        if !time.is_active() || watermark <= time.watermark {
            return None;
        }
        time.watermark = watermark;
        if watermark >= output {
            time.state = ChannelState::Aligned;
        }
        self.advance().map(Merged::Watermark)
    }

    /// Every channel is known to have come to `watermark`, before any of them has said so: what a checkpoint knows of them.
    pub fn begin_at(&mut self, watermark: Watermark) -> Option<Merged> {
        for time in &mut self.channels {
            time.watermark = time.watermark.max(watermark);
            if time.state == ChannelState::CatchingUp && time.watermark >= self.output {
                time.state = ChannelState::Aligned;
            }
        }
        self.advance().map(Merged::Watermark)
    }

    /// `channel` has nothing to say for now.
    pub fn idle(&mut self, channel: usize) -> Option<Merged> {
        if !self.channels[channel].is_active() {
            return None;
        }
        self.channels[channel].state = ChannelState::Idle;
        if self.channels.iter().any(ChannelTime::is_active) {
            return self.advance().map(Merged::Watermark);
        }
        self.idle = true;
        let highest = self.channels.iter().map(|time| time.watermark).max().unwrap_or(Watermark::MIN);
        let flush = self.channels[channel].watermark == self.output && highest > self.output;
        if flush {
            self.output = highest;
        }
        Some(Merged::Idle(flush.then_some(highest)))
    }

    /// `channel` speaks again.
    pub fn active(&mut self, channel: usize) -> Option<Merged> {
        let time = &mut self.channels[channel];
        if time.state != ChannelState::Idle {
            return None;
        }
        time.state = if time.watermark >= self.output { ChannelState::Aligned } else { ChannelState::CatchingUp };
        let was_idle = std::mem::take(&mut self.idle);
        was_idle.then(|| Merged::Active(self.advance()))
    }

    /// `channel` has ended: it never holds others back again. When the last one ends, all of time has passed.
    pub fn end(&mut self, channel: usize) -> Option<Merged> {
        self.channels[channel].state = ChannelState::Ended;
        if self.channels.iter().all(|time| time.state == ChannelState::Ended) {
            let was_idle = std::mem::take(&mut self.idle);
            self.output = Watermark::MAX;
            let last = Watermark::MAX;
            return Some(if was_idle { Merged::Active(Some(last)) } else { Merged::Watermark(last) });
        }
        if self.channels.iter().any(ChannelTime::is_active) {
            return self.advance().map(Merged::Watermark);
        }
        let falls_asleep = !std::mem::replace(&mut self.idle, true);
        falls_asleep.then_some(Merged::Idle(None))
    }

    fn advance(&mut self) -> Option<Watermark> {
        let counted = self.channels.iter().filter(|time| time.state == ChannelState::Aligned);
        let lowest = counted.map(|time| time.watermark).min()?;
        (lowest > self.output).then(|| {
            self.output = lowest;
            lowest
        })
    }
}

impl ChannelTime {
    fn is_active(&self) -> bool {
        matches!(self.state, ChannelState::Aligned | ChannelState::CatchingUp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minimum_counts_and_never_falls() {
        let mut merge = WatermarkMerge::new(2);
        merge.watermark(0, Watermark(5));
        assert_eq!(merge.watermark(1, Watermark(7)), Some(Merged::Watermark(Watermark(5))));
        assert_eq!(merge.watermark(0, Watermark(3)), None);
        assert_eq!(merge.watermark(0, Watermark(9)), Some(Merged::Watermark(Watermark(7))));
    }

    #[test]
    fn a_channel_back_from_idleness_waits_until_it_caught_up() {
        let mut merge = WatermarkMerge::new(2);
        merge.watermark(0, Watermark(10));
        merge.idle(1);
        assert_eq!(merge.output(), Watermark(10));
        assert_eq!(merge.active(1), None);
        assert_eq!(merge.watermark(1, Watermark(4)), None);
        assert_eq!(merge.watermark(0, Watermark(20)), Some(Merged::Watermark(Watermark(20))));
        assert_eq!(merge.watermark(1, Watermark(20)), None);
        assert_eq!(merge.watermark(0, Watermark(30)), None);
        assert_eq!(merge.watermark(1, Watermark(25)), Some(Merged::Watermark(Watermark(25))));
    }

    #[test]
    fn when_all_sleep_the_maximum_is_flushed_once() {
        let mut merge = WatermarkMerge::new(2);
        merge.watermark(0, Watermark(10));
        merge.watermark(1, Watermark(4));
        merge.idle(0);
        assert_eq!(merge.idle(1), Some(Merged::Idle(Some(Watermark(10)))));
        assert_eq!(merge.idle(1), None);
        assert_eq!(merge.active(0), Some(Merged::Active(None)));
    }

    #[test]
    fn what_is_known_of_all_channels_is_there_at_once_and_lowers_none() {
        let mut merge = WatermarkMerge::new(2);
        merge.watermark(0, Watermark(10));
        assert_eq!(merge.begin_at(Watermark(5)), Some(Merged::Watermark(Watermark(5))));
        assert_eq!(merge.begin_at(Watermark(3)), None);
        assert_eq!(merge.watermark(1, Watermark(20)), Some(Merged::Watermark(Watermark(10))));
    }

    #[test]
    fn an_ended_channel_holds_nobody_back() {
        let mut merge = WatermarkMerge::new(2);
        merge.watermark(0, Watermark(10));
        assert_eq!(merge.end(1), Some(Merged::Watermark(Watermark(10))));
        assert_eq!(merge.end(0), Some(Merged::Watermark(Watermark::MAX)));
    }

    #[test]
    fn the_end_of_one_channel_does_not_speak_for_a_sleeping_one() {
        let mut merge = WatermarkMerge::new(2);
        merge.watermark(0, Watermark(10));
        merge.watermark(1, Watermark(4));
        merge.idle(1);
        assert_eq!(merge.end(0), Some(Merged::Idle(None)));
        assert_eq!(merge.active(1), Some(Merged::Active(None)));
        assert_eq!(merge.watermark(1, Watermark(12)), Some(Merged::Watermark(Watermark(12))));
    }
}
