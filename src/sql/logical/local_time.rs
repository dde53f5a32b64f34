//! Instants (`TIMESTAMP_LTZ`) read by the clock of `table.local-time-zone`.
//!
//! A column of instants has the type of UTC whatever the zone, so that its values need no work when the zone changes. What reads a
//! calendar or a clock off an instant, or makes one of them, gets it in the session's zone here: casts to and from `DATE`, `TIME`,
//! `TIMESTAMP` and text, and functions such as `EXTRACT` and `DATE_TRUNC`.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::functions::expr_fn::to_local_time;
use datafusion::logical_expr::expr::{BinaryExpr, Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, binary_expr, cast};
use datafusion::optimizer::AnalyzerRule;

use crate::sql::functions::instant_of_clock::instant_of_clock;

/// The zone of the type of instants.
const UTC: &str = "UTC";

/// Functions that read a clock off their arguments.
const CLOCK_READERS: [&str; 6] = ["date_part", "date_trunc", "to_char", "date_format", "to_date", "to_time"];

/// The rule; it comes after types have been made to fit.
#[derive(Debug)]
pub struct LocalTime;

impl AnalyzerRule for LocalTime {
    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        match &config.execution.time_zone {
            Some(zone) if !zone.eq_ignore_ascii_case(UTC) => in_zone(plan, &Arc::from(zone.as_str())),
            _ => Ok(plan),
        }
    }

    fn name(&self) -> &str {
        "local_time"
    }
}

fn in_zone(plan: LogicalPlan, zone: &Arc<str>) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|plan| {
        let mut schema = DFSchema::empty();
        plan.inputs().iter().for_each(|input| schema.merge(input.schema()));
        if let LogicalPlan::TableScan(scan) = &plan {
            schema.merge(&scan.projected_schema);
        }
        let names = NamePreserver::new(&plan);
        let rewritten = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|expr| read_locally(expr, &schema, zone))?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })?;
        match rewritten.transformed {
            true => rewritten.map_data(LogicalPlan::recompute_schema),
            false => Ok(rewritten),
        }
    });
    Ok(rewritten?.data)
}

fn read_locally(expr: Expr, schema: &DFSchema, zone: &Arc<str>) -> Result<Transformed<Expr>> {
    let local = |unit: TimeUnit| DataType::Timestamp(unit, Some(zone.clone()));
    match expr {
        Expr::Cast(Cast { expr: inner, field }) => {
            let from = inner.get_type(schema)?;
            let inner = local_cast(*inner, &from, field.data_type(), zone);
            Ok(inner.update_data(|inner| Expr::Cast(Cast { expr: Box::new(inner), field })))
        }
        Expr::TryCast(TryCast { expr: inner, field }) => {
            let from = inner.get_type(schema)?;
            let inner = local_cast(*inner, &from, field.data_type(), zone);
            Ok(inner.update_data(|inner| Expr::TryCast(TryCast { expr: Box::new(inner), field })))
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) if CLOCK_READERS.contains(&func.name()) => {
            let mut reads = false;
            let mut local_args = Vec::with_capacity(args.len());
            for arg in args {
                local_args.push(match instant(&arg.get_type(schema)?) {
                    Some(unit) => {
                        reads = true;
                        cast(arg, local(unit))
                    }
                    None => arg,
                });
            }
            let call = Expr::ScalarFunction(ScalarFunction { func, args: local_args });
            if !reads {
                return Ok(Transformed::no(call));
            }
            Ok(Transformed::yes(match call.get_type(schema)? {
                DataType::Timestamp(unit, Some(_)) => cast(call, DataType::Timestamp(unit, Some(UTC.into()))),
                _ => call,
            }))
        }
        Expr::ScalarFunction(ScalarFunction { func, mut args }) if func.name() == "date_bin" => {
            let unit = match args.get(1).map(|time| time.get_type(schema)).transpose()? {
                Some(data_type) => instant(&data_type),
                None => None,
            };
            let Some(unit) = unit else {
                return Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args })));
            };
            for arg in &mut args[1..] {
                if let Some(unit) = instant(&arg.get_type(schema)?) {
                    *arg = clock_of(std::mem::take(arg), unit, zone);
                }
            }
            let binned = cast(Expr::ScalarFunction(ScalarFunction { func, args }), DataType::Timestamp(unit, None));
            Ok(Transformed::yes(instant_of_clock(binned, zone)))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right })
            if has_days(&right) =>
        {
            let Some(unit) = instant(&left.get_type(schema)?) else {
                return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            };
            let moved = binary_expr(clock_of(*left, unit, zone), op, *right);
            Ok(Transformed::yes(instant_of_clock(cast(moved, DataType::Timestamp(unit, None)), zone)))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// What stands for a value that is cast from one of these types to the other.
fn local_cast(inner: Expr, from: &DataType, to: &DataType, zone: &Arc<str>) -> Transformed<Expr> {
    use DataType::{Date32, Date64, LargeUtf8, Time32, Time64, Timestamp, Utf8, Utf8View};
    let local = |unit: TimeUnit| Timestamp(unit, Some(zone.clone()));
    let cast_inner = match (instant(from), instant(to), from, to) {
        (Some(unit), None, _, Timestamp(_, None) | Date32 | Date64 | Time32(_) | Time64(_)) => {
            clock_of(inner, unit, zone)
        }
        (Some(unit), None, _, Utf8 | LargeUtf8 | Utf8View) => cast(inner, local(unit)),
        (None, Some(_), Timestamp(_, None), _) => instant_of_clock(inner, zone),
        (None, Some(unit), Date32 | Date64, _) => instant_of_clock(cast(inner, Timestamp(unit, None)), zone),
        (None, Some(unit), Utf8 | LargeUtf8 | Utf8View, _) => cast(inner, local(unit)),
        _ => return Transformed::no(inner),
    };
    Transformed::yes(cast_inner)
}

/// What a clock of the zone shows at an instant.
fn clock_of(instant: Expr, unit: TimeUnit, zone: &Arc<str>) -> Expr {
    to_local_time(vec![cast(instant, DataType::Timestamp(unit, Some(zone.clone())))])
}

/// Whether an interval has days or months: they are of the clock, shorter ones are of time itself.
fn has_days(interval: &Expr) -> bool {
    match interval {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) => {
            interval.months != 0 || interval.days != 0
        }
        Expr::Literal(ScalarValue::IntervalDayTime(Some(interval)), _) => interval.days != 0,
        Expr::Literal(ScalarValue::IntervalYearMonth(_), _) => true,
        _ => false,
    }
}

/// The unit of a type of instants.
fn instant(data_type: &DataType) -> Option<TimeUnit> {
    match data_type {
        DataType::Timestamp(unit, Some(zone)) if &**zone == UTC => Some(*unit),
        _ => None,
    }
}
