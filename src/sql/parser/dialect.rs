//! The dialect: all that sqlparser's generic one takes, and Flink's table versions and expressions on top.
//!
//! sqlparser asks a dialect in two ways: by its methods, and by its type (`dialect_of!(self is GenericDialect)`). So
//! [`TideDialect`] answers with the generic dialect's type and forwards every method that the generic dialect overrides,
//! except for those named below. sqlparser's own macro for this finds the trait's source only inside sqlparser's crate.

use std::any::TypeId;

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

/// The dialect of every query.
///
/// It differs from [`GenericDialect`] in that
/// * `FOR SYSTEM_TIME AS OF` versions a table, for temporal and lookup joins;
/// * `TABLE t` arguments, `MAP[…]` and Flink's types in `CAST` are expressions (see `expressions.rs`);
/// * a comment stays a comment: neither is `/*! … */` run, nor does `/*+ … */` enter the tree. Hints are found by a
///   pass over the tokens, which knows where they stand.
#[derive(Clone, Copy, Debug, Default)]
pub struct TideDialect;

/// The one instance, for parsers that outlive their caller's frame.
pub(in crate::sql) static DIALECT: TideDialect = TideDialect;

const GENERIC: GenericDialect = GenericDialect;

/// Forwards methods without arguments to the generic dialect.
macro_rules! as_generic {
    ($($method:ident)*) => { $(fn $method(&self) -> bool { GENERIC.$method() })* };
}

impl Dialect for TideDialect {
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        GENERIC.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        GENERIC.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        GENERIC.is_identifier_part(ch)
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        super::expressions::parse_prefix(parser)
    }

    fn supports_table_versioning(&self) -> bool {
        true
    }

    fn supports_multiline_comment_hints(&self) -> bool {
        false
    }

    fn supports_comment_optimizer_hint(&self) -> bool {
        false
    }

    as_generic! {
        allow_extract_custom allow_extract_single_quotes
        support_map_literal_syntax
        supports_array_join_syntax supports_array_typedef_with_brackets supports_asc_desc_in_column_definition
        supports_bitwise_shift_operators
        supports_comma_separated_set_assignments supports_comma_separated_trim supports_comment_on supports_connect_by
        supports_constraint_keyword_without_name supports_create_index_with_clause supports_create_view_comment_syntax
        supports_cte_without_as
        supports_data_type_signed_suffix supports_detach supports_dictionary_syntax
        supports_empty_projections supports_explain_with_utility_options supports_extract_comma_syntax
        supports_filter_during_aggregation supports_from_first_select
        supports_group_by_expr supports_group_by_with_modifier
        supports_install supports_interpolate supports_interval_options
        supports_key_column_option
        supports_left_associative_joins_without_parens supports_limit_by supports_limit_comma supports_load_extension
        supports_match_against supports_match_recognize
        supports_named_fn_args_with_assignment_operator supports_nested_comments
        supports_optimize_table
        supports_parens_around_table_factor supports_parenthesized_set_variables supports_partition_by_after_order_by
        supports_pipe_operator supports_prewhere supports_projection_trailing_commas
        supports_quote_delimited_string
        supports_select_format supports_select_item_multi_column_alias supports_select_wildcard_except
        supports_select_wildcard_exclude supports_select_wildcard_ilike supports_select_wildcard_rename
        supports_select_wildcard_replace supports_set_names supports_settings supports_start_transaction_modifier
        supports_string_escape_constant supports_struct_literal
        supports_try_convert
        supports_unicode_string_literal supports_update_order_by supports_user_host_grantee
        supports_values_as_table_factor
        supports_window_clause_named_window_reference supports_window_function_null_treatment_arg supports_with_fill
        supports_xml_expressions
    }
}
