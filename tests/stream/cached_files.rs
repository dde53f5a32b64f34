//! The distributed cache on the whole engine: shipped before `open`, gone with the job (SHR-06, SUB-25).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tidemill::stream::{Context, Environment, RichMapFunction, RuntimeContext};
use tidemill::{Error, Result, Settings};
use tidemill_connectors::store::{StoreFetcher, Stores};
use tidemill_core::shared::FileFetcher;
use tidemill_exec::runtime::Engine;

use super::{Setup, environment};

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

/// Brings a file that says where it is from, and counts how often.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

#[async_trait]
impl FileFetcher for Counting {
    async fn fetch(&self, url: &str, target: &Path) -> Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        std::fs::write(target, url)?;
        Ok(())
    }
}

/// Looks at the model when it is opened, and notes in which attempt and where; the first attempt fails at its first row.
#[derive(Clone)]
struct Modelled {
    opened: Arc<Mutex<Vec<(u32, PathBuf)>>>,
    attempt: u32,
}

impl RichMapFunction<i64> for Modelled {
    type Output = i64;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        let model = context.cached_file("model")?;
        assert_eq!(std::fs::read_to_string(&model)?, "models/7.bin");
        self.attempt = context.attempt();
        self.opened.lock().unwrap().push((self.attempt, model));
        Ok(())
    }

    fn map(&mut self, n: i64, _context: &mut Context<'_, ()>) -> Result<i64> {
        match self.attempt {
            0 => Err(Error::unavailable("the first attempt fails")),
            _ => Ok(n),
        }
    }
}

#[test]
fn a_file_is_shipped_once_however_many_subtasks_and_attempts_use_it() {
    let (temporary, fetcher) = (tempfile::tempdir().unwrap(), Arc::new(Counting::default()));
    let engine = Engine::new(vec![temporary.path().to_owned()]).unwrap().with_files(fetcher.clone());
    let setup = Setup { parallelism: 3, gate: "100 ms", batch_rows: 7 };
    let environment = Environment::within(engine.environment().clone(), setup.settings());
    environment.set("restart-strategy.type", "fixed-delay").set("restart-strategy.fixed-delay.delay", "1 ms");
    environment.register_cached_file("models/7.bin", "model", false);
    let function = Modelled { opened: Arc::default(), attempt: 0 };
    let numbers = environment.generate_sequence(1, 30).rich_map(function.clone()).rebalance();
    numbers.rich_map(function.clone()).filter(|_| false).print();
    let job = environment.execute_async("models").unwrap();
    engine.block_on(job.wait()).unwrap();

    let opened = std::mem::take(&mut *function.opened.lock().unwrap());
    // Two functions of three subtasks each; of the first attempt there is at least the one that failed.
    let of_attempt = |attempt| opened.iter().filter(|(number, _)| *number == attempt).count();
    assert_eq!((of_attempt(1), of_attempt(0) > 0, of_attempt(2)), (6, true, 0));
    assert!(opened.iter().all(|(_, path)| *path == opened[0].1), "there is one copy: {opened:?}");
    assert_eq!(fetcher.0.load(Ordering::SeqCst), 1);
    assert_eq!(entries(temporary.path()), Vec::<String>::new());
}
