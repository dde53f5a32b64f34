//! `kill -9` of processes at random moments, until as many kills as wanted have struck one at work.
//!
//! ```text
//! started | its control file names it | all jobs done | ended
//!    Beginning              Work                End          which kills meet what; only those of Work count
//! ```
//!
//! A job may end before enough kills have struck: whoever meets its end begins another. So the number of kills says the same on every
//! machine; processes and time have a bound.

use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a process says that does not begin anew.
pub const GOES_ON: &str = "goes on from checkpoint";
/// Jobs of the scripts that are killed, and what is said of one that is done.
const JOBS: usize = 2;
const DONE: [&str; 2] = [" done in ", " finished before"];
const SIGKILL: i32 = 9;
/// How many processes may be started for each kill that is wanted, and how long that may take.
const ATTEMPTS_MAX: usize = 5;
const PATIENCE: Duration = Duration::from_secs(240);
/// After a kill that came too early, the last moment is later by this part of it: the machine is slow.
const LATER: u64 = 10;

/// What a kill met.
pub enum Met {
    /// A process that had not started its jobs yet.
    Beginning,
    /// One with jobs at work.
    Work,
    /// One whose jobs were done, whether or not it had ended.
    End,
    /// One that an error had ended, which it had said.
    Failure(String),
}

/// The kills so far.
#[derive(Debug)]
pub struct Kills {
    wanted: usize,
    /// When they come, in milliseconds since a process was started.
    moments: Range<u64>,
    chance: Chance,
    begun: Instant,
    attempts: usize,
    struck: usize,
    resumed: usize,
}

impl Kills {
    pub fn new(wanted: usize, moments: Range<u64>) -> Self {
        Self { wanted, moments, chance: Chance::new(), begun: Instant::now(), attempts: 0, struck: 0, resumed: 0 }
    }

    /// Whether as many as wanted have struck a process at work, and half as many one that had gone on from a checkpoint.
    pub fn are_enough(&self) -> bool {
        self.struck >= self.wanted && 2 * self.resumed >= self.wanted
    }

    /// Starts a process, which writes `control` as soon as its jobs are started, and kills it at some moment; `meanwhile` comes just
    /// before.
    pub fn strike(&mut self, mut command: Command, control: &Path, meanwhile: impl FnOnce(&mut Chance)) -> Met {
        assert!(self.attempts < ATTEMPTS_MAX * self.wanted && self.begun.elapsed() < PATIENCE, "too few: {self:?}");
        self.attempts += 1;
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let moment = self.moments.start + self.chance.below(self.moments.end - self.moments.start);
        std::thread::sleep(Duration::from_millis(moment));
        meanwhile(&mut self.chance);
        let has_begun = is_of(control, process.id());
        // One that ended before keeps the status that it ended with.
        let _ = process.kill();
        let output = process.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let done: usize = DONE.iter().map(|words| told.matches(words).count()).sum();
        let is_struck = output.status.signal() == Some(SIGKILL);
        if told.lines().any(|line| line.starts_with("error: ")) || !is_struck && !output.status.success() {
            return Met::Failure(told);
        }
        if !is_struck || done >= JOBS {
            return Met::End;
        }
        let has_resumed = has_begun && told.contains(GOES_ON);
        if !has_resumed {
            self.moments.end += self.moments.end / LATER;
        }
        self.struck += usize::from(has_begun);
        self.resumed += usize::from(has_resumed);
        if has_begun { Met::Work } else { Met::Beginning }
    }
}

/// Whether a control file is that of a process, and not of one that was killed before.
fn is_of(control: &Path, process: u32) -> bool {
    let text = std::fs::read(control).unwrap_or_default();
    let address: Option<serde_json::Value> = serde_json::from_slice(&text).ok();
    address.is_some_and(|address| address["pid"].as_u64() == Some(u64::from(process)))
}

/// What the moments follow from.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// From the clock, or from `TIDEMILL_KILL_SEED` to have those of another run again. It is printed, which is seen when the test
    /// fails.
    fn new() -> Self {
        let asked = std::env::var("TIDEMILL_KILL_SEED").ok().map(|seed| seed.parse().unwrap());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = asked.unwrap_or(now.as_nanos() as u64).max(1);
        eprintln!("the moments of this run are those of TIDEMILL_KILL_SEED={seed}");
        Self(seed)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
