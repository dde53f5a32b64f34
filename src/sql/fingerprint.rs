//! Which statement a job belongs to, where several write to the same tables.
//!
//! A folder of checkpoints is named by the sinks of its job, so that two `INSERT`s into `out` have `out` and `out-2`. Which of the
//! two is whose follows from what the statements say, not from where they stand: a script in which they have changed places goes
//! on as if they had not. A statement that says something new has changed if it comes in place of one of the last script. What went
//! before that script is no sign of a change: its folder waits for the statement that it was of.

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
pub struct StatementFolders(BTreeMap<String, BTreeMap<usize, Owner>>);

/// Whose a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    statement: Fingerprint,
    /// Whether the last script did without the statement. The folder is then kept for it, and dealt to no other.
    is_gone: bool,
}

impl StatementFolders {
    /// Forgets the folders that are not there any more.
    pub fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        for (job, folders) in &mut self.0 {
            folders.retain(|number, _| is_there(&folder_name(job, *number)));
        }
    }

    /// Deals the folders that are known to the statements of a script: to each the one that it had. A statement that has changed
    /// gets the one that the last script used and this one does not, where there is but one of both; new ones get new folders.
    ///
    /// Errors: who goes on from which folder is not known.
    pub fn deal(&self, script: &[Parsed]) -> Result<Self> {
        // Also those that this script does without.
        let mut wanted: BTreeMap<String, Vec<Fingerprint>> = self.0.keys().map(|job| (job.clone(), vec![])).collect();
        for Parsed { statement, .. } in script {
            if let (Some(job), Some(fingerprint)) = (job_of(statement)?, Fingerprint::of(statement)) {
                wanted.entry(job).or_default().push(fingerprint);
            }
        }
        let nobody = BTreeMap::new();
        let dealt = wanted.into_iter().map(|(job, statements)| {
            let owners = deal(&job, self.0.get(&job).unwrap_or(&nobody), &statements)?;
            Ok((job, owners))
        });
        dealt.collect::<Result<_>>().map(Self)
    }

    /// The numbers of the folders of a job: those that were dealt to this statement, then those that are nobody's.
    pub(super) fn numbers(&self, job: &str, of: Option<Fingerprint>) -> impl Iterator<Item = usize> + use<> {
        let dealt = self.0.get(&job.to_lowercase()).cloned().unwrap_or_default();
        let own: Vec<usize> =
            dealt.iter().filter(|(_, owner)| Some(owner.statement) == of).map(|(number, _)| *number).collect();
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
fn deal(job: &str, known: &BTreeMap<usize, Owner>, statements: &[Fingerprint]) -> Result<BTreeMap<usize, Owner>> {
    let (mut left, mut dealt, mut changed) = (known.clone(), BTreeMap::new(), Vec::new());
    for statement in statements {
        match left.iter().find(|(_, owner)| owner.statement == *statement).map(|(number, _)| *number) {
            Some(number) => {
                left.remove(&number);
                dealt.insert(number, *statement);
            }
            None => changed.push(*statement),
        }
    }
    let missing: Vec<usize> = left.iter().filter(|(_, owner)| !owner.is_gone).map(|(number, _)| *number).collect();
    match (changed.as_slice(), missing.as_slice()) {
        (_, []) | ([], _) => {
            let new = (1..).filter(|number| !known.contains_key(number));
            dealt.extend(new.zip(changed));
        }
        ([only], [number]) => {
            left.remove(number);
            dealt.insert(*number, *only);
        }
        (changed, missing) => {
            let new = match changed.len() {
                1 => "one statement is new or has changed".to_owned(),
                several => format!("{several} statements are new or have changed"),
            };
            let folders: Vec<String> = missing.iter().map(|number| folder_name(job, *number)).collect();
            let folders = folders.join(", ");
            let error =
                format!("{job}: {new}, and who goes on from which checkpoints is not known: nobody's are {folders}");
            return Err(Error::request(error).with_hint(
                "change one statement at a time, or delete the folders of those that are gone; a table of its own for each \
                 INSERT keeps them apart",
            ));
        }
    }
    let dealt = dealt.into_iter().map(|(number, statement)| (number, Owner { statement, is_gone: false }));
    // Whoever comes back finds what it had.
    let gone = left.into_iter().map(|(number, owner)| (number, Owner { is_gone: true, ..owner }));
    Ok(dealt.chain(gone).collect())
}

#[cfg(test)]
mod tests {
    use super::super::parser::parse_script;
    use super::*;

    fn of(sql: &str) -> Fingerprint {
        Fingerprint::of(&parse_script(sql).unwrap()[0].statement).unwrap()
    }

    /// What is known behind these scripts.
    fn known(scripts: &[&[&str]]) -> Result<StatementFolders> {
        let nothing = StatementFolders::default();
        scripts.iter().try_fold(nothing, |known, script| known.deal(&parse_script(&script.join(";")).unwrap()))
    }

    /// The folders of the statements of the last of these scripts.
    fn folders(scripts: &[&[&str]]) -> Result<Vec<usize>> {
        let known = known(scripts)?;
        let folder = |sql: &&str| known.numbers("insert into out", Some(of(sql))).next().unwrap();
        Ok(scripts.last().unwrap().iter().map(folder).collect())
    }

    const A: &str = "INSERT INTO out SELECT a FROM t";
    const B: &str = "INSERT INTO out SELECT b FROM t";
    const C: &str = "INSERT INTO out SELECT c FROM t";
    const D: &str = "INSERT INTO OUT SELECT d FROM t";
    const ELSEWHERE: &str = "INSERT INTO other SELECT a FROM t";

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
        assert_eq!(folders(&[&[A, B], &[A, B]]).unwrap(), [1, 2]);
        assert_eq!(folders(&[&[A, B], &[B, A]]).unwrap(), [2, 1]);
        assert_eq!(folders(&[&[A, B], &[B]]).unwrap(), [2]);
        assert_eq!(folders(&[&[A, B], &[C, B, A]]).unwrap(), [3, 2, 1]);
        assert_eq!(folders(&[&[A], &[B, A]]).unwrap(), [2, 1]);
        assert_eq!(folders(&[&[], &[B, A]]).unwrap(), [1, 2]);
    }

    #[test]
    fn one_that_has_changed_gets_what_is_left_over_and_among_several_nobody_guesses() {
        assert_eq!(folders(&[&[A], &[B]]).unwrap(), [1]);
        assert_eq!(folders(&[&[A, B], &[C, A]]).unwrap(), [2, 1]);
        assert_eq!(folders(&[&[A, B, C], &[B, D, A]]).unwrap(), [2, 3, 1]);
        for (before, now) in [(&[A, B][..], &[C, D][..]), (&[A, B], &[C]), (&[A], &[B, C])] {
            let error = folders(&[before, now]).unwrap_err().to_string();
            assert!(error.contains("insert into out: ") && error.contains("one statement at a time"), "{error}");
        }
    }

    #[test]
    fn what_went_before_the_last_script_is_given_to_nobody_else() {
        assert_eq!(folders(&[&[A, B], &[B], &[B, C]]).unwrap(), [2, 3]);
        assert_eq!(folders(&[&[A, B], &[B], &[C, D, B]]).unwrap(), [3, 4, 2]);
        assert_eq!(folders(&[&[A, A], &[A], &[A, B]]).unwrap(), [1, 3]);
        // Also where it was the only one.
        assert_eq!(folders(&[&[A], &[ELSEWHERE], &[B]]).unwrap(), [2]);
        // A statement that has changed is still known by what is missing now.
        assert_eq!(folders(&[&[A, B], &[B], &[C]]).unwrap(), [2]);
        assert_eq!(folders(&[&[A, B, C], &[C], &[D]]).unwrap(), [3]);
        assert_eq!(folders(&[&[A, B], &[B], &[B, C], &[D, B]]).unwrap(), [3, 2]);
        let error = folders(&[&[A, B], &[B], &[C, D]]).unwrap_err().to_string();
        assert!(error.contains("nobody's are out-2;"), "{error}");
    }

    #[test]
    fn whoever_comes_back_finds_what_it_had() {
        assert_eq!(folders(&[&[A, B], &[B], &[B, A]]).unwrap(), [2, 1]);
        assert_eq!(folders(&[&[A, B], &[B], &[B, C], &[C, A, B]]).unwrap(), [3, 1, 2]);
        assert_eq!(folders(&[&[A], &[ELSEWHERE], &[A]]).unwrap(), [1]);
        // From then on it is as if it had never gone: it can change.
        assert_eq!(folders(&[&[A, B], &[B], &[A, B], &[C, B]]).unwrap(), [1, 2]);
    }

    #[test]
    fn what_is_known_reads_as_it_was_written() {
        let known = known(&[&[A, B], &[B]]).unwrap();
        let text = serde_json::to_string(&known).unwrap();
        assert_eq!(serde_json::from_str::<StatementFolders>(&text).unwrap(), known);
        for (number, statement, is_gone) in [(1, A, true), (2, B, false)] {
            let owner = format!(r#""{number}":{{"statement":{},"is_gone":{is_gone}}}"#, of(statement).0);
            assert!(text.contains(&owner), "{text}");
        }
    }

    #[test]
    fn a_folder_that_was_deleted_is_nobodys() {
        let mut known = known(&[&[A, B]]).unwrap();
        known.keep(|folder| folder == "out");
        let dealt = known.deal(&parse_script(C).unwrap()).unwrap();
        assert_eq!(dealt.numbers("insert into out", Some(of(C))).next(), Some(1));
    }
}
