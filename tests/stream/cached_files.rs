//! The distributed cache on the whole engine: shipped before `open`, gone with the job (SHR-06, SUB-25).

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tidemill::stream::{Context, Environment, RichMapFunction, RuntimeContext};
use tidemill::{Error, Result, Settings};
use tidemill_connectors::store::{StoreFetcher, Stores};
use tidemill_exec::runtime::Engine;

use super::environment;

/// Runs a script from the cache, once a subtask, and reads the words beside it.
#[derive(Clone, Default)]
struct Scripted(String);

impl RichMapFunction<i64> for Scripted {
    type Output = String;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        let folder = context.cached_file("scripts")?;
        let output = Command::new(folder.join("greet.sh")).arg("deep/words").current_dir(&folder).output()?;
        assert!(output.status.success(), "{output:?}");
        self.0 = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(std::fs::metadata(folder.join("greet.sh"))?.permissions().readonly());
        Ok(())
    }

    fn map(&mut self, n: i64, _context: &mut Context<'_, ()>) -> Result<String> {
        match n {
            0..=9 => Ok(format!("{} {n}", self.0)),
            _ => Err(Error::data(format!("{n} is too much"))),
        }
    }
}

fn scripts(folder: &Path) {
    std::fs::create_dir_all(folder.join("deep")).unwrap();
    std::fs::write(folder.join("greet.sh"), "#!/bin/sh\necho hello $(cat \"$1\")\n").unwrap();
    std::fs::write(folder.join("deep/words"), "world").unwrap();
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_directory_is_shipped_with_what_may_be_executed_and_removed_when_the_job_is_over() {
    for parallelism in [1, 3] {
        let (source, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        scripts(source.path());
        let environment = environment(parallelism);
        environment.set("io.tmp.dirs", temporary.path().to_str().unwrap());
        environment.register_cached_file(source.path().to_str().unwrap(), "scripts", true);
        let greetings = environment.generate_sequence(1, 3).rich_map(Scripted::default());
        let mut greetings = greetings.collect().unwrap();
        greetings.sort();
        assert_eq!(greetings, ["hello world 1", "hello world 2", "hello world 3"]);
        assert_eq!(entries(temporary.path()), Vec::<String>::new());

        let failing = environment.generate_sequence(10, 12).rich_map(Scripted::default());
        assert!(failing.collect().unwrap_err().message().contains("is too much"));
        assert_eq!(entries(temporary.path()), Vec::<String>::new());
        assert_eq!(entries(source.path()).len(), 2, "the source stays");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name_and_url() {
    let (source, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = |url: &str, name: &str| {
        let environment = environment(2);
        environment.set("io.tmp.dirs", temporary.path().to_str().unwrap());
        environment.register_cached_file(url, name, false);
        environment.generate_sequence(1, 3).rich_map(Scripted::default()).collect().unwrap_err().to_string()
    };
    let missing = source.path().join("missing");
    let error = run(missing.to_str().unwrap(), "scripts");
    let expected = format!("cached file 'scripts' from '{}'", missing.display());
    assert!(error.contains(&expected) && error.contains("does not exist"), "{error}");
    let error = run("nowhere://bucket/scripts", "scripts");
    assert!(
        error.contains("cached file 'scripts' from 'nowhere://bucket/scripts': no store for 'nowhere://'"),
        "{error}"
    );
    let error = run(source.path().to_str().unwrap(), "skripts");
    assert!(error.contains("unknown cached file 'scripts'") && error.contains("did you mean 'skripts'?"), "{error}");
    assert_eq!(entries(temporary.path()), Vec::<String>::new());

    let environment = environment(1);
    environment.register_cached_file("a", "scripts", false).register_cached_file("b", "scripts", false);
    let error = environment.generate_sequence(1, 3).collect().unwrap_err();
    assert!(error.message().contains("two cached files are called 'scripts': 'a' and 'b'"), "{error}");
}

#[test]
fn files_come_from_any_store() {
    let (store, temporary) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
    let scripts = [("scripts/greet.sh", "#!/bin/sh\necho hello $(cat \"$1\")\n"), ("scripts/deep/words", "store")];
    let stores = Stores::local().with("mem://bucket", store.clone() as Arc<dyn ObjectStore>);
    let engine =
        Engine::new(vec![temporary.path().to_owned()]).unwrap().with_files(Arc::new(StoreFetcher::new(stores)));
    let environment = Environment::within(engine.environment().clone(), Settings::default());
    environment.register_cached_file("mem://bucket/scripts", "scripts", true);
    let greetings = environment.generate_sequence(1, 2).rich_map(Scripted::default());
    let greetings = engine.block_on(async {
        for (path, text) in scripts {
            store.put(&path.into(), text.into()).await.unwrap();
        }
        greetings.collect_async().await
    });
    let mut greetings = greetings.unwrap();
    greetings.sort();
    assert_eq!(greetings, ["hello store 1", "hello store 2"]);
    assert_eq!(entries(temporary.path()), Vec::<String>::new());
}
