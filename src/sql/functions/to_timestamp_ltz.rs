//! `TO_TIMESTAMP_LTZ(n, precision)`: the instant `n` seconds (0) or milliseconds (3) after the epoch.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, TimestampMillisecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use tidemill_core::Error;

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ToTimestampLtz {
    signature: Signature,
}

impl Default for ToTimestampLtz {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ToTimestampLtz {
    fn name(&self) -> &str {
        "to_timestamp_ltz"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [number, precision] if number.is_numeric() && precision.is_integer() => Ok(result_type()),
            _ => Err(refuse("TO_TIMESTAMP_LTZ takes a number and a precision")),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [number, precision] = args.args.as_slice() else {
            return Err(refuse("TO_TIMESTAMP_LTZ takes a number and a precision"));
        };
        let scale = match precision {
            ColumnarValue::Scalar(precision) => match precision.cast_to(&DataType::Int64)? {
                ScalarValue::Int64(Some(0)) => 1_000,
                ScalarValue::Int64(Some(3)) => 1,
                _ => return Err(refuse("the precision of TO_TIMESTAMP_LTZ is neither 0 nor 3")),
            },
            ColumnarValue::Array(_) => return Err(refuse("the precision of TO_TIMESTAMP_LTZ is not a literal")),
        };
        let scalar = matches!(number, ColumnarValue::Scalar(_));
        let millis = to_millis(number.to_array(args.number_rows)?, scale)?;
        match scalar {
            true => ScalarValue::try_from_array(&millis, 0).map(ColumnarValue::Scalar),
            false => Ok(ColumnarValue::Array(millis)),
        }
    }
}

fn result_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

fn to_millis(numbers: ArrayRef, scale: i64) -> Result<ArrayRef> {
    let millis: TimestampMillisecondArray = if numbers.data_type().is_integer() {
        let numbers = cast(&numbers, &DataType::Int64)?;
        let scaled = |number: i64| {
            number.checked_mul(scale).ok_or_else(|| {
                arrow::error::ArrowError::ComputeError(format!("{number} is out of the range of TIMESTAMP_LTZ(3)"))
            })
        };
        numbers.as_primitive::<Int64Type>().try_unary(scaled)?
    } else {
        let numbers = cast(&numbers, &DataType::Float64)?;
        numbers.as_primitive::<Float64Type>().unary(|number| (number * scale as f64) as i64)
    };
    Ok(Arc::new(millis.with_timezone("UTC")))
}

fn refuse(message: &'static str) -> DataFusionError {
    let error = Error::request(message).with_hint("write TO_TIMESTAMP_LTZ(n, 0) for seconds, (n, 3) for milliseconds");
    DataFusionError::External(Box::new(error))
}
