//! The options of a table, typed: every key is read by name, and a key that nobody read is an error.
//!
//! Connector and format take what they know through the getters; [`Options::finish`] then refuses the rest and names the
//! nearest key that somebody asked for. So no list of known keys has to be kept beside the code that reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use tidemill_core::error::{self, Error, Result};

/// The key that names the connector; read by the registry.
pub const CONNECTOR: &str = "connector";

/// The options of one table.
///
/// ```
/// use tidemill_connectors::Options;
/// let mut options = Options::new([("connector", "filesystem"), ("pth", "flights.csv")]);
/// options.optional("path");
/// assert_eq!(
///     options.finish().unwrap_err().to_string(),
///     "unknown option 'pth' of connector 'filesystem'; did you mean 'path'?",
/// );
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    connector: String,
    entries: BTreeMap<String, String>,
    asked: BTreeSet<String>,
}

impl Options {
    /// The options of a table as they stand in its `WITH` clause.
    pub fn new<K: Into<String>, V: Into<String>>(entries: impl IntoIterator<Item = (K, V)>) -> Self {
        let entries: BTreeMap<String, String> =
            entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        let connector = entries.get(CONNECTOR).cloned().unwrap_or_default();
        Self { connector, entries, asked: BTreeSet::from([CONNECTOR.to_owned()]) }
    }

    /// The value of `'connector'`; empty if the table has none.
    pub fn connector(&self) -> &str {
        &self.connector
    }

    /// The value of `key`, if the table sets it.
    pub fn optional(&mut self, key: &str) -> Option<String> {
        self.asked.insert(key.to_owned());
        self.entries.get(key).cloned()
    }

    /// The value of `key`, or an error that names what is missing.
    pub fn required(&mut self, key: &str) -> Result<String> {
        self.optional(key).ok_or_else(|| {
            // A slip in the key of an option that must be there is the likelier mistake.
            let mut unasked = self.entries.keys().map(String::as_str).filter(|other| !self.asked.contains(*other));
            match unasked.find(|other| error::nearest(other, [key]).is_some()) {
                Some(slip) => self.unknown(slip).with_hint(format!("did you mean '{key}'?")),
                None => Error::request(format!("connector '{}' needs option '{key}'", self.connector))
                    .with_hint(format!("add '{key}' = '…' to WITH")),
            }
        })
    }

    fn unknown(&self, key: &str) -> Error {
        Error::request(format!("unknown option '{key}' of connector '{}'", self.connector))
    }

    /// The value of `key` as a `T`; `what` says in the error what was expected.
    pub fn parsed<T: FromStr>(&mut self, key: &str, what: &str) -> Result<Option<T>> {
        let Some(value) = self.optional(key) else { return Ok(None) };
        value.trim().parse().map(Some).map_err(|_| bad_value(key, &value, what))
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.optional(key) else { return Ok(default) };
        match value.trim().to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(bad_value(key, &value, "true or false")),
        }
    }

    /// A duration such as `100 ms`.
    pub fn duration(&mut self, key: &str) -> Result<Option<Duration>> {
        let Some(value) = self.optional(key) else { return Ok(None) };
        parse_duration(&value).map(Some).ok_or_else(|| bad_value(key, &value, "a duration such as 100 ms or 3 s"))
    }

    /// A size such as `64 mb`, in bytes.
    pub fn bytes(&mut self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.optional(key) else { return Ok(None) };
        match tidemill_core::settings::parse_bytes(&value) {
            Ok(bytes) => Ok(Some(bytes as u64)),
            Err(_) => Err(bad_value(key, &value, "a size such as 512k, 64 mb or 2g")),
        }
    }

    /// One ASCII character; `\t` and the like may be spelled out.
    pub fn character(&mut self, key: &str) -> Result<Option<u8>> {
        let Some(value) = self.optional(key) else { return Ok(None) };
        match unescape(&value).as_bytes() {
            [character] if character.is_ascii() && !matches!(character, b'\n' | b'\r') => Ok(Some(*character)),
            _ => Err(bad_value(key, &value, "one ASCII character")),
        }
    }

    /// One of several names, read without regard to case.
    pub fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>> {
        let Some(value) = self.optional(key) else { return Ok(None) };
        let chosen = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(value.trim()));
        chosen.map(|(_, choice)| Some(*choice)).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            bad_value(key, &value, &names.join(", "))
        })
    }

    /// The keys that were asked for so far.
    #[cfg(test)]
    pub(crate) fn asked(&self) -> impl Iterator<Item = &str> {
        self.asked.iter().map(String::as_str)
    }

    /// Refuses keys that nobody read.
    pub fn finish(self) -> Result<()> {
        match self.entries.keys().find(|key| !self.asked.contains(*key)) {
            None => Ok(()),
            Some(key) => {
                let hint = error::unknown("option", key, self.asked.iter().map(String::as_str));
                Err(self.unknown(key).with_hint(hint.hint().unwrap_or_default().to_owned()))
            }
        }
    }
}

/// The error for a value that an option cannot have.
pub fn bad_value(key: &str, value: &str, expected: &str) -> Error {
    Error::request(format!("option '{key}' is '{value}'")).with_hint(format!("expected {expected}"))
}

/// Reads `100 ms`, `3 s`, `1 min`, `2 h`, `1 d` and their long forms; a bare number counts milliseconds.
///
/// ```
/// # use tidemill_connectors::options::parse_duration;
/// # use std::time::Duration;
/// assert_eq!(parse_duration("3 s"), Some(Duration::from_secs(3)));
/// assert_eq!(parse_duration("1.5h"), None);
/// ```
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let count: u64 = text[..digits].parse().ok()?;
    let nanos = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "ns" | "nano" | "nanosecond" | "nanoseconds" => 1,
        "us" | "µs" | "micro" | "microsecond" | "microseconds" => 1_000,
        "" | "ms" | "milli" | "millisecond" | "milliseconds" => 1_000_000,
        "s" | "sec" | "second" | "seconds" => 1_000_000_000,
        "m" | "min" | "minute" | "minutes" => 60_000_000_000,
        "h" | "hour" | "hours" => 3_600_000_000_000,
        "d" | "day" | "days" => 86_400_000_000_000,
        _ => return None,
    };
    Some(Duration::from_nanos(count.checked_mul(nanos)?))
}

/// Replaces the escapes that people write for characters they cannot type: `\t`, `\n`, `\r`, `\0`, `\\`.
pub(crate) fn unescape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            result.push(character);
            continue;
        }
        match characters.next() {
            Some('t') => result.push('\t'),
            Some('n') => result.push('\n'),
            Some('r') => result.push('\r'),
            Some('0') => result.push('\0'),
            Some(other) => result.push(other),
            None => result.push('\\'),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_name_option_and_value() {
        let mut options = Options::new([("csv.header", "maybe"), ("rows", "x"), ("csv.field-delimiter", ";;")]);
        let message = |error: Error| error.to_string();
        assert_eq!(
            message(options.flag("csv.header", false).unwrap_err()),
            "option 'csv.header' is 'maybe'; expected true or false"
        );
        assert_eq!(
            message(options.parsed::<u64>("rows", "a number").unwrap_err()),
            "option 'rows' is 'x'; expected a number"
        );
        assert!(options.character("csv.field-delimiter").is_err());
    }

    #[test]
    fn a_tab_can_be_spelled_out() {
        let mut options = Options::new([("a", "\\t"), ("b", "\t"), ("c", "\\")]);
        assert_eq!(options.character("a").unwrap(), Some(b'\t'));
        assert_eq!(options.character("b").unwrap(), Some(b'\t'));
        assert_eq!(options.character("c").unwrap(), Some(b'\\'));
    }

    #[test]
    fn a_slip_in_a_key_that_must_be_there_is_named() {
        let mut options = Options::new([("connector", "filesystem"), ("pth", "x"), ("format", "csv")]);
        let error = options.required("path").unwrap_err();
        assert_eq!(error.to_string(), "unknown option 'pth' of connector 'filesystem'; did you mean 'path'?");
        let error = options.required("hostname").unwrap_err();
        assert_eq!(error.to_string(), "connector 'filesystem' needs option 'hostname'; add 'hostname' = '…' to WITH");
    }

    #[test]
    fn what_was_read_is_known() {
        let mut options = Options::new([("connector", "print"), ("print-identifier", "x")]);
        options.optional("print-identifier");
        assert!(options.finish().is_ok());
    }
}
