//! Names keep their case, and are found without it where that is unique.

use super::*;

const T: &str =
    "CREATE VIEW `People` AS SELECT * FROM (VALUES (1, 'ann', 30), (2, 'bob', 40)) AS v (`Id`, `Name`, age);
    CREATE VIEW pets AS SELECT * FROM (VALUES (1, 'rex')) AS v (ID, pet);";

fn check_names(query: &str, expected: &[&str]) {
    check(&format!("{T}{query}"), expected);
}

#[test]
fn tables_and_columns() {
    check_names("SELECT id, NAME FROM people WHERE AGE > 30", &["2|bob"]);
    check_names("SELECT `id` FROM \"PEOPLE\" ORDER BY nAme LIMIT 1", &["1"]);
    check_names("SELECT COUNT(*) FROM PEOPLE GROUP BY AGE HAVING MAX(ID) > 1", &["1"]);
}

#[test]
fn aliases_and_wildcards() {
    check_names("SELECT P.id FROM people AS p WHERE p.ID = 1", &["1"]);
    check_names("SELECT p.* FROM people AS P WHERE P.ID = 1", &["1|ann|30"]);
    check_names("SELECT age + 1 AS Older FROM people ORDER BY OLDER DESC LIMIT 1", &["41"]);
}

#[test]
fn ctes_and_subqueries() {
    check_names("WITH Old AS (SELECT * FROM people WHERE age > 30) SELECT id FROM old", &["2"]);
    check_names("SELECT name FROM people WHERE ID IN (SELECT id FROM PETS)", &["ann"]);
    check_names("SELECT name FROM people AS p WHERE EXISTS (SELECT 1 FROM pets WHERE pets.id = P.id)", &["ann"]);
    check_names("SELECT name FROM people WHERE EXISTS (SELECT 1 FROM pets WHERE pets.id + 29 = AGE)", &["ann"]);
}

#[test]
fn joins() {
    check_names("SELECT name, pet FROM people JOIN pets ON people.id = pets.id", &["ann|rex"]);
    let same = "CREATE VIEW a AS SELECT 1 AS `Key`, 2 AS x; CREATE VIEW b AS SELECT 1 AS `Key`, 3 AS y;";
    check(&format!("{same} SELECT x, y FROM a JOIN b USING (key)"), &["2|3"]);
}

#[test]
fn the_exact_name_wins() {
    let both = "CREATE VIEW v AS SELECT 1 AS a, 2 AS `A`;";
    check(&format!("{both} SELECT a, A FROM v"), &["1|2"]);
    let tables = "CREATE VIEW t AS SELECT 1 AS x; CREATE VIEW `T` AS SELECT 2 AS x;";
    check(&format!("{tables} SELECT * FROM T"), &["2"]);
}

#[test]
fn several_candidates_are_an_error() {
    check_error(
        "CREATE VIEW v AS SELECT 1 AS `aB`, 2 AS `AB`; SELECT ab FROM v",
        "column 'ab' not found at line 1, column 54; it could be v.AB or v.aB",
    );
    check_error(
        "CREATE VIEW `tA` AS SELECT 1 AS x; CREATE VIEW `TA` AS SELECT 2 AS x; SELECT * FROM ta",
        "table 'ta' not found at line 1, column 85; it could be TA or tA",
    );
}

#[test]
fn the_result_is_named_as_it_was_written() {
    let mut session = session();
    let script = format!("{T} SELECT ID AS Id2, NAME FROM people");
    let parsed = parse_script(&script).unwrap();
    for (place, statement) in parsed.iter().enumerate() {
        if let Outcome::Query(query) = session.run(statement).unwrap() {
            let names: Vec<&str> = query.schema.fields().iter().map(|field| field.name().as_str()).collect();
            assert_eq!(names, ["Id2", "Name"], "statement {place}");
        }
    }
}

#[test]
fn a_column_stands_next_to_its_cast() {
    let mut session = session();
    let parsed =
        parse_script("SELECT a, CAST(a AS STRING), a::INT, CAST(a AS STRING) AS b FROM (VALUES (1)) AS t (a)").unwrap();
    let Outcome::Query(query) = session.run(&parsed[0]).unwrap() else { panic!("a query") };
    let names: Vec<&str> = query.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["a", "a0", "a1", "b"]);
}
