//! The clients of remote stores: made from a URL's beginning, the settings and the environment, and kept.
//!
//! | scheme | store | creates a name once | uploads gone on with |
//! | --- | --- | --- | --- |
//! | `s3`, `s3a` | Amazon S3 and what speaks like it | `If-None-Match` | yes |
//! | `gs` | Google Cloud Storage | generation 0 | yes |
//! | `az`, `abfs`, `abfss` | Azure Blob Storage | `If-None-Match` | yes |
//! | `hdfs` | HDFS | rename that replaces nothing | no |

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::multipart::MultipartStore;
use object_store::{ClientConfigKey, ObjectStore, RetryConfig};
use tidemill_core::error::{Error, Result};
use tidemill_core::settings::StoreSettings;
use tokio::runtime::Handle;

use super::hdfs::Hdfs;
use super::remote::{IoRuntime, Remote};
use super::{STORE_PAGE, innermost};

/// How often a client repeats what failed in passing, and for how long. Whoever called may try again after that.
const RETRIES_MAX: usize = 6;
const RETRIES_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a connection may take to come about. How long an answer may take is bounded around the client, where it is known who
/// waits for whom; what stands for it here only has to be longer than that.
const TIMEOUTS: [(ClientConfigKey, &str); 2] =
    [(ClientConfigKey::ConnectTimeout, "5 seconds"), (ClientConfigKey::Timeout, "1 day")];

/// A store, and the same store once more if its uploads can be gone on with.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) multipart: Option<Arc<dyn MultipartStore>>,
}

/// Clients by where their URLs begin and how they are set up.
pub(super) struct Clients {
    runtime: Arc<IoRuntime>,
    made: Mutex<BTreeMap<(String, StoreSettings), Client>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    S3,
    Google,
    Azure,
    Hdfs,
}

/// The schemes of remote stores.
pub(super) const SCHEMES: [&str; 7] = ["s3", "s3a", "gs", "az", "abfs", "abfss", "hdfs"];

fn kind(scheme: &str) -> Option<Kind> {
    match scheme {
        "s3" | "s3a" => Some(Kind::S3),
        "gs" => Some(Kind::Google),
        "az" | "abfs" | "abfss" => Some(Kind::Azure),
        "hdfs" => Some(Kind::Hdfs),
        _ => None,
    }
}

impl Clients {
    /// Clients that run on `runtime`, or on threads of their own.
    pub(super) fn new(runtime: Option<Handle>) -> Self {
        Self { runtime: Arc::new(IoRuntime::new(runtime)), made: Mutex::default() }
    }

    /// The client for URLs that begin with `scheme://authority`, if there is one for the scheme.
    pub(super) fn client(&self, scheme: &str, authority: &str, settings: &StoreSettings) -> Result<Option<Client>> {
        let Some(kind) = kind(scheme) else { return Ok(None) };
        let url = format!("{scheme}://{authority}");
        let key = (url, settings.clone());
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(&key) {
            return Ok(Some(client.clone()));
        }
        let url = &key.0;
        if authority.is_empty() && kind != Kind::Hdfs {
            let error = format!("'{url}' names no {}", if kind == Kind::Azure { "container" } else { "bucket" });
            return Err(Error::request(error).with_hint(format!("{url}NAME/path")));
        }
        let client = match kind {
            Kind::S3 => self.uploading(url, s3(authority, settings).build()),
            Kind::Google => {
                let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(authority).with_retry(retries());
                let set = |builder: GoogleCloudStorageBuilder, (key, value)| {
                    builder.with_config(GoogleConfigKey::Client(key), value)
                };
                self.uploading(url, TIMEOUTS.into_iter().fold(builder, set).build())
            }
            Kind::Azure => {
                let builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str()).with_retry(retries());
                let set = |builder: MicrosoftAzureBuilder, (key, value)| {
                    builder.with_config(AzureConfigKey::Client(key), value)
                };
                self.uploading(url, TIMEOUTS.into_iter().fold(builder, set).build())
            }
            Kind::Hdfs => {
                let handle = self.runtime.handle().map_err(|error| unusable(url, error))?;
                let made = Hdfs::new(url, settings.hadoop_conf.as_deref(), handle);
                let store = Remote::new(made.map_err(|error| unusable(url, error))?, self.runtime.clone());
                Ok(Client { store: Arc::new(store), multipart: None })
            }
        }?;
        made.insert(key, client.clone());
        Ok(Some(client))
    }

    fn uploading<S>(&self, url: &str, made: object_store::Result<S>) -> Result<Client>
    where
        S: ObjectStore + MultipartStore,
    {
        let store = Arc::new(Remote::new(made.map_err(|error| unusable(url, error))?, self.runtime.clone()));
        Ok(Client { store: store.clone(), multipart: Some(store) })
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clients")
    }
}

/// What the environment says, and above it what the settings say.
fn s3(bucket: &str, settings: &StoreSettings) -> AmazonS3Builder {
    use AmazonS3ConfigKey as K;
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    let given = [
        (K::S3Endpoint, settings.s3_endpoint.clone()),
        (K::Region, settings.s3_region.clone()),
        (K::AccessKeyId, settings.s3_access_key.clone()),
        (K::SecretAccessKey, settings.s3_secret_key.clone()),
        (K::VirtualHostedStyleRequest, settings.s3_path_style.map(|path_style| (!path_style).to_string())),
    ];
    for (key, value) in given {
        if let Some(value) = value {
            builder = builder.with_config(key, value);
        }
    }
    let endpoint = [K::S3Endpoint, K::Endpoint].iter().find_map(|key| builder.get_config_value(key));
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) && std::env::var_os("AWS_ALLOW_HTTP").is_none()
    {
        // Whoever writes http:// means it.
        builder = builder.with_config(K::Client(ClientConfigKey::AllowHttp), "true");
    }
    TIMEOUTS
        .into_iter()
        .fold(builder, |builder, (key, value)| builder.with_config(K::Client(key), value))
        .with_retry(retries())
}

fn retries() -> RetryConfig {
    RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRIES_TIME_MAX, ..RetryConfig::default() }
}

fn unusable(url: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let message = format!("no client for '{url}': {}", innermost(&error));
    Error::request(message).with_hint(format!("{STORE_PAGE} says what has to be set")).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_before_the_environment_and_clients_are_kept() {
        let settings = StoreSettings {
            s3_endpoint: Some("http://127.0.0.1:1".into()),
            s3_access_key: Some("k".into()),
            s3_secret_key: Some("s".into()),
            s3_path_style: Some(true),
            ..StoreSettings::default()
        };
        let builder = s3("lake", &settings);
        let value = |key: &AmazonS3ConfigKey| builder.get_config_value(key);
        assert_eq!(value(&AmazonS3ConfigKey::S3Endpoint).as_deref(), Some("http://127.0.0.1:1"));
        assert_eq!(value(&AmazonS3ConfigKey::VirtualHostedStyleRequest).as_deref(), Some("false"));
        let clients = Clients::new(None);
        let client = |settings: &StoreSettings| clients.client("s3", "lake", settings).unwrap().unwrap();
        let first = client(&settings);
        assert!(Arc::ptr_eq(&first.store, &client(&settings).store));
        assert!(!Arc::ptr_eq(&first.store, &client(&StoreSettings::default()).store));
        assert!(SCHEMES.iter().all(|scheme| kind(scheme).is_some()));
        assert!(clients.client("ftp", "x", &settings).unwrap().is_none());
    }
}
