//! `TUMBLE_START(ts, INTERVAL '1' HOUR)` and its kin: names of a group window's bounds.
//!
//! They are planned, never run: `logical::group_window` turns them into columns of the window.

use std::fmt;

use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use crate::sql::logical::window_assign::not_a_time;
use crate::sql::planner::window::WindowName;

/// Which bound of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    /// `_START`
    Start,
    /// `_END`
    End,
    /// `_ROWTIME`
    RowTime,
}

impl Bound {
    /// How the function's name ends.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Start => "START",
            Self::End => "END",
            Self::RowTime => "ROWTIME",
        }
    }
}

/// The function of one bound of one kind of window.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WindowBound {
    window: WindowName,
    bound: Bound,
    name: String,
    signature: Signature,
}

/// All of them.
pub fn all() -> impl Iterator<Item = WindowBound> {
    WindowName::ALL.into_iter().flat_map(|window| {
        [Bound::Start, Bound::End, Bound::RowTime].map(|bound| {
            let name = format!("{}_{}", window.name(), bound.suffix()).to_ascii_lowercase();
            WindowBound { window, bound, name, signature: Signature::variadic_any(Volatility::Immutable) }
        })
    })
}

impl WindowBound {
    /// Of which window.
    pub fn window(&self) -> WindowName {
        self.window
    }

    /// Which bound.
    pub fn bound(&self) -> Bound {
        self.bound
    }
}

impl fmt::Display for WindowBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.window.name(), self.bound.suffix())
    }
}

impl ScalarUDFImpl for WindowBound {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types.first() {
            Some(time @ DataType::Timestamp(unit, _)) => Ok(match self.bound {
                Bound::Start | Bound::End => DataType::Timestamp(*unit, None),
                Bound::RowTime => time.clone(),
            }),
            Some(other) => Err(not_a_time(&format!("the first argument of {self}"), other)),
            None => Err(DataFusionError::Plan(format!("{self} has no arguments"))),
        }
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::Internal(format!("{self} was called instead of planned")))
    }
}
