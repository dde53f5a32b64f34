//! How stores are reached, where the URL alone does not say it. What is unset is taken from the environment, as the vendors'
//! own tools do.

use std::fmt;

use super::Settings;

/// Servers, credentials and files of clients.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreSettings {
    /// `fs.default-scheme`, if set.
    pub default_scheme: Option<String>,
    /// `fs.hdfs.hadoopconf`, if set.
    pub hadoop_conf: Option<String>,
    /// `s3.endpoint`, if set.
    pub s3_endpoint: Option<String>,
    /// `s3.endpoint.region`, if set.
    pub s3_region: Option<String>,
    /// `s3.access-key`, if set.
    pub s3_access_key: Option<String>,
    /// `s3.secret-key`, if set.
    pub s3_secret_key: Option<String>,
    /// `s3.path.style.access`, if set.
    pub s3_path_style: Option<bool>,
}

/// Without the secrets, which are to stand in no log.
impl fmt::Debug for StoreSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSettings").field("s3_endpoint", &self.s3_endpoint).finish_non_exhaustive()
    }
}

impl Settings {
    /// How stores are reached.
    pub fn stores(&self) -> StoreSettings {
        let text = |key| self.is_set(key).then(|| self.text(key).trim().to_owned()).filter(|text| !text.is_empty());
        StoreSettings {
            default_scheme: text("fs.default-scheme"),
            hadoop_conf: text("fs.hdfs.hadoopconf"),
            s3_endpoint: text("s3.endpoint"),
            s3_region: text("s3.endpoint.region"),
            s3_access_key: text("s3.access-key"),
            s3_secret_key: text("s3.secret-key"),
            s3_path_style: text("s3.path.style.access").map(|text| text.eq_ignore_ascii_case("true")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Origin;

    #[test]
    fn what_is_unset_is_left_to_the_environment_and_secrets_are_not_shown() {
        let mut settings = Settings::default();
        assert_eq!(settings.stores(), StoreSettings::default());
        settings.set("s3.endpoint", "http://127.0.0.1:9000", Origin::Statement).unwrap();
        settings.set("s3.path-style-access", "FALSE", Origin::Statement).unwrap();
        settings.set("s3.secret-key", "hush", Origin::Statement).unwrap();
        let stores = settings.stores();
        assert_eq!(stores.s3_endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!((stores.s3_path_style, stores.s3_secret_key.as_deref()), (Some(false), Some("hush")));
        assert!(!format!("{stores:?}").contains("hush"));
        let shown = settings.all().into_iter().find(|(key, ..)| *key == "s3.secret-key").unwrap();
        assert_eq!(shown.1, "******");
    }
}
