//! What the operating system knows of this process: time, CPU, memory.

use tidemill::{Error, Result};

/// What `work` gives, and how many seconds passed.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let begin = std::time::Instant::now();
    let result = work()?;
    Ok((result, begin.elapsed().as_secs_f64()))
}

/// User and system time of all threads of this process so far, in seconds.
pub fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field may hold spaces; what is counted from begins behind its parenthesis.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields.get(11..13).unwrap_or_default().iter().filter_map(|field| field.parse::<f64>().ok());
    // Linux reports in hundredths of a second on every machine that Rust runs on.
    Ok(ticks.sum::<f64>() / 100.0)
}

/// The most memory that this process has occupied so far, in bytes.
pub fn resident_bytes_max() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.map(|count| count << 10).ok_or_else(|| Error::internal("/proc/self/status has no line VmHWM"))
}
