//! Processes of servers: found in the cache, started, waited for, and gone when nobody needs them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to begin to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps the server as its child, and ends it when nobody holds the other end of its standard input: when it is to end, and when
/// the tests were killed.
const KEEPER: &str = r#""$@" & server=$!; read -r line; kill -9 "$server" 2>/dev/null; wait "$server" 2>/dev/null"#;

/// A running server.
pub struct Process {
    keeper: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, whose output goes to the file `log`.
    pub fn start(command: &Command, log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).unwrap();
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "sh"]).arg(command.get_program()).args(command.get_args());
        keeper.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        keeper.stdin(Stdio::piped()).stdout(output.try_clone().unwrap()).stderr(output);
        Self { keeper: keeper.spawn().unwrap(), log: log.to_owned() }
    }

    /// Waits until the server is ready.
    pub fn wait_until(&self, what: &str, mut is_ready: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_ready() {
            if begun.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().rev().take(30).collect();
                panic!("{what} is not ready; its log, newest first:\n{}", lines.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port of this machine that nobody had a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A folder of the cache with what a server consists of.
pub fn cached(name: &str) -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("TIDEMILL_CACHE").unwrap_or_else(|| {
        let caches = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
        caches.unwrap_or_default().join("tidemill")
    });
    let folder = cache.join("servers").join(name);
    assert!(folder.is_dir(), "{} is not there; scripts/servers.sh fetches it", folder.display());
    folder
}

/// What a server answers to `GET path`, if it answers and all is well.
pub fn get(port: u16, path: &str) -> Option<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).ok()?;
    connection.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(connection, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.lines().next()?.contains(" 200 ").then(|| body.to_owned())
}
