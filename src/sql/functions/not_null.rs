//! What a column that is declared `NOT NULL` asks of the rows written to it.

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use tidemill_core::Error;

/// Its argument, unless that is NULL: an error that names the sink's column.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct NotNull {
    column: String,
    signature: Signature,
}

/// `expr`, which must not be NULL in any row, for the sink's `column`.
pub fn not_null(expr: Expr, column: &str) -> Expr {
    let function = NotNull { column: column.to_owned(), signature: Signature::any(1, Volatility::Immutable) };
    ScalarUDF::from(function).call(vec![expr])
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
            true => {
                let error = Error::data(format!("NULL in column '{}' of the sink, which is NOT NULL", self.column))
                    .with_hint("filter such rows out, or use COALESCE");
                Err(DataFusionError::External(Box::new(error)))
            }
        }
    }
}
