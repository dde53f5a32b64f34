//! The arguments of windows: which column is the time, and interval literals as whole numbers of its unit.

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::Expr;
use tidemill_connectors::formats::text::{TextStyle, format_value};
use tidemill_core::Error;
use tidemill_core::time::per_second;
use tidemill_core::window::{WindowKind, WindowSpec};

use crate::sql::logical::window_assign::not_a_time;

/// The kinds of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowName {
    /// `TUMBLE`
    Tumble,
    /// `HOP`
    Hop,
    /// `CUMULATE`
    Cumulate,
    /// `SESSION`
    Session,
}

impl WindowName {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Tumble, Self::Hop, Self::Cumulate, Self::Session];

    /// Its name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tumble => "TUMBLE",
            Self::Hop => "HOP",
            Self::Cumulate => "CUMULATE",
            Self::Session => "SESSION",
        }
    }

    /// The kind called `name`, in any case.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|window| window.name().eq_ignore_ascii_case(name))
    }

    fn group_example(self) -> &'static str {
        match self {
            Self::Tumble => "write TUMBLE(ts, INTERVAL '1' MINUTE)",
            Self::Hop => "write HOP(ts, INTERVAL '1' MINUTE, INTERVAL '5' MINUTE)",
            Self::Cumulate => "write CUMULATE(ts, INTERVAL '1' MINUTE, INTERVAL '1' HOUR)",
            Self::Session => "write SESSION(ts, INTERVAL '1' MINUTE)",
        }
    }
}

/// A window as it was called, its arguments planned.
#[derive(Clone, Debug)]
pub struct WindowCall {
    /// What kind.
    pub name: WindowName,
    /// The time column.
    pub time: Expr,
    /// The lengths, in the order of SQL: slide or step before size.
    pub lengths: Vec<Expr>,
    /// By how much windows are moved.
    pub offset: Option<Expr>,
}

impl WindowCall {
    /// The window that `GROUP BY TUMBLE(args)` names.
    pub fn of_group(name: WindowName, args: &[Expr]) -> Result<Self> {
        let lengths = match name {
            WindowName::Tumble | WindowName::Session => 1,
            WindowName::Hop | WindowName::Cumulate => 2,
        };
        let Some((time, rest)) = args.split_first().filter(|(_, rest)| rest.len() == lengths) else {
            let message = format!("{} in GROUP BY has {} arguments", name.name(), args.len());
            return Err(external(Error::request(message).with_hint(name.group_example())));
        };
        Ok(Self { name, time: time.clone(), lengths: rest.to_vec(), offset: None })
    }

    /// The windows over the time column `time`.
    pub fn spec(&self, time: &Field) -> Result<WindowSpec> {
        let DataType::Timestamp(unit, _) = time.data_type() else {
            return Err(not_a_time(time.name(), time.data_type()));
        };
        let length = |place: usize, what: &str| match self.lengths.get(place) {
            Some(expr) => self.units(expr, what, *unit, time.name()),
            None => Err(DataFusionError::Internal(format!("{} without its {what}", self.name.name()))),
        };
        let kind = match self.name {
            WindowName::Tumble => WindowKind::Tumble { size: length(0, "size")? },
            WindowName::Hop => WindowKind::Hop { slide: length(0, "slide")?, size: length(1, "size")? },
            WindowName::Cumulate => WindowKind::Cumulate { step: length(0, "step")?, max: length(1, "size")? },
            WindowName::Session => WindowKind::Session { gap: length(0, "gap")? },
        };
        let offset = self.offset.as_ref().map(|offset| self.units(offset, "offset", *unit, time.name())).transpose()?;
        WindowSpec::new(kind, offset.unwrap_or(0)).map_err(external)
    }

    /// An interval literal in `unit`; it must come out whole.
    fn units(&self, expr: &Expr, what: &str, unit: TimeUnit, column: &str) -> Result<i64> {
        let of = format!("the {what} of {}", self.name.name());
        let nanos = interval_nanos(expr).ok_or_else(|| {
            let error = Error::request(format!("{of} is {}, not an interval of days or less", shown(expr)));
            external(error.with_hint("write INTERVAL '10' MINUTE"))
        })?;
        if nanos <= 0 && what != "offset" {
            let message = format!("{of} is {}, not a length", shown(expr));
            return Err(external(Error::request(message).with_hint("write INTERVAL '10' MINUTE")));
        }
        let unit_nanos = 1_000_000_000 / i128::from(per_second(unit));
        if nanos % unit_nanos != 0 {
            let message = format!("{of} is finer than the column '{column}', which counts {unit:?}s");
            return Err(external(Error::request(message).with_hint("declare the column with more digits")));
        }
        i64::try_from(nanos / unit_nanos).map_err(|_| external(Error::request(format!("{of} is out of range"))))
    }
}

/// An argument as people write it: DataFusion shows an interval by its fields.
fn shown(expr: &Expr) -> String {
    let value = |value: &ScalarValue| {
        let column = value.to_array().ok()?;
        format_value(column.as_ref(), 0, TextStyle::SHOWN).ok()
    };
    match expr {
        Expr::Literal(literal, _) => value(literal).unwrap_or_else(|| literal.to_string()),
        Expr::Negative(inner) => format!("-({})", shown(inner)),
        Expr::Alias(alias) => shown(&alias.expr),
        other => other.human_display().to_string(),
    }
}

/// The length of an interval literal; months have none.
fn interval_nanos(expr: &Expr) -> Option<i128> {
    const DAY_NANOS: i128 = 86_400_000_000_000;
    match expr {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) if interval.months == 0 => {
            Some(i128::from(interval.days) * DAY_NANOS + i128::from(interval.nanoseconds))
        }
        Expr::Literal(ScalarValue::IntervalDayTime(Some(interval)), _) => {
            Some(i128::from(interval.days) * DAY_NANOS + i128::from(interval.milliseconds) * 1_000_000)
        }
        Expr::Negative(inner) => interval_nanos(inner).map(|nanos| -nanos),
        Expr::Alias(alias) => interval_nanos(&alias.expr),
        _ => None,
    }
}

/// The place of the column that `expr` is; windows are over columns, not over expressions.
pub fn column_place(expr: &Expr, schema: &DFSchema, function: &str) -> Result<usize> {
    match expr {
        Expr::Column(column) => schema.index_of_column(column),
        other => {
            let error = Error::request(format!("{function} is over {other}, not over a column"))
                .with_hint("name it as a column in a view or subquery");
            Err(external(error))
        }
    }
}

pub(super) fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
