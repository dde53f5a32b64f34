//! `CREATE TABLE … LIKE`: what a new table takes from another.

use tidemill_core::{Error, Result};

use super::table::{ColumnOrigin, TableDefinition};
use crate::sql::parser::{LikeMerge, LikeOption, LikePart};

/// The definition `new` completed by that of `old`; without options everything is taken, and new options win.
pub fn merge(mut new: TableDefinition, old: &TableDefinition, options: &[LikeOption]) -> Result<TableDefinition> {
    let merge_of = |part: LikePart| {
        let of = |part| options.iter().rev().find(|option| option.part == part).map(|option| option.merge);
        of(part).or_else(|| of(LikePart::All)).unwrap_or(match part {
            LikePart::Options => LikeMerge::Overwriting,
            _ => LikeMerge::Including,
        })
    };
    let mut columns = Vec::new();
    for column in &old.columns {
        let merge = match column.origin {
            ColumnOrigin::Physical => LikeMerge::Including,
            ColumnOrigin::Computed { .. } => merge_of(LikePart::Generated),
        };
        let clash = new.columns.iter().any(|own| own.name == column.name);
        match merge {
            LikeMerge::Excluding => {}
            LikeMerge::Overwriting if clash => {}
            _ if clash => return Err(clashes("column", &column.name, &old.name)),
            _ => columns.push(column.clone()),
        }
    }
    columns.append(&mut new.columns);
    new.columns = columns;

    let merge = merge_of(LikePart::Watermarks);
    match (&new.watermark, &old.watermark) {
        (Some(own), Some(_)) if merge == LikeMerge::Including => {
            return Err(clashes("watermark of", &own.column, &old.name));
        }
        (None, Some(theirs)) if merge != LikeMerge::Excluding => new.watermark = Some(theirs.clone()),
        _ => {}
    }

    let merge = merge_of(LikePart::Constraints);
    match (new.primary_key.is_empty(), old.primary_key.is_empty()) {
        (false, false) if merge == LikeMerge::Including => {
            return Err(clashes("primary key of", &new.name, &old.name));
        }
        (true, false) if merge != LikeMerge::Excluding => new.primary_key = old.primary_key.clone(),
        _ => {}
    }

    let merge = merge_of(LikePart::Partitions);
    match (new.partitioned_by.is_empty(), old.partitioned_by.is_empty()) {
        (false, false) if merge == LikeMerge::Including => {
            return Err(clashes("PARTITIONED BY of", &new.name, &old.name));
        }
        (true, false) if merge != LikeMerge::Excluding => new.partitioned_by = old.partitioned_by.clone(),
        _ => {}
    }

    let merge = merge_of(LikePart::Options);
    let mut taken = Vec::new();
    for (key, value) in &old.options {
        let clash = new.options.iter().any(|(own, _)| own == key);
        match merge {
            LikeMerge::Excluding => {}
            LikeMerge::Including if clash => return Err(clashes("option", key, &old.name)),
            _ if clash => {}
            _ => taken.push((key.clone(), value.clone())),
        }
    }
    taken.append(&mut new.options);
    new.options = taken;
    Ok(new)
}

fn clashes(what: &str, name: &str, old: &str) -> Error {
    Error::request(format!("{what} '{name}' is in both the new table and '{old}'"))
        .with_hint("write OVERWRITING or EXCLUDING for that part")
}
