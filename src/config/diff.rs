//! What differs between two configurations, as a running daemon needs to know it.

use std::collections::BTreeMap;

use secrecy::ExposeSecret as _;

use super::keys::{Group, Key};
use super::proxy::Proxy;
use super::{Config, Credential};

/// Keys of one group that differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What has to be done; [`Group::Restart`]: it has no effect before the next start.
    pub group: Group,
    /// The keys, in the order of the documentation.
    pub keys: Vec<Key>,
}

/// Compares two configurations: one [`Change`] for each group that differs, in the order of
/// [`Group`]; nothing for equal ones. Values are compared, not how they were written.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    // Taken apart so that a new field cannot be forgotten here.
    let Config {
        backend_url,
        identifier,
        credential,
        report_interval,
        http_fallback_interval,
        backoff_cap,
        log_level,
        log_format,
        data_dir,
        control_socket,
        queue,
        ca_file,
        public_key_sha256,
        allow_insecure,
        proxy,
        transport,
        disk_path,
        root_fs,
        scope,
        report_nginx,
        openclaw,
        openclaw_home,
        bridge_listen,
    } = old;
    let same = [
        (Key::BackendUrl, *backend_url == new.backend_url),
        (Key::Identifier, *identifier == new.identifier),
        (
            credential_key(new.credential.as_ref().or(credential.as_ref())),
            same_credential(credential.as_ref(), new.credential.as_ref()),
        ),
        (Key::ReportInterval, *report_interval == new.report_interval),
        (Key::HttpFallbackInterval, *http_fallback_interval == new.http_fallback_interval),
        (Key::BackoffCap, *backoff_cap == new.backoff_cap),
        (Key::LogLevel, *log_level == new.log_level),
        (Key::LogFormat, *log_format == new.log_format),
        (Key::DataDir, *data_dir == new.data_dir),
        (Key::ControlSocket, *control_socket == new.control_socket),
        (Key::QueueMaxBytes, queue.max_bytes == new.queue.max_bytes),
        (Key::QueueMaxAge, queue.max_age == new.queue.max_age),
        (Key::RetainSent, queue.retain_sent == new.queue.retain_sent),
        (Key::RetainSentMaxBytes, queue.retain_sent_max_bytes == new.queue.retain_sent_max_bytes),
        (Key::RejectedMaxBytes, queue.rejected_max_bytes == new.queue.rejected_max_bytes),
        (Key::QuarantineMaxBytes, queue.quarantine_max_bytes == new.queue.quarantine_max_bytes),
        (Key::CaFile, *ca_file == new.ca_file),
        (Key::PublicKeySha256, *public_key_sha256 == new.public_key_sha256),
        (Key::AllowInsecure, *allow_insecure == new.allow_insecure),
        (Key::Proxy, same_proxy(proxy.as_ref(), new.proxy.as_ref())),
        (Key::Transport, *transport == new.transport),
        (Key::DiskPath, *disk_path == new.disk_path),
        (Key::RootFs, *root_fs == new.root_fs),
        (Key::Scope, *scope == new.scope),
        (Key::ReportNginx, *report_nginx == new.report_nginx),
        (Key::OpenClaw, *openclaw == new.openclaw),
        (Key::OpenClawHome, *openclaw_home == new.openclaw_home),
        (Key::BridgeListen, *bridge_listen == new.bridge_listen),
    ];
    let mut groups: BTreeMap<Group, Vec<Key>> = BTreeMap::new();
    for (key, _) in same.into_iter().filter(|(_, same)| !same) {
        groups.entry(key.group()).or_default().push(key);
    }
    groups.into_iter().map(|(group, keys)| Change { group, keys }).collect()
}

fn credential_key(credential: Option<&Credential>) -> Key {
    match credential {
        Some(Credential::ApiKey(_)) => Key::ApiKey,
        Some(Credential::Challenge(_)) | None => Key::ChallengeUuid,
    }
}

fn same_credential(old: Option<&Credential>, new: Option<&Credential>) -> bool {
    match (old, new) {
        (None, None) => true,
        (Some(old), Some(new)) => old.is_same(new),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn same_proxy(old: Option<&Proxy>, new: Option<&Proxy>) -> bool {
    fn parts(proxy: &Proxy) -> (&str, u16, Option<(&str, &str)>) {
        let credentials = proxy.credentials.as_ref();
        let credentials =
            credentials.map(|(user, password)| (user.as_str(), password.expose_secret()));
        (&proxy.host, proxy.port, credentials)
    }
    old.map(parts) == new.map(parts)
}
