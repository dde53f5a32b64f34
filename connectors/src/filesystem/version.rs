//! What a file of a monitored directory was like when it was found. It goes with the positions in it, so that whoever
//! opens the file, also after a restore, sees whether it is still the same (SRC-09).
//!
//! ```text
//! 1234 of 5678,1795219200000000,1a2b-3c     position in the file, of size, time in microseconds, tag if there is one
//! start of 5678,1795219200000000            where nothing was read
//! ```

use object_store::ObjectMeta;
use serde::{Deserialize, Serialize};
use tidemill_core::error::{Error, Result};

use crate::store::Location;

/// Between a position and what its file was like.
const OF: &[u8] = b" of ";
/// The position before anything was read.
const START: &[u8] = b"start";

/// What a file was like when it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    size: u64,
    modified_micros: i64,
    tag: Option<String>,
}

impl Version {
    pub(super) fn of(file: &ObjectMeta) -> Self {
        let modified_micros = file.last_modified.timestamp_micros();
        Self { size: file.size, modified_micros, tag: file.e_tag.clone() }
    }

    /// That a file which is listed again has not changed.
    pub(super) fn check_listed(&self, now: &Self, file: &Location) -> Result<()> {
        if self == now { Ok(()) } else { Err(self.changed(now, file)) }
    }

    /// That a file which is opened is as it was listed. Stores do not speak of a file in a list as they do when asked
    /// for it alone: tags have quotes or not, times have parts of seconds or not. So the tag counts where there is one,
    /// else the second.
    pub(super) fn check_opened(&self, now: &Self, file: &Location) -> Result<()> {
        let is_same = self.size == now.size
            && match (&self.tag, &now.tag) {
                (Some(listed), Some(opened)) => listed.trim_matches('"') == opened.trim_matches('"'),
                _ => self.second() == now.second(),
            };
        if is_same { Ok(()) } else { Err(self.changed(now, file)) }
    }

    /// A position in this file, with what the file is like.
    pub(super) fn mark(&self, position: &[u8]) -> Vec<u8> {
        let Self { size, modified_micros, tag } = self;
        let tag = tag.as_ref().map_or_else(String::new, |tag| format!(",{tag}"));
        let position = if position.is_empty() { START } else { position };
        [position, OF, format!("{size},{modified_micros}{tag}").as_bytes()].concat()
    }

    /// What `mark` has put together. A position without a version is of a file that may change, or of an older
    /// checkpoint.
    pub(super) fn unmark(position: Vec<u8>) -> Result<(Vec<u8>, Option<Self>)> {
        let Some(at) = position.windows(OF.len()).position(|bytes| bytes == OF) else { return Ok((position, None)) };
        let version = std::str::from_utf8(&position[at + OF.len()..]).ok().and_then(Self::decode);
        let version = version.ok_or_else(|| {
            let position = String::from_utf8_lossy(&position);
            Error::corrupt(format!("position '{position}' does not say what its file was like"))
        })?;
        let position = if position[..at] == *START { Vec::new() } else { position[..at].to_vec() };
        Ok((position, Some(version)))
    }

    fn decode(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ',');
        let (size, modified_micros) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { size, modified_micros, tag: parts.next().map(str::to_owned) })
    }

    fn second(&self) -> i64 {
        self.modified_micros.div_euclid(1_000_000)
    }

    fn changed(&self, now: &Self, file: &Location) -> Error {
        let how = match (self.size == now.size, self.modified_micros == now.modified_micros) {
            (false, _) => format!("it had {} bytes and has {}", self.size, now.size),
            (true, false) => "it was written again".to_owned(),
            (true, true) => "it is another file".to_owned(),
        };
        Error::data(format!("{file} changed after it was found: {how}")).with_hint(
            "files of a monitored directory must not change: write them elsewhere or under a name that begins with '.', \
             then rename them",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(modified_micros: i64, tag: Option<&str>) -> Version {
        Version { size: 5, modified_micros, tag: tag.map(str::to_owned) }
    }

    #[test]
    fn positions_go_there_and_back() {
        for tag in [None, Some(""), Some("1a-2b-3c"), Some("\"a,b of c#d\"")] {
            for position in ["", "0", "1234"] {
                let marked = version(-7, tag).mark(position.as_bytes());
                assert!(std::str::from_utf8(&marked).is_ok());
                let expected = (position.as_bytes().to_vec(), Some(version(-7, tag)));
                assert_eq!(Version::unmark(marked).unwrap(), expected);
            }
        }
        assert_eq!(Version::unmark(b"1234".to_vec()).unwrap(), (b"1234".to_vec(), None));
        assert_eq!(Version::unmark(Vec::new()).unwrap(), (Vec::new(), None));
        for damaged in ["1 of ", "1 of 5", "1 of x,7", "start of 5,y,z"] {
            assert!(Version::unmark(damaged.as_bytes().to_vec()).is_err(), "{damaged}");
        }
    }

    #[test]
    fn a_file_is_the_same_however_its_store_speaks_of_it() {
        let file = Location::local("/data/f.csv").unwrap();
        let is_same = |listed: &Version, opened: &Version| listed.check_opened(opened, &file).is_ok();
        assert!(is_same(&version(1_500_000, Some("t")), &version(1_000_000, Some("\"t\""))));
        assert!(!is_same(&version(1_500_000, Some("t")), &version(1_500_000, Some("u"))));
        assert!(is_same(&version(1_500_000, None), &version(1_000_000, None)));
        assert!(!is_same(&version(1_500_000, None), &version(2_000_000, None)));
        assert!(!is_same(&Version { size: 6, ..version(0, Some("t")) }, &version(0, Some("t"))));
    }
}
