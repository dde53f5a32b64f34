//! Walks over sqlparser's trees, compiled once.
//!
//! Its `visit` is generic over the visitor, and each type of visitor would compile the traversal of the whole syntax again: some
//! thousand functions. Here all of them are called through one type.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, ObjectName, Query, Select, Statement, TableFactor, ValueWithSpan, Visit, VisitMut, Visitor, VisitorMut,
};

/// Shows every node of `query` to `visitor`, until it breaks off.
pub fn walk(query: &Query, visitor: &mut dyn Visitor<Break = ()>) {
    let _ = Visit::visit(query, &mut Dispatch(visitor));
}

/// Shows every node of `query` to `visitor`, which may change it, until it breaks off.
pub fn walk_mut(query: &mut Query, visitor: &mut dyn VisitorMut<Break = ()>) {
    let _ = VisitMut::visit(query, &mut DispatchMut(visitor));
}

/// Shows every node of `expr` to `visitor`, which may change it, until it breaks off.
pub fn walk_expr_mut(expr: &mut Expr, visitor: &mut dyn VisitorMut<Break = ()>) {
    let _ = VisitMut::visit(expr, &mut DispatchMut(visitor));
}

struct Dispatch<'a>(&'a mut dyn Visitor<Break = ()>);

struct DispatchMut<'a>(&'a mut dyn VisitorMut<Break = ()>);

macro_rules! dispatch {
    ($($method:ident: $node:ty),* $(,)?) => {
        impl Visitor for Dispatch<'_> {
            type Break = ();

            $(fn $method(&mut self, node: &$node) -> ControlFlow<()> {
                self.0.$method(node)
            })*
        }

        impl VisitorMut for DispatchMut<'_> {
            type Break = ();

            $(fn $method(&mut self, node: &mut $node) -> ControlFlow<()> {
                self.0.$method(node)
            })*
        }
    };
}

dispatch! {
    pre_visit_query: Query,
    post_visit_query: Query,
    pre_visit_select: Select,
    post_visit_select: Select,
    pre_visit_relation: ObjectName,
    post_visit_relation: ObjectName,
    pre_visit_table_factor: TableFactor,
    post_visit_table_factor: TableFactor,
    pre_visit_expr: Expr,
    post_visit_expr: Expr,
    pre_visit_statement: Statement,
    post_visit_statement: Statement,
    pre_visit_value: ValueWithSpan,
    post_visit_value: ValueWithSpan,
}
