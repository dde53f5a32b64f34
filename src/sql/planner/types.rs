//! The types that casts and literals name, as the parser knows them.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::DataType as SqlDataType;

use crate::sql::parser::sql_type_of;

/// Plans Flink's types; the rest is DataFusion's.
#[derive(Debug)]
pub struct SqlTypes;

impl TypePlanner for SqlTypes {
    fn plan_type_field(&self, sql_type: &SqlDataType) -> Result<Option<FieldRef>> {
        Ok(sql_type_of(sql_type).map(|sql_type| Arc::new(Field::new("", sql_type.to_arrow(), true))))
    }
}
