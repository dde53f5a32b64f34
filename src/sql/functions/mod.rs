//! Functions that our SQL has beside DataFusion's.

pub mod date_format;
pub mod instant_of_clock;
pub mod not_null;
pub mod session_bound;
pub mod to_timestamp_ltz;
pub mod window_bound;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

/// Every function that a statement can name.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let mut functions: Vec<ScalarUDF> = window_bound::all().map(ScalarUDF::from).collect();
    functions.push(ScalarUDF::from(date_format::DateFormat::default()));
    functions.push(ScalarUDF::from(to_timestamp_ltz::ToTimestampLtz::default()));
    functions.into_iter().map(Arc::new).collect()
}
