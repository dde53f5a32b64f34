//! Single files and tables that replace what was there: what stays, what goes, and what a failure leaves.

use super::*;

#[test]
fn write_modes() {
    use WriteMode::{NoOverwrite, Overwrite};
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = ([numbers([1])], [numbers([2]), numbers([3])]);
    let single = directory.path().join("single.csv");
    write_file(&single, "csv", NoOverwrite, 1, &old).unwrap();
    let error = write_file(&single, "csv", NoOverwrite, 1, &new).unwrap_err();
    assert!(error.to_string().contains("single.csv exists already"), "{error}");
    write_file(&single, "csv", Overwrite, 1, &new).unwrap();
    assert_eq!(std::fs::read_to_string(&single).unwrap(), "2\n3\n");

    let parallel = directory.path().join("parallel");
    std::fs::create_dir(&parallel).unwrap();
    std::fs::write(parallel.join("stale"), "9\n").unwrap();
    write_file(&parallel, "csv", NoOverwrite, 2, &new).unwrap();
    assert_eq!(names(&parallel), ["1", "2", "stale"]);
    assert!(write_file(&parallel, "csv", NoOverwrite, 3, &new).is_err());
    write_file(&parallel, "csv", Overwrite, 2, &[old[0].clone(), old[0].clone()]).unwrap();
    assert_eq!(std::fs::read_to_string(parallel.join("2")).unwrap(), "1\n");
    assert_eq!(names(&parallel), ["1", "2", "stale"], "a local directory keeps stale files");

    let error = write_file(&parallel, "csv", Overwrite, 1, &new).unwrap_err();
    assert_eq!(error.to_string(), format!("'{}' is a folder; name a file", parallel.display()));
    assert_eq!(names(&parallel), ["1", "2", "stale"], "a folder is not replaced, whoever made it");
    std::fs::remove_dir_all(&parallel).unwrap();
    write_file(&parallel, "csv", Overwrite, 1, &new).unwrap();
    assert!(write_file(&parallel, "csv", NoOverwrite, 2, &new).is_err(), "a file where the directory would be");
    write_file(&parallel, "csv", Overwrite, 2, &new).unwrap();
    assert_eq!(names(&parallel), ["1", "2"]);
    assert_eq!(names(directory.path()), ["parallel", "single.csv"]);
}

#[test]
fn a_failed_overwrite_keeps_the_old_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f.csv.gz");
    write_file(&path, "csv", WriteMode::NoOverwrite, 1, &[numbers([1])]).unwrap();
    let new = [numbers([2])];
    let committer = run(&file_sink(&path, "csv", WriteMode::Overwrite, 1, &new).unwrap(), 1, &new).unwrap();
    block_on(committer.abort()).unwrap();
    assert_eq!(rows_in(&path, &new[0].schema(), &[]).unwrap(), ["1"]);
    assert_eq!(names(directory.path()), ["f.csv.gz"]);
}

#[test]
fn a_folder_in_the_way_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sub.csv");
    let rows = [numbers([1])];
    let sink = file_sink(&path, "csv", WriteMode::Overwrite, 1, &rows).unwrap();
    let committer = run(&sink, 1, &rows).unwrap();
    // It comes while the job runs.
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("kept"), "1\n").unwrap();
    let message = format!("'{}' is a folder; name a file", path.display());
    assert_eq!(block_on(committer.finish()).unwrap_err().to_string(), message);
    block_on(committer.abort()).unwrap();
    assert_eq!(sink.prepare().unwrap_err().to_string(), message);
    assert_eq!((names(directory.path()), names(&path)), (vec!["sub.csv".to_owned()], vec!["kept".to_owned()]));

    let numbered = directory.path().join("numbered");
    std::fs::create_dir_all(numbered.join("2/kept")).unwrap();
    let error = write_file(&numbered, "csv", WriteMode::Overwrite, 2, &rows).unwrap_err();
    assert!(error.to_string().ends_with("/numbered/2' is a folder; name a file"), "{error}");
    assert_eq!((names(&numbered), names(&numbered.join("2"))), (vec!["2".to_owned()], vec!["kept".to_owned()]));
}

#[test]
fn a_name_that_no_file_can_have_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("pp");
    let rows = [numbers([1])];
    let long = folder.join(format!("{}.csv", "x".repeat(260)));
    let sink = file_sink(&long, "csv", WriteMode::Overwrite, 1, &rows).unwrap();
    let error = sink.prepare().unwrap_err().to_string();
    assert!(error.contains("File name too long") && error.ends_with("; choose another name"), "{error}");
    assert!(!folder.exists());
    // The longest name that there can be; hidden names are not made of it.
    let longest = folder.join(format!("{}.csv", "x".repeat(251)));
    write_file(&longest, "csv", WriteMode::Overwrite, 1, &rows).unwrap();
    assert!(longest.exists());
    let job = "j".repeat(225);
    let sink = table(&folder, &rows[0].schema(), &job, Disposition::Append, &[("format", "csv")]);
    let error = sink.prepare().unwrap_err().to_string();
    assert!(error.ends_with("; choose a shorter name for the job or its file"), "{error}");
    assert_eq!(names(&folder).len(), 1);
}

/// A marker for `path` whose hidden file cannot get that name, since it became a folder.
fn stuck(path: &Path, rows: &[RecordBatch]) -> Arc<dyn Committer> {
    let committer = run(&file_sink(path, "csv", WriteMode::Overwrite, 1, rows).unwrap(), 1, rows).unwrap();
    let hidden = names(path.parent().unwrap()).into_iter().find(|name| name.ends_with(".ready")).unwrap();
    let shown = path.file_name().unwrap().to_str().unwrap().to_owned();
    let place = Stores::local().resolve(path.parent().unwrap().to_str().unwrap()).unwrap();
    block_on(Replacement { published: vec![(hidden, shown)], condemned: vec![] }.begin(&place, "job")).unwrap();
    std::fs::create_dir(path).unwrap();
    committer
}

#[test]
fn an_aborted_job_withdraws_what_it_cannot_publish() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f.csv");
    let committer = stuck(&path, &[numbers([1])]);
    assert!(block_on(committer.finish()).is_err());
    block_on(committer.abort()).unwrap();
    assert_eq!(names(directory.path()), ["f.csv"]);
    assert!(path.is_dir());
}

/// Another run of the same job was killed while it published: what it wrote counts, and is there before this one writes.
#[test]
fn who_begins_anew_behind_a_run_that_was_publishing_finishes_that_first() {
    for mode in [WriteMode::NoOverwrite, WriteMode::Overwrite] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f.csv");
        let (old, new) = ([numbers([1])], [numbers([2])]);
        drop(run(&file_sink(&path, "csv", mode, 1, &old).unwrap(), 1, &old).unwrap());
        let hidden = names(directory.path()).remove(0);
        let place = Stores::local().resolve(directory.path().to_str().unwrap()).unwrap();
        let published = vec![(hidden, "f.csv".to_owned())];
        block_on(Replacement { published, condemned: vec![] }.begin(&place, "job")).unwrap();

        let sink = file_sink(&path, "csv", mode, 1, &new).unwrap();
        let committer = sink.prepare().unwrap();
        let begun = block_on(committer.recover(Vec::new(), &[], Predecessor::Nobody));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
        match mode {
            WriteMode::NoOverwrite => assert!(begun.unwrap_err().to_string().contains("f.csv exists already")),
            WriteMode::Overwrite => {
                begun.unwrap();
                let mut writer = sink.writer(&sink_context(0, 1, new[0].schema())).unwrap();
                block_on(writer.write(Batch::append(new[0].clone()))).unwrap();
                block_on(committer.commit(block_on(writer.prepare_commit(None)).unwrap())).unwrap();
                block_on(committer.finish()).unwrap();
                assert_eq!(std::fs::read_to_string(&path).unwrap(), "2\n");
            }
        }
        assert_eq!(names(directory.path()), ["f.csv"], "{mode:?}");
    }
}

#[test]
fn a_stuck_replacement_holds_up_only_what_it_collides_with() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f.csv");
    let rows = [numbers([1])];
    drop(stuck(&path, &rows));
    let copy = |name: &str, job: &str| {
        let path = directory.path().join(name);
        let location = Stores::local().resolve(path.to_str().unwrap()).unwrap();
        let format = Format::from_options("csv", &mut options(&path, &[])).unwrap();
        let schema = rows[0].schema();
        let sink = FileSink::write_as(name, location, format, schema, job, WriteMode::Overwrite, 1).unwrap();
        run_to_end(&sink, 1, &rows)
    };
    copy("g.csv", "two").unwrap();
    let error = copy("f.csv", "two").unwrap_err().to_string();
    assert!(error.ends_with(".replace-job is of a job that did not end; mend what is in its way"), "{error}");
    let schema = rows[0].schema();
    let error = table(directory.path(), &schema, "three", Disposition::Replace, &[("format", "csv")]).prepare();
    assert!(error.is_err(), "what the marker shows would stay");
    std::fs::write(directory.path().join(".replace-torn"), "{").unwrap();
    copy("g.csv", "two").unwrap();
    std::fs::remove_file(directory.path().join(".replace-torn")).unwrap();
    std::fs::remove_dir(&path).unwrap();
    copy("g.csv", "two").unwrap();
    assert_eq!(names(directory.path()), ["f.csv", "g.csv"], "the way is free: the next job ends it");
}

#[test]
fn one_text_file_over_several_checkpoints() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f.csv");
    let sink = file_sink(&path, "csv", WriteMode::NoOverwrite, 1, &[numbers([])]).unwrap();
    let committer = sink.prepare().unwrap();
    block_on(async {
        let mut writer = sink.writer(&sink_context(0, 1, numbers([]).schema())).unwrap();
        for n in 1..=12 {
            writer.write(Batch::append(numbers([n]))).await.unwrap();
            committer.commit(writer.prepare_commit(Some(n as u64)).await.unwrap()).await.unwrap();
        }
        committer.commit(writer.prepare_commit(None).await.unwrap()).await.unwrap();
        assert!(!path.exists());
        committer.finish().await.unwrap();
    });
    let expected: String = (1..=12).map(|n| format!("{n}\n")).collect();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    assert_eq!(names(directory.path()), ["f.csv"]);
}

#[test]
fn replacing_takes_exactly_the_old_files() {
    let directory = tempfile::tempdir().unwrap();
    let schema = numbers([]).schema();
    let csv = [("format", "csv")];
    // A folder is no pattern, even if it is called like one.
    std::fs::write(directory.path().join("t1"), "1\n").unwrap();
    for folder in ["t", "t[1]"] {
        let path = directory.path().join(folder);
        let job = |job: &str, disposition| table(&path, &schema, job, disposition, &csv);
        run_to_end(&*job("one", Disposition::Append), 2, &[numbers([1]), numbers([2])]).unwrap();
        std::fs::create_dir_all(path.join("sub/old.csv")).unwrap();
        for kept in ["_SUCCESS", ".hidden", "t1.csv/", "sub/old.csv/kept"] {
            match kept.strip_suffix('/') {
                Some(folder) => std::fs::create_dir(path.join(folder)).unwrap(),
                None => std::fs::write(path.join(kept), "9\n").unwrap(),
            }
        }
        run_to_end(&*job("two", Disposition::Replace), 1, &[numbers([3])]).unwrap();
        let [hidden, success, part, sub, t1] = &names(&path)[..] else { panic!("{:?}", names(&path)) };
        assert_eq!([hidden, success, sub, t1], [".hidden", "_SUCCESS", "sub", "t1.csv"]);
        assert_eq!(std::fs::read_to_string(path.join(part)).unwrap(), "3\n");
        assert!(path.join("sub/old.csv/kept").exists());
    }
    assert!(directory.path().join("t1").exists());
}

/// A crash right behind the marker: readers see the new rows already, and the next job tidies up.
#[test]
fn a_replacement_counts_from_its_marker_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t");
    let schema = numbers([]).schema();
    let csv = [("format", "csv")];
    run_to_end(&*table(&path, &schema, "one", Disposition::Append, &csv), 1, &[numbers([1])]).unwrap();
    let old = names(&path);
    run(&*table(&path, &schema, "two", Disposition::Replace, &csv), 1, &[numbers([2])]).unwrap();
    assert_eq!(rows_in(&path, &schema, &csv).unwrap(), ["1"]);
    let hidden = names(&path).into_iter().find(|name| name.ends_with(".ready")).unwrap();
    let shown = hidden.trim_start_matches('.').trim_end_matches(".ready").to_owned();
    let replacement = Replacement { published: vec![(hidden, shown)], condemned: old };
    let place = Stores::local().resolve(path.to_str().unwrap()).unwrap();
    block_on(replacement.begin(&place, "two")).unwrap();
    assert_eq!(rows_in(&path, &schema, &csv).unwrap(), ["2"]);
    run_to_end(&*table(&path, &schema, "three", Disposition::Append, &csv), 1, &[numbers([3])]).unwrap();
    assert_eq!(rows_in(&path, &schema, &csv).unwrap(), ["2", "3"]);
    assert!(names(&path).iter().all(|name| !name.starts_with('.')), "{:?}", names(&path));
}

#[test]
fn write_modes_on_an_object_store() {
    let stores = Stores::local().with("mem://lake", Arc::new(object_store::memory::InMemory::new()));
    let batches = [numbers([2]), numbers([3])];
    let write = |mode, parallelism| {
        let format = Format::from_options("csv", &mut options(Path::new("/"), &[]))?;
        let location = stores.resolve("mem://lake/out")?;
        let sink = FileSink::write_as("out", location, format, batches[0].schema(), "job", mode, parallelism)?;
        run_to_end(&sink, parallelism, &batches)
    };
    let files = || {
        let location = stores.resolve("mem://lake/out").unwrap();
        let files = block_on(crate::store::list_files(&location, &FileSelection::default())).unwrap();
        files.iter().map(|file| file.location.to_string()).collect::<Vec<_>>()
    };
    write(WriteMode::NoOverwrite, 2).unwrap();
    assert_eq!(files(), ["out/1", "out/2"]);
    assert!(write(WriteMode::NoOverwrite, 2).unwrap_err().to_string().starts_with("mem://lake/out exists already"));
    assert!(write(WriteMode::NoOverwrite, 1).is_err());
    assert_eq!(write(WriteMode::Overwrite, 1).unwrap_err().to_string(), "'out' is a folder; name a file");
    assert_eq!(files(), ["out/1", "out/2"]);
    for file in ["out/1", "out/2"] {
        block_on(stores.resolve(&format!("mem://lake/{file}")).unwrap().delete()).unwrap();
    }
    write(WriteMode::Overwrite, 1).unwrap();
    assert_eq!(files(), ["out"]);
    write(WriteMode::Overwrite, 2).unwrap();
    assert_eq!(files(), ["out/1", "out/2"]);
}
