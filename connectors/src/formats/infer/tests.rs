//! Schema inference: what a sample says, and what clashes with it later.

use super::*;
use crate::store::Stores;

fn infer(name: &str, content: &str) -> Result<InferredTable> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    futures::executor::block_on(infer_schema(&Stores::local(), path.to_str().unwrap(), None))
}

fn types(inferred: &InferredTable) -> Vec<(String, String)> {
    let shown = |field: &Arc<Field>| (field.name().clone(), crate::formats::sql_name(field.data_type()));
    inferred.schema.fields().iter().map(shown).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect()
}

#[test]
fn csv_columns_take_the_narrowest_type() {
    let content = "i,f,b,d,t,z,s,na,code,none\n\
        1,1,true,2026-01-01,2026-01-01 10:00:00,2026-01-01T10:00:00Z,x,1,007,\n\
        -2,2.5,false,2026-01-02,2026-01-02,2026-01-01T10:00:00+01:00,1,NA,012,\n";
    let inferred = infer("a.csv", content).unwrap();
    assert_eq!(
        types(&inferred),
        pairs(&[
            ("i", "BIGINT"),
            ("f", "DOUBLE"),
            ("b", "BOOLEAN"),
            ("d", "DATE"),
            ("t", "TIMESTAMP(6)"),
            ("z", "TIMESTAMP_LTZ(6)"),
            ("s", "STRING"),
            ("na", "STRING"),
            ("code", "STRING"),
            ("none", "STRING"),
        ])
    );
    assert_eq!(inferred.options["csv.header"], "true");
    assert_eq!(inferred.options["csv.field-delimiter"], ",");
}

#[test]
fn other_delimiters_are_seen() {
    assert_eq!(infer("a.tsv", "a\tb\n1\t2\n").unwrap().options["csv.field-delimiter"], "\t");
    assert_eq!(infer("a.csv", "\u{feff}a;b\n1;2\n").unwrap().schema.field(0).name(), "a");
}

#[test]
fn a_header_is_seen_by_what_is_below_it() {
    let found = |content: &str| {
        let inferred = infer("a.csv", content).unwrap();
        let names: Vec<String> = inferred.schema.fields().iter().map(|field| field.name().clone()).collect();
        (inferred.options["csv.header"].clone(), names.join(","))
    };
    let check = |content: &str, header: &str, names: &str| {
        assert_eq!(found(content), (header.to_owned(), names.to_owned()), "{content}");
    };
    check("city, rain\nBergen,2250\n", "true", "city,rain");
    check("Bergen,2250\nCairo,25\n", "false", "column_1,column_2");
    // An index without a name, as others write it.
    check(",city\n0,Bergen\n", "true", ",city");
    check("\"a, b\",day\nx,2026-01-01\n", "true", "a, b,day");
    // Nothing tells the first row from the others: names are likelier.
    check("city,country\nBergen,Norway\n", "true", "city,country");
    check("city,rain\n", "true", "city,rain");
    check("1\n2\n", "false", "column_1");
}

#[test]
fn the_first_row_of_a_file_without_header_counts() {
    let inferred = infer("a.csv", "1,x\n2.5,y\n").unwrap();
    assert_eq!(types(&inferred), pairs(&[("column_1", "DOUBLE"), ("column_2", "STRING")]));
}

#[test]
fn json_columns() {
    let inferred = infer("a.ndjson", "{\"a\":1,\"b\":\"x\",\"n\":null}\n{\"a\":2.5,\"c\":[true]}\n").unwrap();
    assert_eq!(types(&inferred), pairs(&[("a", "DOUBLE"), ("b", "STRING"), ("n", "STRING"), ("c", "ARRAY")]));
}

#[test]
fn what_cannot_be_inferred_is_said() {
    let error = infer("a.dat", "x").unwrap_err().to_string();
    assert!(error.contains("the format of '") && error.contains("known: csv, json, raw, parquet, arrow; "), "{error}");
    let error = infer("a.csv", "a,b\n1,2\n3\n").unwrap_err().to_string();
    assert!(error.contains("a.csv: line 3, column 2: row has 1 field instead of 2; mend it, or skip"), "{error}");
    let error = infer("a.csv", "x,y,x\n1,2,3\n").unwrap_err().to_string();
    assert!(error.contains("a.csv: two columns are called 'x'; state its columns in a CREATE TABLE"), "{error}");
    let error = infer("a.csv", "").unwrap_err().to_string();
    assert!(
        error.ends_with("a.csv: no columns to be seen; it has no row: state its columns in a CREATE TABLE"),
        "{error}"
    );
}

#[test]
fn the_line_that_is_no_json_is_named() {
    let message = |content: &str| {
        let error = infer("n.json", content).unwrap_err();
        assert_eq!(error.kind(), tidemill_core::ErrorKind::Data);
        assert!(error.hint().is_some_and(|hint| hint.contains("'json.ignore-parse-errors'")), "{error}");
        error.message().rsplit_once("n.json: ").unwrap().1.to_owned()
    };
    let cut = "line 3: EOF while parsing a value at column 5";
    assert_eq!(message("{\"a\":1}\n{\"a\":2}\n{\"a\":"), cut);
    assert_eq!(message("{\"a\":1}\n{\"a\":2}\n{\"a\":\n{\"a\":3}\n"), cut);
    let clash = message("{\"a\":1}\n\n{\"a\":{\"b\":1}}\n");
    assert_eq!(clash, "line 3: its types do not go with those of the lines above");
    assert!(message("[1]\n").starts_with("line 1: "));
}

#[test]
fn written_raw_files_are_known_by_their_ending() {
    assert_eq!(types(&infer("part-1.raw", "a\n").unwrap()), pairs(&[("line", "STRING")]));
}
