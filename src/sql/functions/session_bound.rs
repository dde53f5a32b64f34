//! The bounds of a session, from its first and last row: what the bounded plan computes behind its window functions.

use std::fmt;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, TimeUnit};
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;
use tidemill_core::time::{Calendar, time_array};
use tidemill_exec::operators::window_assign::window_time;

use super::window_bound::Bound;

/// Turns an instant, a number in the time column's unit, into one bound of its session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionBound {
    bound: Bound,
    /// What is added to the last row's time.
    gap: i64,
    unit: TimeUnit,
    zone: String,
    result: DataType,
    signature: Signature,
}

/// `bound` of the session whose first (for the start) or last (for the others) row has the time `expr`.
pub fn session_bound(expr: Expr, bound: Bound, gap: i64, zone: &str, time_type: &DataType) -> Result<Expr> {
    let DataType::Timestamp(unit, _) = time_type else { return internal_err!("{time_type} is not a time") };
    let result = match bound {
        Bound::Start | Bound::End => DataType::Timestamp(*unit, None),
        Bound::RowTime => time_type.clone(),
    };
    let signature = Signature::exact(vec![DataType::Int64], Volatility::Immutable);
    let function = SessionBound { bound, gap, unit: *unit, zone: zone.to_owned(), result, signature };
    Ok(ScalarUDF::from(function).call(vec![expr]))
}

impl fmt::Display for SessionBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ScalarUDFImpl for SessionBound {
    fn name(&self) -> &str {
        match self.bound {
            Bound::Start => "session_window_start",
            Bound::End => "session_window_end",
            Bound::RowTime => "session_window_time",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(self.result.clone())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), self.result.clone(), false)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let times = args.args[0].to_array(args.number_rows)?;
        let calendar = Calendar::parse(&self.zone).map_err(external)?;
        let times = times.as_primitive::<Int64Type>();
        let bound = |time: i64| match self.bound {
            Bound::Start => calendar.to_local(time, self.unit),
            Bound::End => calendar.to_local(time.saturating_add(self.gap), self.unit),
            // The end is an instant here already; by way of the wall clock it would be lost where an hour occurs twice.
            Bound::RowTime => window_time(time.saturating_add(self.gap), self.unit, Calendar::Utc),
        };
        let values = times.values().iter().map(|time| bound(*time)).collect();
        time_array(&self.result, values, times.nulls().cloned()).map(ColumnarValue::Array).map_err(external)
    }
}

fn external(error: tidemill_core::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
