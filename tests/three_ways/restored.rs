//! The third way: a query that is stopped behind a savepoint in the middle of its input, goes on with another parallelism, is
//! stopped again, and goes on to the end. What its pieces gave, one after the other, is the answer.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidemill::sql::parser::Parsed;
use tidemill::sql::{Folded, Outcome, Query, Rows, Session, store_folder};
use tidemill_core::Event;
use tidemill_core::settings::Origin;
use tidemill_exec::runtime::{Ending, EventTrace};
use tokio::sync::Notify;

use super::Failure;

/// How wide the pieces run, one after the other; the first as the way says.
const WIDTHS: [&str; 3] = ["3", "1", "2"];
/// Pieces that are stopped.
const STOPS: usize = 2;

/// Says when so many batches have been taken in, and slows a job down that would otherwise have ended before it was asked to stop.
#[derive(Debug, Default)]
pub struct Pace {
    left: AtomicI64,
    reached: Notify,
    is_asked: AtomicBool,
}

impl Pace {
    fn set(&self, batches: i64) {
        self.is_asked.store(false, Ordering::SeqCst);
        self.left.store(batches, Ordering::SeqCst);
    }
}

impl EventTrace for Pace {
    fn event(&self, _: &str, _: usize, _: usize, event: &Event) {
        if !matches!(event, Event::Batch(_)) || self.left.load(Ordering::SeqCst) < -200 {
            return;
        }
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        if left == 1 {
            self.reached.notify_one();
        }
        // Whoever stops the job has 30 ms to do so, and the coordinator then a moment.
        for _ in 0..100 {
            std::thread::sleep(Duration::from_micros(300));
            if left > 1 || self.is_asked.load(Ordering::SeqCst) {
                break;
            }
        }
    }
}

/// Runs queries in pieces.
#[derive(Debug)]
pub struct InPieces {
    pub pace: Arc<Pace>,
    folder: tempfile::TempDir,
    queries: usize,
}

/// How many queries went on from a savepoint: a harness that never restores proves nothing.
pub static RESTORED: AtomicUsize = AtomicUsize::new(0);
/// Why savepoints were refused, for who finds that too few were taken.
pub static REFUSED: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl InPieces {
    pub fn new(pace: Arc<Pace>) -> Self {
        Self { pace, folder: tempfile::tempdir().unwrap(), queries: 0 }
    }

    /// Where the checkpoints of jobs go.
    pub fn checkpoints(&self) -> String {
        self.folder.path().join("checkpoints").display().to_string()
    }

    /// The rows of a query, and how many were late.
    pub async fn run(&mut self, session: &mut Session, parsed: &Parsed) -> Result<Option<(Rows, u64)>, Failure> {
        self.queries += 1;
        let (mut table, mut late, mut from) = (None::<Folded>, 0, None::<String>);
        for piece in 0.. {
            if let Some(from) = &from {
                session.settings_mut().set("execution.state-recovery.path", from, Origin::Statement)?;
                let width = WIDTHS[(self.queries + piece) % WIDTHS.len()];
                session.settings_mut().set("parallelism.default", width, Origin::Statement)?;
            }
            // Different for each query and piece, and reached while there is still something to read.
            let batches = 1 + (self.queries * 7 + piece * 5) % 11;
            self.pace.set(if piece < STOPS { batches as i64 } else { i64::MIN });
            let mut query = match session.execute(parsed).await? {
                Outcome::Query(query) => query,
                Outcome::Job(job) => {
                    job.wait().await?;
                    return Ok(None);
                }
                _ => return Ok(None),
            };
            let place = self.folder.path().join(format!("{}-{piece}", self.queries));
            let place = place.display().to_string();
            let folded = table.get_or_insert_with(|| query.table());
            let stopped = take(&mut query, folded, &self.pace, &place).await?;
            let result = query.job.wait().await?;
            late += result.late_records_dropped();
            RESTORED.fetch_add(usize::from(from.is_some()), Ordering::SeqCst);
            if let (Ending::Stopped, true) = (result.ending, stopped) {
                from = Some(place);
                continue;
            }
            session.settings_mut().reset(Some("execution.state-recovery.path"))?;
            session.settings_mut().reset(Some("parallelism.default"))?;
            return Ok(Some((query.ordered(folded.rows()?)?, late)));
        }
        Ok(None)
    }
}

/// Takes what a query gives until it ends, and asks it to stop when it is time. Whether it did.
async fn take(query: &mut Query, folded: &mut Folded, pace: &Pace, place: &str) -> Result<bool, Failure> {
    let control = query.job.control().await;
    let folder = store_folder(&tidemill_connectors::store::Stores::local().resolve(place)?);
    let stop = async {
        pace.reached.notified().await;
        pace.is_asked.store(true, Ordering::SeqCst);
        match control {
            Ok(control) => control.stop(false, Some(folder)).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    };
    let mut stop = std::pin::pin!(stop);
    let mut stopped = None;
    loop {
        tokio::select! {
            biased;
            outcome = &mut stop, if stopped.is_none() => {
                if let Err(reason) = &outcome {
                    REFUSED.lock().unwrap().push(reason.clone());
                }
                stopped = Some(outcome.is_ok());
            }
            batch = query.next_for_table() => match batch {
                Some(batch) => folded.apply(&batch)?,
                // The job may end before its last word about the savepoint is heard.
                None => break,
            },
        }
    }
    if query.job.wait().await.is_ok_and(|result| result.ending == Ending::Stopped) && stopped.is_none() {
        stopped = Some(stop.await.is_ok());
    }
    Ok(stopped == Some(true))
}
