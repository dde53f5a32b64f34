//! Arguments of a program: `--input words.txt --port 9000 --verbose` (API-09).

use std::collections::BTreeMap;
use std::str::FromStr;

use tidemill_core::{Error, Result};

/// Named arguments, each with a value or none.
///
/// ```
/// use tidemill::stream::Parameters;
///
/// let parameters = Parameters::from_args(["--input", "words.txt", "--verbose", "--offset", "-5"])?;
/// assert_eq!(parameters.required("input")?, "words.txt");
/// assert!(parameters.has("verbose"));
/// assert_eq!(parameters.parsed("offset")?, Some(-5));
/// assert_eq!(parameters.get("output"), None);
/// # Ok::<(), tidemill_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    values: BTreeMap<String, String>,
}

impl Parameters {
    /// The arguments of this process.
    pub fn from_process() -> Result<Self> {
        Self::from_args(std::env::args().skip(1))
    }

    /// `--key value`, `--key=value`, or `--key` alone; `-key` is as good. The last value of a key counts.
    pub fn from_args(args: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        let mut values = BTreeMap::new();
        let mut args = args.into_iter().map(Into::into).peekable();
        while let Some(arg) = args.next() {
            let key = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')).filter(|key| !key.is_empty());
            let Some(key) = key else {
                return Err(Error::request(format!("'{arg}' is no named argument")).with_hint("write --key value"));
            };
            let (key, value) = match key.split_once('=') {
                Some((key, value)) => (key, value.to_owned()),
                None => (key, args.next_if(|next| is_value(next)).unwrap_or_default()),
            };
            values.insert(key.to_owned(), value);
        }
        Ok(Self { values })
    }

    /// Lines of `key = value` or `key: value`; `#` and `!` begin comments.
    pub fn from_properties(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
        let values = lines.map(|line| {
            let (key, value) = line.split_once(['=', ':']).unwrap_or((line, ""));
            (key.trim().to_owned(), value.trim().to_owned())
        });
        Self { values: values.collect() }
    }

    /// These arguments and `others`, which count where both have a key.
    #[must_use]
    pub fn merged_with(mut self, others: Self) -> Self {
        self.values.extend(others.values);
        self
    }

    /// All keys and their values.
    pub(super) fn values(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    /// Whether the key was given, with a value or without.
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The value of a key; empty if it was given without one.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// The value of a key, or an error that names it.
    pub fn required(&self, key: &str) -> Result<&str> {
        let value = self.get(key).filter(|value| !value.is_empty());
        value.ok_or_else(|| Error::request(format!("argument --{key} is missing")))
    }

    /// The value of a key as a number or anything else that can be read from text.
    pub fn parsed<T: FromStr>(&self, key: &str) -> Result<Option<T>> {
        let wrong = |value: &str| Error::request(format!("--{key} {value} is no {}", std::any::type_name::<T>()));
        self.get(key).map(|value| value.parse().map_err(|_| wrong(value))).transpose()
    }
}

impl From<&BTreeMap<String, String>> for Parameters {
    fn from(values: &BTreeMap<String, String>) -> Self {
        Self { values: values.clone() }
    }
}

/// What follows a key is its value, unless it is a key itself; negative numbers are none.
fn is_value(text: &str) -> bool {
    !text.starts_with('-') || text.len() == 1 || text.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_in_every_form() {
        let given = Parameters::from_args(["--a", "1", "-b", "--c=x=y", "--a", "2", "--d", "-0.5"]).unwrap();
        assert_eq!((given.get("a"), given.get("b"), given.get("c")), (Some("2"), Some(""), Some("x=y")));
        assert_eq!(given.parsed::<f64>("d").unwrap(), Some(-0.5));
        assert!(given.parsed::<u8>("d").unwrap_err().to_string().contains("--d -0.5"));
        assert!(Parameters::from_args(["words.txt"]).unwrap_err().to_string().contains("words.txt"));
    }

    #[test]
    fn arguments_win_over_a_file() {
        let file = Parameters::from_properties("# where\ninput = a.txt\noutput: b.txt\n");
        let merged = file.merged_with(Parameters::from_args(["--input", "c.txt"]).unwrap());
        assert_eq!((merged.get("input"), merged.get("output")), (Some("c.txt"), Some("b.txt")));
    }
}
