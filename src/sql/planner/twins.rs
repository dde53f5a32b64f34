//! `SELECT n, n`: two columns of one expression.
//!
//! DataFusion refuses them, because it knows columns by name, and a cast by the name of what it casts. As in Flink the second
//! gets a number behind its name.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, Select, SelectItem, VisitorMut};

use crate::sql::parser::{walk_expr_mut, walk_mut};

/// Names the repeated columns of every `SELECT` in `query` apart.
pub fn name_twins(query: &mut Query) {
    walk_mut(query, &mut Namer);
}

struct Namer;

impl VisitorMut for Namer {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let mut seen = BTreeSet::new();
        for item in &mut select.projection {
            let SelectItem::UnnamedExpr(expr) = item else { continue };
            let mut named = expr.clone();
            walk_expr_mut(&mut named, &mut Uncast);
            let text = named.to_string();
            if seen.insert(text.clone()) {
                continue;
            }
            let base = match &named {
                Expr::Identifier(name) => name.value.clone(),
                Expr::CompoundIdentifier(names) => names.last().map_or_else(|| text.clone(), |name| name.value.clone()),
                _ => text,
            };
            let alias = (0..).map(|number| format!("{base}{number}")).find(|alias| seen.insert(alias.clone()));
            let alias = Ident::new(alias.unwrap_or(base));
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
        ControlFlow::Continue(())
    }
}

/// Puts what is cast in the place of each cast.
struct Uncast;

impl VisitorMut for Uncast {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { expr: inner, .. } = expr {
            *expr = (**inner).clone();
        }
        ControlFlow::Continue(())
    }
}
