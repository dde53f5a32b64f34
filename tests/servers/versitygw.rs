//! S3 as versitygw serves it: objects are plain files of a folder, which a test can look at, and damage.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tidemill_connectors::store::Stores;
use tidemill_core::settings::StoreSettings;

use super::Server;
use super::process::{Process, cached, free_port, get};

const ACCESS_KEY: &str = "testkey";
const SECRET_KEY: &str = "testsecret";
const BUCKET: &str = "lake";

/// An S3 server with one bucket.
pub struct Versitygw {
    port: u16,
    process: Process,
    folder: TempDir,
}

impl Versitygw {
    pub fn start() -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir_all(folder.path().join("data").join(BUCKET)).unwrap();
        let port = free_port();
        Self { port, process: launch(folder.path(), port), folder }
    }

    /// The file that the object `key` is.
    pub fn file(&self, key: &str) -> PathBuf {
        self.folder.path().join("data").join(BUCKET).join(key)
    }

    /// How many parts of uploads that are neither completed nor aborted take up space.
    pub fn parts(&self) -> usize {
        fn files(folder: &Path) -> usize {
            let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
            let paths = entries.map(|entry| entry.unwrap().path());
            paths.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
        }
        files(&self.file(".sgwtmp"))
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again where it was.
    pub fn start_again(&mut self) {
        self.process = launch(self.folder.path(), self.port);
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Server for Versitygw {
    fn url(&self) -> String {
        format!("s3://{BUCKET}")
    }

    fn stores(&self) -> Stores {
        Stores::new(None).with_settings(StoreSettings {
            s3_endpoint: Some(self.endpoint()),
            s3_access_key: Some(ACCESS_KEY.into()),
            s3_secret_key: Some(SECRET_KEY.into()),
            ..StoreSettings::default()
        })
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.into()),
            ("AWS_ALLOW_HTTP", "true".into()),
        ]
    }
}

fn launch(folder: &Path, port: u16) -> Process {
    let mut command = Command::new(cached("versitygw-1.8.0").join("versitygw"));
    command.args(["--port", &format!("127.0.0.1:{port}"), "--health", "/health", "--quiet", "posix"]);
    command.arg(folder.join("data"));
    command.env("ROOT_ACCESS_KEY", ACCESS_KEY).env("ROOT_SECRET_KEY", SECRET_KEY).env("HOME", folder);
    let process = Process::start(&command, &folder.join("log"));
    process.wait_until("versitygw", || get(port, "/health").is_some());
    process
}
