//! The one public error: a kind that says what the caller can do, a message that names the thing and the value, a hint, a source.
//!
//! Messages are lowercase fragments without a full stop. What to do about it stands in the hint, apart from the message, so
//! that a front end can print both on one line (`message; hint`) or on two.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// What the caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The query, a setting or a program is wrong; change it.
    Request,
    /// The data does not fit what was declared about it; mend the data or the declaration.
    Data,
    /// A file, store or peer is missing or away; retry later or point elsewhere.
    Unavailable,
    /// A budget (memory, disk, slots) is used up; raise it or ask for less.
    Exhausted,
    /// Stored bytes are not what was written; restore or repair.
    Corrupt,
    /// Someone asked for the work to stop.
    Cancelled,
    /// Our bug; report it.
    Internal,
}

/// `Result` with tidemill's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that can be cloned, so that the first failure of a job reaches everyone who waits for it.
///
/// ```
/// use tidemill_core::{Error, ErrorKind};
/// let error = Error::request("unknown option 'pth' of connector 'filesystem'").with_hint("did you mean 'path'?");
/// assert_eq!(error.kind(), ErrorKind::Request);
/// assert_eq!(error.to_string(), "unknown option 'pth' of connector 'filesystem'; did you mean 'path'?");
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` whose `message` names the thing and the value.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), hint: None, source: None }))
    }

    /// The query, a setting or a program is wrong.
    pub fn request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Request, message)
    }

    /// The data does not fit what was declared about it.
    pub fn data(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// A file, store or peer is missing or away.
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// A budget is used up.
    pub fn exhausted(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Exhausted, message)
    }

    /// Stored bytes are not what was written.
    pub fn corrupt(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// Someone asked for the work to stop.
    pub fn cancelled(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Cancelled, message)
    }

    /// Our bug.
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The same error with a hint: what to do about it.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner { hint: Some(hint.into()), ..self.into_inner() }))
    }

    /// The same error with the error that caused it.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let source: Box<dyn std::error::Error + Send + Sync> = source.into();
        Self(Arc::new(Inner { source: Some(source.into()), ..self.into_inner() }))
    }

    /// The same error with `context` (for example a file or an operator) in front of its message.
    #[must_use]
    pub fn context(self, context: impl fmt::Display) -> Self {
        let inner = self.into_inner();
        Self(Arc::new(Inner { message: format!("{context}: {}", inner.message).into(), ..inner }))
    }

    /// The same error under the name of the operator and subtask that failed, behind the message, where a reader looks last.
    #[must_use]
    pub fn in_operator(self, label: &str) -> Self {
        let inner = self.into_inner();
        Self(Arc::new(Inner { message: format!("{} (in {label})", inner.message).into(), ..inner }))
    }

    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message without its hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    fn into_inner(self) -> Inner {
        Arc::try_unwrap(self.0).unwrap_or_else(|shared| (*shared).clone())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match &self.0.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)?;
        match &self.0.source {
            Some(source) => write!(f, " (caused by: {source})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<arrow::error::ArrowError> for Error {
    /// Arrow's compute errors come from values (overflow, bad casts); its I/O errors from files.
    fn from(error: arrow::error::ArrowError) -> Self {
        use arrow::error::ArrowError as A;
        let kind = match &error {
            A::IoError(..) => ErrorKind::Unavailable,
            A::ExternalError(source) => match source.downcast_ref::<Error>() {
                Some(inner) => return inner.clone(),
                None => ErrorKind::Internal,
            },
            A::MemoryError(_) => ErrorKind::Exhausted,
            A::IpcError(_) => ErrorKind::Corrupt,
            A::CDataInterface(_) | A::NotYetImplemented(_) | A::SchemaError(_) => ErrorKind::Internal,
            _ => ErrorKind::Data,
        };
        Self::new(kind, error.to_string()).with_source(error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
            _ => ErrorKind::Unavailable,
        };
        let plain = Self::new(kind, error.to_string());
        let plain = if kind == ErrorKind::Exhausted { plain.with_hint(FREE_SPACE) } else { plain };
        plain.with_source(error)
    }
}

/// What to do about a full disk, as far as is known without its use.
pub const FREE_SPACE: &str = "free some space there, or write elsewhere";

/// The known name nearest to `name`, if one is near enough to be a likely slip.
///
/// ```
/// # use tidemill_core::error::nearest;
/// assert_eq!(nearest("filesytem", ["kafka", "filesystem"]), Some("filesystem"));
/// assert_eq!(nearest("qqq", ["kafka", "filesystem"]), None);
/// ```
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let score = |candidate: &str| strsim::jaro_winkler(&name, &candidate.to_lowercase());
    known
        .into_iter()
        .map(|candidate| (score(candidate), candidate))
        .filter(|(score, _)| *score > 0.78)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, candidate)| candidate)
}

/// The place of `name` among `names`, without regard to case where that is unique; else a hint.
///
/// ```
/// # use tidemill_core::error::find_name;
/// assert_eq!(find_name("Id", &["id", "name"]), Ok(0));
/// assert_eq!(find_name("Id", &["id", "ID"]), Err("it could be id or ID".to_owned()));
/// ```
pub fn find_name(name: &str, names: &[&str]) -> Result<usize, String> {
    if let Some(exact) = names.iter().position(|known| *known == name) {
        return Ok(exact);
    }
    let lower = name.to_lowercase();
    let similar: Vec<usize> = (0..names.len()).filter(|place| names[*place].to_lowercase() == lower).collect();
    match similar.as_slice() {
        [place] => Ok(*place),
        [] => match nearest(name, names.iter().copied()) {
            Some(near) => Err(format!("did you mean '{near}'?")),
            None => Err(format!("known: {}", names.join(", "))),
        },
        several => {
            let several: Vec<&str> = several.iter().map(|place| names[*place]).collect();
            Err(format!("it could be {}", several.join(" or ")))
        }
    }
}

/// The error for a name that is not in a list: it names the kind of thing, the name, and the nearest known one.
pub fn unknown<'a>(thing: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
    let known: Vec<&str> = known.into_iter().collect();
    let error = Error::request(format!("unknown {thing} '{name}'"));
    match nearest(name, known.iter().copied()) {
        Some(near) => error.with_hint(format!("did you mean '{near}'?")),
        None => error.with_hint(format!("known: {}", known.join(", "))),
    }
}
