//! Names of splits: `path`, or `path#start-end` for a range of bytes.

use std::sync::Arc;

use tidemill_core::error::{Error, Result};

/// What a split's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SplitName {
    pub(super) path: String,
    pub(super) start: u64,
    pub(super) end: Option<u64>,
}

impl SplitName {
    /// The ranges of a file, each but the last `piece_bytes` long.
    pub(super) fn pieces(path: &str, size: u64, piece_bytes: u64) -> Vec<Self> {
        let pieces = size.div_ceil(piece_bytes.max(1)).max(1);
        let piece = |at: u64| Self {
            path: path.to_owned(),
            start: at * piece_bytes,
            end: (at + 1 < pieces).then_some((at + 1) * piece_bytes),
        };
        (0..pieces).map(piece).collect()
    }

    pub(super) fn encode(&self) -> Arc<str> {
        match (self.start, self.end) {
            // A `#` of the path itself must not be taken for ours.
            (0, None) if !self.path.contains('#') => self.path.as_str().into(),
            (start, None) => format!("{}#{start}-", self.path).into(),
            (start, Some(end)) => format!("{}#{start}-{end}", self.path).into(),
        }
    }

    pub(super) fn decode(name: &str) -> Result<Self> {
        let Some((path, range)) = name.rsplit_once('#') else {
            return Ok(Self { path: name.to_owned(), start: 0, end: None });
        };
        let bad = || Error::corrupt(format!("split '{name}' has no range of bytes behind its '#'"));
        let (start, end) = range.split_once('-').ok_or_else(bad)?;
        let start = start.parse().map_err(|_| bad())?;
        let end = if end.is_empty() { None } else { Some(end.parse().map_err(|_| bad())?) };
        Ok(Self { path: path.to_owned(), start, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for path in ["data/a.csv", "data/a#1-2.csv", "a#0-5"] {
            for name in SplitName::pieces(path, 25, 10) {
                assert_eq!(SplitName::decode(&name.encode()).unwrap(), name);
            }
            let whole = SplitName::pieces(path, 0, u64::MAX);
            assert_eq!(SplitName::decode(&whole[0].encode()).unwrap(), whole[0]);
        }
        assert!(SplitName::decode("a#b").is_err());
    }

    #[test]
    fn pieces_cover_the_file() {
        let names: Vec<_> = SplitName::pieces("f", 25, 10).iter().map(SplitName::encode).collect();
        assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["f#0-10", "f#10-20", "f#20-"]);
    }
}
