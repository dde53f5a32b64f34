//! SQL: from text to plans.

pub mod parser;
