//! Which files a path means: one file, a glob, or a directory.
//!
//! ```text
//! data/flights.csv      that file, whatever its name
//! data/2026-*/f?.csv    every match, component by component (`**` spans directories)
//! data/                 every file in it; below it too if asked for
//! ```
//!
//! In directories and globs, names that start with `_` or `.` are skipped, and so is what a replacement has condemned
//! ([`REPLACE_MARKER`]). The answer is sorted by path.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use futures::future::BoxFuture;
use glob::{MatchOptions, Pattern};
use object_store::ObjectMeta;
use object_store::path::Path;
use regex::Regex;
use tidemill_core::error::{Error, Result};

use super::Location;
use crate::filesystem::{Replacement, is_partition_of, stranger};

/// Begins the name of the file that says which files of a directory a replacement has condemned.
pub(crate) const REPLACE_MARKER: &str = ".replace-";

/// Which of the files below a path are meant.
#[derive(Clone, Debug, Default)]
pub struct FileSelection {
    /// Whether to descend into directories.
    pub recursive: bool,
    /// What the full path must match.
    pub pattern: Option<Regex>,
}

/// The files that `location` means, sorted by path. A path that leads nowhere is an error that names it; an empty directory or
/// a glob without a match is not.
pub async fn list_files(location: &Location, selection: &FileSelection) -> Result<Vec<ObjectMeta>> {
    let mut files = match is_glob(location) {
        true => expand_glob(location, selection).await?,
        false => match location.head().await? {
            Some(file) => return Ok(vec![file]),
            None => expand_directory(location, selection.recursive).await?,
        },
    };
    if let Some(pattern) = &selection.pattern {
        files.retain(|file| pattern.is_match(&location.at(file.location.clone()).to_string()));
    }
    files.sort_by(|left, right| left.location.cmp(&right.location));
    files.dedup_by(|left, right| left.location == right.location);
    Ok(files)
}

/// The files in the folders of a partitioned table, sorted by path: `column=value/` for each of `columns`. Anything else there
/// is an error that names it, unless it is hidden.
pub(crate) async fn list_partitions(
    table: &Location,
    columns: &[&str],
    selection: &FileSelection,
) -> Result<Vec<ObjectMeta>> {
    let is_there = match table.file_path() {
        Some(path) => path.is_dir(),
        None => !is_empty(table).await?,
    };
    if !is_there {
        return Err(table.missing());
    }
    let mut folders = vec![table.clone()];
    for column in columns {
        let mut below = Vec::new();
        for folder in folders {
            let listed = folder.store.list_with_delimiter(Some(&folder.path)).await;
            let listed = listed.map_err(|error| folder.error(error))?;
            for path in listed.common_prefixes {
                match path.filename() {
                    // The name of a column may begin with '_'.
                    Some(name) if is_partition_of(name, column) => below.push(folder.at(path)),
                    Some(_) if !is_visible(&path) => {}
                    _ => return Err(stranger(folder.at(path), column)),
                }
            }
            if let Some(file) = listed.objects.into_iter().find(|file| is_visible(&file.location)) {
                return Err(stranger(folder.at(file.location), column));
            }
        }
        folders = below;
    }
    let mut files = Vec::new();
    for folder in &folders {
        collect(folder, selection.recursive, &mut files).await?;
    }
    if let Some(pattern) = &selection.pattern {
        files.retain(|file| pattern.is_match(&table.at(file.location.clone()).to_string()));
    }
    files.sort_by(|left, right| left.location.cmp(&right.location));
    Ok(files)
}

/// The visible files right in `directory`, whose name is no pattern even if it looks like one.
pub(crate) async fn files_in(directory: &Location) -> Result<Vec<ObjectMeta>> {
    Ok(entries(directory).await?.files)
}

fn is_glob(location: &Location) -> bool {
    location.path.as_ref().contains(['*', '?', '['])
}

async fn expand_directory(directory: &Location, recursive: bool) -> Result<Vec<ObjectMeta>> {
    let exists = match directory.file_path() {
        Some(path) => path.is_dir(),
        None => !is_empty(directory).await?,
    };
    if !exists {
        return Err(directory.missing());
    }
    let mut files = Vec::new();
    collect(directory, recursive, &mut files).await?;
    Ok(files)
}

async fn is_empty(prefix: &Location) -> Result<bool> {
    let first = prefix.store.list(Some(&prefix.path)).try_next().await;
    Ok(first.map_err(|error| prefix.error(error))?.is_none())
}

/// The visible files of a directory, and of those below it if `recursive`.
fn collect<'a>(directory: &'a Location, recursive: bool, files: &'a mut Vec<ObjectMeta>) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let entries = entries(directory).await?;
        files.extend(entries.files);
        if recursive {
            for path in entries.directories {
                collect(&directory.at(path), true, files).await?;
            }
        }
        Ok(())
    })
}

struct Entries {
    files: Vec<ObjectMeta>,
    directories: Vec<Path>,
}

async fn entries(directory: &Location) -> Result<Entries> {
    let listed = directory.store.list_with_delimiter(Some(&directory.path)).await;
    let listed = listed.map_err(|error| directory.error(error))?;
    let is_marker = |file: &&ObjectMeta| file.location.filename().is_some_and(|name| name.starts_with(REPLACE_MARKER));
    let mut condemned = BTreeSet::new();
    let mut pending = BTreeSet::new();
    for marker in listed.objects.iter().filter(is_marker) {
        let replacement = Replacement::load(&directory.at(marker.location.clone())).await?;
        condemned.extend(replacement.condemned.iter().map(|name| directory.child(name).path));
        pending.extend(replacement.published.iter().map(|(hidden, _)| directory.child(hidden).path));
    }
    let visible = |file: &ObjectMeta| {
        pending.contains(&file.location) || (is_visible(&file.location) && !condemned.contains(&file.location))
    };
    Ok(Entries {
        files: listed.objects.into_iter().filter(visible).collect(),
        directories: listed.common_prefixes.into_iter().filter(is_visible).collect(),
    })
}

fn is_visible(path: &Path) -> bool {
    path.filename().is_some_and(|name| !name.starts_with(['_', '.']))
}

async fn expand_glob(location: &Location, selection: &FileSelection) -> Result<Vec<ObjectMeta>> {
    let components: Vec<&str> = location.path.as_ref().split('/').collect();
    let literal = components.iter().take_while(|part| !part.contains(['*', '?', '['])).count();
    let mut root = location.at(Path::default());
    for part in &components[..literal] {
        root = root.child(part);
    }
    let mut patterns = Vec::with_capacity(components.len() - literal);
    for part in &components[literal..] {
        let pattern = Pattern::new(part)
            .map_err(|error| Error::request(format!("'{part}' of '{location}' is no pattern")).with_source(error))?;
        patterns.push(pattern);
    }
    let mut files = Vec::new();
    descend(&root, &patterns, selection.recursive, &mut files).await?;
    Ok(files)
}

/// Matches `patterns` level by level, so that only directories that can hold a match are listed.
fn descend<'a>(
    directory: &'a Location,
    patterns: &'a [Pattern],
    recursive: bool,
    files: &'a mut Vec<ObjectMeta>,
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let [pattern, rest @ ..] = patterns else { return Ok(()) };
        if directory.file_path().is_some_and(|path| !path.is_dir()) {
            return Ok(());
        }
        let spans_directories = pattern.as_str() == "**";
        if spans_directories && !rest.is_empty() {
            descend(directory, rest, recursive, files).await?;
        }
        let entries = entries(directory).await?;
        if rest.is_empty() {
            files.extend(entries.files.into_iter().filter(|file| matches(pattern, &file.location)));
        }
        for path in entries.directories.into_iter().filter(|path| matches(pattern, path)) {
            let below = directory.at(path);
            match rest {
                _ if spans_directories => descend(&below, patterns, recursive, files).await?,
                [] if recursive => collect(&below, true, files).await?,
                [] => {}
                rest => descend(&below, rest, recursive, files).await?,
            }
        }
        Ok(())
    })
}

fn matches(pattern: &Pattern, path: &Path) -> bool {
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    path.filename().is_some_and(|name| pattern.matches_with(name, options))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Stores;

    fn names(root: &std::path::Path, path: &str, selection: &FileSelection) -> Vec<String> {
        let location = Stores::local().resolve(&format!("{}/{path}", root.display())).unwrap();
        let files = futures::executor::block_on(list_files(&location, selection)).unwrap();
        let base = Path::from_absolute_path(root).unwrap();
        files.iter().map(|file| file.location.as_ref()[base.as_ref().len() + 1..].to_owned()).collect()
    }

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in ["a.csv", "b.csv", "c.json", "_SUCCESS", ".hidden.csv", "x/d.csv", "x/y/e.csv", "_tmp/f.csv"] {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "1\n").unwrap();
        }
        root
    }

    #[test]
    fn a_directory_holds_its_visible_files() {
        let root = tree();
        let flat = FileSelection::default();
        assert_eq!(names(root.path(), "", &flat), ["a.csv", "b.csv", "c.json"]);
        let deep = FileSelection { recursive: true, pattern: None };
        assert_eq!(names(root.path(), "", &deep), ["a.csv", "b.csv", "c.json", "x/d.csv", "x/y/e.csv"]);
        let csv = FileSelection { recursive: true, pattern: Some(Regex::new("^(?:.*[de]\\.csv)$").unwrap()) };
        assert_eq!(names(root.path(), "", &csv), ["x/d.csv", "x/y/e.csv"]);
    }

    #[test]
    fn globs_match_by_component() {
        let root = tree();
        let flat = FileSelection::default();
        assert_eq!(names(root.path(), "*.csv", &flat), ["a.csv", "b.csv"]);
        assert_eq!(names(root.path(), "[ac].*", &flat), ["a.csv", "c.json"]);
        assert_eq!(names(root.path(), "*/d.csv", &flat), ["x/d.csv"]);
        assert_eq!(names(root.path(), "**/*.csv", &flat), ["a.csv", "b.csv", "x/d.csv", "x/y/e.csv"]);
        assert!(names(root.path(), "z*", &flat).is_empty());
    }

    #[test]
    fn a_missing_path_is_named() {
        let location = Stores::local().resolve("/no/such/flights.csv").unwrap();
        let listed = futures::executor::block_on(list_files(&location, &FileSelection::default()));
        let error = listed.unwrap_err();
        assert_eq!(error.kind(), tidemill_core::ErrorKind::Unavailable);
        assert_eq!(error.to_string(), "/no/such/flights.csv does not exist; neither does the folder /no/such");
        let root = tree();
        let location = Stores::local().resolve(&format!("{}/a.cvs", root.path().display())).unwrap();
        let error = futures::executor::block_on(list_files(&location, &FileSelection::default())).unwrap_err();
        assert_eq!(error.hint(), Some("did you mean 'a.csv'?"));
    }
}
