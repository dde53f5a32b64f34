//! HDFS: a NameNode and a DataNode, each a process of its own.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;
use tidemill_connectors::store::Stores;

use super::Server;
use super::process::{Process, cached, free_port, get};

/// A file system of one DataNode.
pub struct Hdfs {
    port: u16,
    _nodes: [Process; 2],
    _folder: TempDir,
}

impl Hdfs {
    /// The file system that the tests share: it takes seconds to start. It ends with the last of them.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Hdfs>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Self::start());
            *shared = Arc::downgrade(&started);
            started
        })
    }

    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let [port, http, data, ipc, data_http] = std::array::from_fn(|_| free_port());
        configure(folder.path(), [port, http, data, ipc, data_http]);
        let format =
            java(folder.path(), &["namenode.NameNode", "-format", "-nonInteractive", "-force"]).output().unwrap();
        assert!(format.status.success(), "{}", String::from_utf8_lossy(&format.stderr));
        let log = |name: &str| folder.path().join(name);
        let name_node = Process::start(&java(folder.path(), &["namenode.NameNode"]), &log("namenode.log"));
        let data_node = Process::start(&java(folder.path(), &["datanode.DataNode"]), &log("datanode.log"));
        let says = |bean: &str, words: &str| {
            let answer = get(http, &format!("/jmx?qry=Hadoop:service=NameNode,name={bean}"));
            answer.is_some_and(|answer| answer.contains(words))
        };
        name_node.wait_until("HDFS", || {
            says("FSNamesystemState", "\"NumLiveDataNodes\" : 1") && says("NameNodeInfo", "\"Safemode\" : \"\"")
        });
        Self { port, _nodes: [name_node, data_node], _folder: folder }
    }
}

impl Server for Arc<Hdfs> {
    fn url(&self) -> String {
        format!("hdfs://127.0.0.1:{}", self.port)
    }

    fn stores(&self) -> Stores {
        Stores::new(None)
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

fn java(folder: &Path, arguments: &[&str]) -> Command {
    let (class, more) = arguments.split_first().unwrap();
    let java = std::env::var_os("JAVA_HOME").map_or_else(|| "java".into(), |home| Path::new(&home).join("bin/java"));
    let libraries = cached("hdfs-3.4.2").join("lib");
    let mut command = Command::new(java);
    command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true"]);
    command.args(["--add-opens", "java.base/java.lang=ALL-UNNAMED"]);
    command.arg(format!("-Dhadoop.log.dir={}", folder.join("logs").display()));
    command.args(["-cp", &format!("{}:{}/*", folder.join("conf").display(), libraries.display())]);
    command.arg(format!("org.apache.hadoop.hdfs.server.{class}")).args(more);
    command
}

fn configure(folder: &Path, [port, http, data, ipc, data_http]: [u16; 5]) {
    let conf = folder.join("conf");
    // The pages of the nodes are not in their jars, and nodes without pages do not start.
    for node in ["hdfs", "datanode"] {
        let pages = conf.join("webapps").join(node).join("WEB-INF");
        std::fs::create_dir_all(&pages).unwrap();
        let text = r#"<web-app xmlns="http://java.sun.com/xml/ns/javaee" version="2.5"></web-app>"#;
        std::fs::write(pages.join("web.xml"), text).unwrap();
    }
    std::fs::create_dir_all(conf.join("webapps/static")).unwrap();
    std::fs::create_dir_all(folder.join("logs")).unwrap();
    let place = |name: &str| folder.join(name).display().to_string();
    let write = |file: &str, properties: &[(&str, String)]| {
        let property = |(name, value): &(&str, String)| {
            format!("<property><name>{name}</name><value>{value}</value></property>\n")
        };
        let properties: String = properties.iter().map(property).collect();
        std::fs::write(conf.join(file), format!("<configuration>\n{properties}</configuration>\n")).unwrap();
    };
    let here = |port: u16| format!("127.0.0.1:{port}");
    write("core-site.xml", &[("fs.defaultFS", format!("hdfs://{}", here(port))), ("hadoop.tmp.dir", place("tmp"))]);
    write(
        "hdfs-site.xml",
        &[
            ("dfs.replication", "1".into()),
            ("dfs.namenode.name.dir", format!("file://{}", place("nn"))),
            ("dfs.datanode.data.dir", format!("file://{}", place("dn"))),
            ("dfs.namenode.http-address", here(http)),
            ("dfs.namenode.rpc-bind-host", "127.0.0.1".into()),
            ("dfs.datanode.address", here(data)),
            ("dfs.datanode.ipc.address", here(ipc)),
            ("dfs.datanode.http.address", here(data_http)),
            ("dfs.datanode.hostname", "127.0.0.1".into()),
            ("dfs.namenode.datanode.registration.ip-hostname-check", "false".into()),
            ("dfs.permissions.enabled", "false".into()),
            ("dfs.namenode.fs-limits.min-block-size", "0".into()),
            ("dfs.heartbeat.interval", "1".into()),
        ],
    );
    let log = "log4j.rootLogger=INFO,C\nlog4j.appender.C=org.apache.log4j.ConsoleAppender\n\
               log4j.appender.C.layout=org.apache.log4j.PatternLayout\nlog4j.appender.C.layout.ConversionPattern=%d %p %c: %m%n\n";
    std::fs::write(conf.join("log4j.properties"), log).unwrap();
}
