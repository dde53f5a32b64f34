//! Which statement a job belongs to, where several write to the same tables.
//!
//! A folder of checkpoints is named by the sinks of its job, so that two `INSERT`s into `out` have `out` and `out-2`. Which of the
//! two is whose follows from what the statements say, not from where they stand: a script in which they have changed places goes
//! on as if they had not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_core::{Error, Result};
use xxhash_rust::xxh3::xxh3_64;

use super::catalog::simple_name;
use super::insert::job_name;
use super::parser::{Insert, Parsed, Statement};
use super::recovery::folder_name;

/// What a statement that starts a job says, without its layout, its comments and its place; of a statement set also without the
/// order of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// That of a statement, if it writes to tables.
    pub fn of(statement: &Statement) -> Option<Self> {
        match statement {
            Statement::Insert(insert) => Some(Self::of_insert(insert)),
            Statement::StatementSet(inserts) => {
                let mut all: Vec<Self> = inserts.iter().map(Self::of_insert).collect();
                all.sort();
                let bytes: Vec<u8> = all.iter().flat_map(|one| one.0.to_le_bytes()).collect();
                Some(Self(xxh3_64(&bytes)))
            }
            Statement::CreateTable(create) => {
                create.as_query.as_ref().map(|query| Self(xxh3_64(query.to_string().as_bytes())))
            }
            _ => None,
        }
    }

    /// That of one `INSERT`, also of one in a set.
    pub fn of_insert(insert: &Insert) -> Self {
        let Insert { table, columns, overwrite, partition, query } = insert;
        let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
        let partition: Vec<String> = partition.iter().map(|(column, value)| format!("{column}={value}")).collect();
        let text = format!("{table} ({}) {overwrite} ({}) {query}", columns.join(","), partition.join(","));
        Self(xxh3_64(text.as_bytes()))
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// For the sinks of each job the statements that write to them, by the number of their folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StatementFolders(BTreeMap<String, BTreeMap<usize, Fingerprint>>);

impl StatementFolders {
    /// Forgets the folders that are not there any more.
    pub fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        for (job, folders) in &mut self.0 {
            folders.retain(|number, _| is_there(&folder_name(job, *number)));
        }
    }

    /// Deals the folders that are known to the statements of a script: to each the one that it had. A statement that has changed
    /// gets the one that is left over where there is but one of both; new ones get new folders.
    ///
    /// Errors: who goes on from which folder is not known.
    pub fn deal(&self, script: &[Parsed]) -> Result<Self> {
        let mut wanted = BTreeMap::<String, Vec<Fingerprint>>::new();
        for Parsed { statement, .. } in script {
            if let (Some(job), Some(fingerprint)) = (job_of(statement)?, Fingerprint::of(statement)) {
                wanted.entry(job).or_default().push(fingerprint);
            }
        }
        let mut dealt = self.clone();
        for (job, statements) in wanted {
            let known = dealt.0.remove(&job).unwrap_or_default();
            let numbers = deal(&job, &known, &statements)?;
            dealt.0.insert(job, numbers);
        }
        Ok(dealt)
    }

    /// The numbers of the folders of a job: those that were dealt to this statement, then those that are nobody's.
    pub(super) fn numbers(&self, job: &str, of: Option<Fingerprint>) -> impl Iterator<Item = usize> + use<> {
        let dealt = self.0.get(&job.to_lowercase()).cloned().unwrap_or_default();
        let own: Vec<usize> =
            dealt.iter().filter(|(_, statement)| Some(**statement) == of).map(|(number, _)| *number).collect();
        own.into_iter().chain((1..).filter(move |number| !dealt.contains_key(number)))
    }
}

/// What the job of a statement is called, whatever the case in which its tables are written.
fn job_of(statement: &Statement) -> Result<Option<String>> {
    let tables = match statement {
        Statement::Insert(insert) => vec![simple_name(&insert.table)?],
        Statement::StatementSet(inserts) => {
            inserts.iter().map(|insert| simple_name(&insert.table)).collect::<Result<Vec<String>>>()?
        }
        Statement::CreateTable(create) if create.as_query.is_some() => vec![simple_name(&create.name)?],
        _ => return Ok(None),
    };
    Ok(Some(job_name(tables.iter().map(String::as_str)).to_lowercase()))
}

/// Deals the folders of jobs with the same sinks, which are called `job`: who they belong to afterwards.
fn deal(
    job: &str,
    known: &BTreeMap<usize, Fingerprint>,
    statements: &[Fingerprint],
) -> Result<BTreeMap<usize, Fingerprint>> {
    let (mut left, mut dealt, mut changed) = (known.clone(), BTreeMap::new(), Vec::new());
    for statement in statements {
        match left.iter().find(|(_, known)| *known == statement).map(|(number, _)| *number) {
            Some(number) => {
                left.remove(&number);
                dealt.insert(number, *statement);
            }
            None => changed.push(*statement),
        }
    }
    match (changed.as_slice(), left.first_key_value()) {
        (_, None) | ([], _) => {
            let new = (1..).filter(|number| !known.contains_key(number));
            dealt.extend(new.zip(changed));
        }
        ([only], Some((number, _))) if left.len() == 1 => {
            let number = *number;
            left.clear();
            dealt.insert(number, *only);
        }
        (changed, _) => {
            let new = match changed.len() {
                1 => "one statement is new or has changed".to_owned(),
                several => format!("{several} statements are new or have changed"),
            };
            let folders: Vec<String> = left.keys().map(|number| folder_name(job, *number)).collect();
            let folders = folders.join(", ");
            let error =
                format!("{job}: {new}, and who goes on from which checkpoints is not known: nobody's are {folders}");
            return Err(Error::request(error).with_hint(
                "change one statement at a time, or delete the folders of those that are gone; a table of its own for each \
                 INSERT keeps them apart",
            ));
        }
    }
    // Whoever comes back finds what it had.
    dealt.extend(left);
    Ok(dealt)
}

#[cfg(test)]
mod tests {
    use super::super::parser::parse_script;
    use super::*;

    fn of(sql: &str) -> Fingerprint {
        Fingerprint::of(&parse_script(sql).unwrap()[0].statement).unwrap()
    }

    /// The folders of the statements of a script, behind one that had these.
    fn folders(before: &[&str], now: &[&str]) -> Result<Vec<usize>> {
        let parsed = |statements: &[&str]| parse_script(&statements.join(";")).unwrap();
        let known = StatementFolders::default().deal(&parsed(before))?;
        let dealt = known.deal(&parsed(now))?;
        Ok(now.iter().map(|sql| dealt.numbers("insert into out", Some(of(sql))).next().unwrap()).collect())
    }

    const A: &str = "INSERT INTO out SELECT a FROM t";
    const B: &str = "INSERT INTO out SELECT b FROM t";
    const C: &str = "INSERT INTO out SELECT c FROM t";
    const D: &str = "INSERT INTO OUT SELECT d FROM t";

    #[test]
    fn layout_comments_and_the_order_within_a_set_say_nothing() {
        assert_eq!(of(A), of("INSERT  INTO out -- what\n  SELECT a\n FROM t"));
        assert_ne!(of(A), of(B));
        assert_ne!(of(A), of("INSERT INTO other SELECT a FROM t"));
        assert_ne!(of(A), of("INSERT OVERWRITE out SELECT a FROM t"));
        let set = |inserts: [&str; 2]| format!("EXECUTE STATEMENT SET BEGIN {}; END", inserts.join(";"));
        assert_eq!(of(&set([A, B])), of(&set([B, A])));
        assert_ne!(of(&set([A, B])), of(&set([A, C])));
    }

    #[test]
    fn each_statement_gets_the_folder_that_it_had() {
        assert_eq!(folders(&[A, B], &[A, B]).unwrap(), [1, 2]);
        assert_eq!(folders(&[A, B], &[B, A]).unwrap(), [2, 1]);
        assert_eq!(folders(&[A, B], &[B]).unwrap(), [2]);
        assert_eq!(folders(&[A, B], &[C, B, A]).unwrap(), [3, 2, 1]);
        assert_eq!(folders(&[A], &[B, A]).unwrap(), [2, 1]);
        assert_eq!(folders(&[], &[B, A]).unwrap(), [1, 2]);
    }

    #[test]
    fn one_that_has_changed_gets_what_is_left_over_and_among_several_nobody_guesses() {
        assert_eq!(folders(&[A], &[B]).unwrap(), [1]);
        assert_eq!(folders(&[A, B], &[C, A]).unwrap(), [2, 1]);
        assert_eq!(folders(&[A, B, C], &[B, D, A]).unwrap(), [2, 3, 1]);
        for (before, now) in [(&[A, B][..], &[C, D][..]), (&[A, B], &[C]), (&[A], &[B, C])] {
            let error = folders(before, now).unwrap_err().to_string();
            assert!(error.contains("insert into out: ") && error.contains("one statement at a time"), "{error}");
        }
    }

    #[test]
    fn a_folder_that_was_deleted_is_nobodys() {
        let parsed = |sql: &str| parse_script(sql).unwrap();
        let mut known = StatementFolders::default().deal(&parsed(&format!("{A};{B}"))).unwrap();
        known.keep(|folder| folder == "out");
        let dealt = known.deal(&parsed(C)).unwrap();
        assert_eq!(dealt.numbers("insert into out", Some(of(C))).next(), Some(1));
    }
}
