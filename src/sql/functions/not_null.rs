//! Values that must not be NULL: those of a sink's `NOT NULL` columns, and the times that windows are made of.

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use tidemill_core::Error;
use tidemill_exec::operators::window_assign::null_time;

/// Its argument, unless that is NULL: an error that names the column.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct NotNull {
    column: String,
    use_of_it: Use,
    signature: Signature,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Use {
    Sink,
    Time,
}

/// `expr`, which must not be NULL in any row, for the sink's `column`.
pub fn not_null(expr: Expr, column: &str) -> Expr {
    call(expr, column, Use::Sink)
}

/// `expr`, the time column `column` of a window, which must not be NULL in any row.
pub fn known_time(expr: Expr, column: &str) -> Expr {
    call(expr, column, Use::Time)
}

fn call(expr: Expr, column: &str, use_of_it: Use) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    ScalarUDF::from(NotNull { column: column.to_owned(), use_of_it, signature }).call(vec![expr])
}

impl NotNull {
    fn refusal(&self) -> Error {
        match self.use_of_it {
            Use::Sink => Error::data(format!("NULL in column '{}' of the sink, which is NOT NULL", self.column))
                .with_hint("filter such rows out, or use COALESCE"),
            Use::Time => null_time(&self.column),
        }
    }
}

impl ScalarUDFImpl for NotNull {
    fn name(&self) -> &str {
        "not_null"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        internal_err!("return_field_from_args is called instead")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match args.arg_fields {
            [field] => Ok(Arc::new(Field::new(self.name(), field.data_type().clone(), false))),
            _ => internal_err!("not_null takes one argument"),
        }
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let value = args.args.swap_remove(0);
        let nulls = match &value {
            ColumnarValue::Array(array) => array.logical_null_count() > 0,
            ColumnarValue::Scalar(scalar) => scalar.is_null(),
        };
        match nulls {
            false => Ok(value),
            true => Err(DataFusionError::External(Box::new(self.refusal()))),
        }
    }
}
