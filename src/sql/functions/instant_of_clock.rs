//! The instant at which a clock of the session's zone shows a time: what a cast from `TIMESTAMP` to `TIMESTAMP_LTZ` is.
//!
//! Not a function that a statement can name: the planner puts it in. Arrow's own cast fails where a clock is put forward or back. Here
//! a time that occurs twice is the later one, and one that does not occur is the instant of the jump, as for the bounds of windows.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use tidemill_core::Error;
use tidemill_core::time::{Calendar, time_array, time_values};

/// The instant of `clock`, a `TIMESTAMP`, in `zone`.
pub fn instant_of_clock(clock: Expr, zone: &Arc<str>) -> Expr {
    let function = InstantOfClock { zone: zone.clone(), signature: Signature::any(1, Volatility::Immutable) };
    ScalarUDF::from(function).call(vec![clock])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct InstantOfClock {
    zone: Arc<str>,
    signature: Signature,
}

impl ScalarUDFImpl for InstantOfClock {
    fn name(&self) -> &str {
        "instant_of_clock"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [DataType::Timestamp(unit, None)] => Ok(instants(*unit)),
            _ => Err(external(Error::internal("the time of a clock is no TIMESTAMP"))),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let clock = args.args.first().ok_or_else(|| external(Error::internal("no time of a clock")))?;
        let DataType::Timestamp(unit, _) = clock.data_type() else {
            return Err(external(Error::internal("the time of a clock is no TIMESTAMP")));
        };
        let calendar = Calendar::parse(&self.zone).map_err(external)?;
        let array = clock.to_array(args.number_rows)?;
        let (values, nulls) = time_values(array.as_ref()).map_err(external)?;
        let values = values.iter().map(|value| calendar.to_instant(*value, unit)).collect();
        let array = time_array(&instants(unit), values, nulls.cloned()).map_err(external)?;
        match clock {
            ColumnarValue::Scalar(_) => ScalarValue::try_from_array(&array, 0).map(ColumnarValue::Scalar),
            ColumnarValue::Array(_) => Ok(ColumnarValue::Array(array)),
        }
    }
}

fn instants(unit: TimeUnit) -> DataType {
    DataType::Timestamp(unit, Some("UTC".into()))
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
