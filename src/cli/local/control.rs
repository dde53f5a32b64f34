//! What a running process answers to those who find it by its folder: one line of JSON each way, over a connection to this
//! machine, to whoever knows the token in the control file.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill::sql::{SessionJob, store_folder};
use tidemill_connectors::store::Stores;
use tidemill_core::settings::CheckpointSettings;
use tidemill_core::{Error, ErrorKind, Result, Settings};
use tidemill_exec::runtime::{CheckpointCounts, CheckpointInfo, StoreFolder};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::folder::Folder;

/// The name of the control file.
pub const CONTROL_FILE: &str = "control.json";
/// The longest question or answer that is read.
pub const MESSAGE_BYTES_MAX: u64 = 8 << 20;

/// How long a question may be on its way.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the process waits before it accepts connections again, after it could not.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a process whose jobs have ended waits for answers that are on their way.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where a process listens.
#[derive(Debug, Serialize, Deserialize)]
pub struct Address {
    pub address: String,
    pub pid: u32,
    pub token: String,
}

/// A question.
#[derive(Debug, Serialize, Deserialize)]
pub struct Question {
    pub token: String,
    /// The job: its folder's name, its statement or its number; may be left out where there is one job.
    pub job: Option<String>,
    pub ask: Ask,
}

/// What can be asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    List,
    Info,
    Checkpoints,
    Checkpoint,
    Savepoint { path: Option<String> },
    Stop { drain: bool, path: Option<String> },
    Cancel,
}

impl Ask {
    /// Whether it changes nothing, and waits for nothing.
    pub fn is_look(&self) -> bool {
        matches!(self, Self::List | Self::Info | Self::Checkpoints)
    }
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Jobs(Vec<JobInfo>),
    Checkpoints(Vec<CheckpointLine>),
    /// The place of a savepoint, or the number of a checkpoint.
    Place(String),
    Done,
    Failed {
        request: bool,
        message: String,
        hint: Option<String>,
    },
}

/// A job, for people.
#[derive(Debug, Serialize, Deserialize)]
pub struct JobInfo {
    pub id: String,
    pub name: String,
    pub state: String,
    pub restarts: usize,
    /// What failed first, if anything did.
    pub first_cause: Option<String>,
    pub last_failure: Option<String>,
    pub checkpoints_completed: u64,
    pub checkpoints_failed: u64,
    /// Rows and bytes of each task, and what else it counts.
    pub tasks: Vec<(String, Vec<(String, u64)>)>,
    /// What functions have added up so far.
    #[serde(default)]
    pub accumulators: BTreeMap<String, serde_json::Value>,
}

/// A checkpoint, for people. Times are milliseconds.
#[derive(Debug, Serialize, Deserialize)]
pub struct CheckpointLine {
    pub id: u64,
    pub kind: String,
    pub status: String,
    pub triggered_at: i64,
    pub duration_ms: f64,
    pub synchronous_ms: f64,
    pub alignment_ms: f64,
    /// Whether barriers overtook rows, and how many bytes of them the checkpoint holds.
    pub unaligned: bool,
    pub in_flight_bytes: u64,
    pub new_bytes: u64,
    pub total_bytes: u64,
    pub path: String,
    pub failure: Option<String>,
}

/// Answers as long as it lives.
#[derive(Debug)]
pub struct Control {
    file: PathBuf,
    /// Dropped to accept nobody any more.
    accepting: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Control {
    /// Begins to answer for `jobs`. Must be called within a runtime.
    pub async fn listen(folder: &Folder, jobs: Vec<SessionJob>, settings: &Settings, stores: Stores) -> Result<Self> {
        let unusable = |error: std::io::Error| Error::from(error).context("cannot listen on this machine");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?.to_string();
        let token = token()?;
        let file = folder.local.join(CONTROL_FILE);
        write_secret(&file, &Address { address, pid: std::process::id(), token: token.clone() })?;
        // As a URL, so that it stays what it is whatever paths without a scheme mean.
        let dir = match folder.dir.is_local() {
            true => format!("file://{}", folder.dir),
            false => folder.dir.to_string(),
        };
        let office = Arc::new(Office { jobs, token, checkpoints: settings.checkpoints(), dir, stores });
        let (accepting, closed) = oneshot::channel();
        let listener = Arc::new(listener);
        let accept = move || {
            let listener = listener.clone();
            async move { listener.accept().await.map(|(connection, _)| connection) }
        };
        let served = tokio::spawn(office.open(accept, closed));
        Ok(Self { file, accepting, served })
    }

    /// Ends it. Whoever has asked is answered: the one who stopped the last job, too.
    pub async fn close(self) {
        let Self { file, accepting, served } = self;
        drop(accepting);
        let _ = tokio::time::timeout(LAST_WORDS, served).await;
        // A process that is killed leaves it behind; who finds it learns that nobody listens.
        let _ = std::fs::remove_file(&file);
    }
}

/// What is needed to answer.
struct Office {
    jobs: Vec<SessionJob>,
    token: String,
    checkpoints: CheckpointSettings,
    dir: String,
    stores: Stores,
}

impl Office {
    /// Serves whoever `accept` lets in until the sender of `closed` is gone, and then those who are in.
    async fn open<F>(self: Arc<Self>, accept: impl Fn() -> F + Send, mut closed: oneshot::Receiver<()>)
    where
        F: Future<Output = std::io::Result<TcpStream>> + Send,
    {
        let mut answers = JoinSet::new();
        loop {
            tokio::select! {
                accepted = accept() => match accepted {
                    Ok(connection) => {
                        let office = self.clone();
                        answers.spawn(async move { office.serve(connection).await });
                    }
                    // Whoever knocked has gone, or too many files are open: some will be closed again.
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
                Some(_) = answers.join_next() => {}
                _ = &mut closed => break,
            }
        }
        answers.join_all().await;
    }

    async fn serve(&self, connection: TcpStream) {
        let (read, mut write) = connection.into_split();
        let mut line = String::new();
        let mut read = BufReader::new(read.take(MESSAGE_BYTES_MAX));
        // Whoever connects and says nothing does not hold a connection for ever.
        if !matches!(tokio::time::timeout(PATIENCE, read.read_line(&mut line)).await, Ok(Ok(_))) {
            return;
        }
        let answer = match serde_json::from_str::<Question>(&line) {
            Ok(question) if question.token == self.token => match self.answer(question).await {
                Ok(answer) => answer,
                Err(error) => Answer::Failed {
                    request: error.kind() == ErrorKind::Request,
                    message: error.message().to_owned(),
                    hint: error.hint().map(str::to_owned),
                },
            },
            // Who does not know the token learns nothing.
            _ => return,
        };
        if let Ok(mut text) = serde_json::to_string(&answer) {
            text.push('\n');
            // Whoever asked may have gone.
            let _ = write.write_all(text.as_bytes()).await;
        }
    }

    async fn answer(&self, Question { job, ask, .. }: Question) -> Result<Answer> {
        match ask {
            Ask::List => Ok(Answer::Jobs(self.jobs.iter().map(job_info).collect())),
            Ask::Info => Ok(Answer::Jobs(vec![job_info(self.find(job.as_deref())?)])),
            Ask::Checkpoints => {
                let job = self.find(job.as_deref())?;
                Ok(Answer::Checkpoints(job.handle.checkpoints().iter().map(checkpoint_line).collect()))
            }
            Ask::Checkpoint => {
                let control = self.find(job.as_deref())?.handle.control().await?;
                Ok(Answer::Place(control.checkpoint().await?.to_string()))
            }
            Ask::Savepoint { path } => {
                let job = self.find(job.as_deref())?;
                let place = self.savepoint_place(job, path)?;
                job.handle.control().await?.savepoint(place.clone()).await?;
                Ok(Answer::Place(place.url))
            }
            Ask::Stop { drain, path } => {
                let job = self.find(job.as_deref())?;
                let place = self.savepoint_place(job, path)?;
                job.handle.control().await?.stop(drain, Some(place.clone())).await?;
                Ok(Answer::Place(place.url))
            }
            Ask::Cancel => {
                self.find(job.as_deref())?.handle.cancel_by_user();
                Ok(Answer::Done)
            }
        }
    }

    fn find(&self, name: Option<&str>) -> Result<&SessionJob> {
        let names = || self.jobs.iter().map(|job| job.folder.as_str()).collect::<Vec<_>>().join(", ");
        match (name, self.jobs.as_slice()) {
            (None, [only]) => Ok(only),
            (None, _) => Err(Error::request(format!("there are several jobs: {}", names())).with_hint("name one")),
            (Some(name), jobs) => {
                let is_meant = |job: &&SessionJob| {
                    [&job.id, &job.folder, &job.statement].iter().any(|known| known.as_str() == name)
                };
                let found = jobs.iter().find(is_meant);
                found.ok_or_else(|| {
                    Error::request(format!("no job '{name}'")).with_hint(format!("there is {}", names()))
                })
            }
        }
    }

    /// Where a savepoint goes: into the folder that is named, else into a new one where savepoints are kept.
    fn savepoint_place(&self, job: &SessionJob, path: Option<String>) -> Result<StoreFolder> {
        let path = path.unwrap_or_else(|| {
            let dir = self.checkpoints.savepoint_dir.clone();
            let dir = dir.unwrap_or_else(|| format!("{}/savepoints", self.dir));
            let last = job.handle.checkpoints().last().map_or(0, |checkpoint| checkpoint.id);
            format!("{}/{}-{}-{:x}", dir.trim_end_matches('/'), job.folder, last + 1, std::process::id())
        });
        Ok(store_folder(&self.stores.resolve(&path)?))
    }
}

fn job_info(job: &SessionJob) -> JobInfo {
    let failures = job.handle.failures();
    let CheckpointCounts { completed, failed } = job.handle.checkpoint_counts();
    let state = match job.handle.outcome() {
        None => "running".to_owned(),
        Some(Ok(_)) => "finished".to_owned(),
        Some(Err(error)) => format!("failed: {error}"),
    };
    let counters = |counters: BTreeMap<&'static str, u64>| {
        counters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    };
    JobInfo {
        id: job.id.clone(),
        name: job.folder.clone(),
        state,
        restarts: job.handle.restart_count(),
        first_cause: failures.first().map(|failure| failure.error.to_string()),
        last_failure: failures.last().map(|failure| failure.error.to_string()),
        checkpoints_completed: completed,
        checkpoints_failed: failed,
        tasks: job.handle.metrics().by_task().into_iter().map(|(name, values)| (name, counters(values))).collect(),
        accumulators: job.handle.accumulators().shown(),
    }
}

fn checkpoint_line(info: &CheckpointInfo) -> CheckpointLine {
    let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
    CheckpointLine {
        id: info.id,
        kind: info.kind.to_owned(),
        status: format!("{:?}", info.status).to_lowercase(),
        triggered_at: info.triggered_at,
        duration_ms: millis(info.duration),
        synchronous_ms: millis(info.stalled),
        alignment_ms: millis(info.alignment),
        unaligned: info.unaligned,
        in_flight_bytes: info.in_flight_bytes,
        new_bytes: info.new_bytes,
        total_bytes: info.total_bytes,
        path: info.path.clone(),
        failure: info.failure.clone(),
    }
}

/// 128 bits from the system.
fn token() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0u8; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
    read.map_err(|error| Error::from(error).context("the system has no randomness"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes a file that nobody else may read.
fn write_secret(path: &Path, address: &Address) -> Result<()> {
    let text = serde_json::to_vec(address).map_err(|error| Error::internal("no JSON").with_source(error))?;
    // One that a killed process left may belong to anybody by now.
    let _ = std::fs::remove_file(path);
    let mut options = std::fs::File::options();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(&text));
    written.map_err(|error| Error::from(error).context(path.display()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn who_comes_after_a_connection_that_failed_is_answered() {
        let office = Office {
            jobs: Vec::new(),
            token: "token".to_owned(),
            checkpoints: Settings::default().checkpoints(),
            dir: String::new(),
            stores: Stores::local(),
        };
        let listener = Arc::new(TcpListener::bind(("127.0.0.1", 0)).await.unwrap());
        let address = listener.local_addr().unwrap();
        let failures = Arc::new(AtomicUsize::new(0));
        let accept = move || {
            let (listener, failures) = (listener.clone(), failures.clone());
            async move {
                match failures.fetch_add(1, Ordering::Relaxed) {
                    0 | 1 => Err(std::io::ErrorKind::ConnectionAborted.into()),
                    _ => listener.accept().await.map(|(connection, _)| connection),
                }
            }
        };
        let (accepting, closed) = oneshot::channel();
        let served = tokio::spawn(Arc::new(office).open(accept, closed));
        let asked = async {
            let (read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
            let question = Question { token: "token".to_owned(), job: None, ask: Ask::List };
            write.write_all((serde_json::to_string(&question).unwrap() + "\n").as_bytes()).await.unwrap();
            let mut line = String::new();
            BufReader::new(read).read_line(&mut line).await.unwrap();
            line
        };
        assert_eq!(tokio::time::timeout(PATIENCE, asked).await.unwrap(), "{\"jobs\":[]}\n");
        drop(accepting);
        served.await.unwrap();
    }
}
