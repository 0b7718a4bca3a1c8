//! What can be checked on this machine: configuration, files, the daemon.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures_rustls::rustls::RootCertStore;
use harborforge_storage::Options;
use rustix::fs::{Access, StatVfs};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::{Exit, Facts, Line, Verdict};
use crate::config::{self, Credential, Key, Origin};
use crate::crypto::room_for_identifier;
use crate::daemon::queue_options;
use crate::enrolled::{Enrolled, Standing};

pub(super) fn configuration(facts: &Facts<'_>) -> Vec<Line> {
    const NAME: &str = "configuration";
    let from = facts.loaded.file.as_ref().map_or_else(
        || "no file, environment and flags only".to_owned(),
        |path| path.display().to_string(),
    );
    let backend = facts
        .config()
        .backend_url
        .as_ref()
        .map_or_else(String::new, |url| format!("; reports to {url}"));
    let mut lines = vec![Line::new(Verdict::Ok, NAME, format!("{from}{backend}"))];
    let warnings = facts.loaded.warnings.iter();
    lines.extend(warnings.map(|warning| Line::new(Verdict::Warn, NAME, warning.to_string())));
    lines
}

pub(super) fn credential(facts: &Facts<'_>) -> Vec<Line> {
    let mode = match &facts.config().credential {
        Some(Credential::Challenge(_)) => "challenge",
        Some(Credential::ApiKey(_)) => "API key",
        None => return Vec::new(),
    };
    let keys = [Key::ChallengeUuid, Key::ChallengeUuidFile, Key::ApiKey, Key::ApiKeyFile];
    let origin = keys.iter().find_map(|key| Some((key, facts.loaded.origins.get(key)?)));
    let from = match (&facts.loaded.credential_file, origin) {
        (Some(path), _) => format!(" in {}", path.display()),
        (None, Some((_, origin))) => format!(" from {origin}"),
        (None, None) => String::new(),
    };
    let mut lines = vec![Line::new(Verdict::Ok, "credential", format!("{mode}{from}"))];
    // The variable may be one of another agent's; its name is not the key's then.
    if let Some((key, Origin::Environment(variable))) = origin
        && facts.loaded.credential_file.is_none()
    {
        let text = format!(
            "{variable} can be read by every process of this user and may end in crash reports; \
             a file named by {}_file is safer",
            key.name()
        );
        lines.push(Line::new(Verdict::Warn, "credential", text));
    }
    let enrolled = Enrolled::load(&facts.config().data_dir).ok().flatten();
    if enrolled.is_some_and(|it| it.standing(facts.config()) == Standing::Preferred) {
        let text = "the daemon uses the one that was enrolled since, until this one changes";
        lines.push(Line::new(Verdict::Ok, "credential", text));
    }
    lines
}

pub(super) fn identifier(facts: &Facts<'_>) -> Vec<Line> {
    const NAME: &str = "identifier";
    let config = facts.config();
    let from =
        if facts.loaded.origins.contains_key(&Key::Identifier) { "" } else { " (the host name)" };
    let name = &config.identifier;
    if !matches!(config.credential, Some(Credential::Challenge(_))) {
        return vec![Line::new(Verdict::Ok, NAME, format!("{name}{from}"))];
    }
    let bytes = bytes_in_proof(name);
    let text = |limit: &str| {
        format!(
            "{name}{from} takes {bytes} bytes of the proof, {limit}; choose a shorter identifier"
        )
    };
    vec![if bytes <= room_for_identifier(2048) {
        Line::new(Verdict::Ok, NAME, format!("{name}{from}, fits every permitted key"))
    } else if bytes <= room_for_identifier(4096) {
        let limits = format!(
            "a 2048-bit key leaves {}, one of 3072 bits {}, one of 4096 bits {}",
            room_for_identifier(2048),
            room_for_identifier(3072),
            room_for_identifier(4096)
        );
        Line::new(Verdict::Warn, NAME, text(&limits))
    } else {
        let limit = format!("the largest permitted key leaves {}", room_for_identifier(4096));
        Line::fail(Exit::Config, NAME, text(&limit))
    }]
}

/// Bytes an identifier takes in a proof, as JSON without its quotes.
pub(super) fn bytes_in_proof(identifier: &str) -> usize {
    serde_json::to_string(identifier).map_or(usize::MAX, |json| json.len().saturating_sub(2))
}

pub(super) fn ca_file(facts: &Facts<'_>) -> Vec<Line> {
    const NAME: &str = "ca_file";
    let Some(path) = &facts.config().ca_file else { return Vec::new() };
    let shown = path.display();
    vec![match read_anchors(path) {
        Ok(0) => {
            let text = format!("{shown} holds no certificate; expected PEM, BEGIN CERTIFICATE");
            Line::fail(Exit::Config, NAME, text)
        }
        Ok(count) => Line::new(Verdict::Ok, NAME, format!("{shown}, {count} trust anchor(s)")),
        Err(error) => Line::fail(Exit::Config, NAME, format!("{shown}: {error}")),
    }]
}

fn read_anchors(path: &Path) -> Result<usize, String> {
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut store = RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_reader_iter(file).enumerate() {
        let number = index + 1;
        let certificate = certificate
            .map_err(|error| format!("is not valid PEM at certificate {number}: {error}"))?;
        store
            .add(certificate)
            .map_err(|error| format!("certificate {number} is no trust anchor: {error}"))?;
    }
    Ok(store.len())
}

pub(super) fn proxy(facts: &Facts<'_>) -> Vec<Line> {
    let Some(proxy) = &facts.config().proxy else { return Vec::new() };
    let from = match facts.loaded.origins.get(&Key::Proxy) {
        Some(origin) => origin.to_string(),
        None => "the environment".into(),
    };
    let user = if proxy.credentials.is_some() { ", with a user name" } else { "" };
    let text = format!("{} port {}{user}, from {from}", proxy.host, proxy.port);
    vec![Line::new(Verdict::Ok, "proxy", text)]
}

/// No clock that is right is before this: 2026-01-01.
const CLOCK_MIN: Duration = Duration::from_secs(1_767_225_600);
/// Nor after this: 2100-01-01.
const CLOCK_MAX: Duration = Duration::from_secs(4_102_444_800);

pub(super) fn clock(facts: &Facts<'_>) -> Vec<Line> {
    let shown = humantime::format_rfc3339_seconds(facts.now.max(SystemTime::UNIX_EPOCH));
    let since = facts.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    vec![if (CLOCK_MIN..CLOCK_MAX).contains(&since) {
        Line::new(Verdict::Ok, "clock", format!("{shown} (UTC)"))
    } else {
        let text = format!(
            "{shown} cannot be right; certificates and proofs depend on it: set up NTP \
             (type: timedatectl set-ntp true)"
        );
        Line::fail(Exit::Failed, "clock", text)
    }]
}

pub(super) fn data_dir(facts: &Facts<'_>) -> Vec<Line> {
    const NAME: &str = "data_dir";
    let path = &facts.config().data_dir;
    let shown = path.display();
    let fail = |text: String| vec![Line::fail(Exit::Storage, NAME, text)];
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return vec![absent(path)],
        Err(error) => return fail(format!("{shown}: {error}; run as the daemon's user")),
    };
    if !metadata.is_dir() {
        return fail(format!("{shown} is no directory; name another one in data_dir"));
    }
    let quoted = config::shell_quoted(path);
    if rustix::fs::access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return fail(format!(
            "{shown} belongs to uid {} and cannot be written by uid {}; run as that user, or \
             type: chown -R {} {quoted}",
            metadata.uid(),
            facts.uid,
            facts.uid
        ));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let text = format!(
            "{shown} has mode {mode:04o}, others can look into it; type: chmod 0700 {quoted}"
        );
        return vec![Line::new(Verdict::Warn, NAME, text)];
    }
    vec![Line::new(Verdict::Ok, NAME, format!("{shown}, of uid {}", metadata.uid()))]
}

/// The line for a data directory that is not there yet.
fn absent(path: &Path) -> Line {
    let shown = path.display();
    let parent = existing_ancestor(path);
    if rustix::fs::access(&parent, Access::WRITE_OK | Access::EXEC_OK).is_ok() {
        Line::new(Verdict::Ok, "data_dir", format!("{shown}, will be made at the first start"))
    } else {
        let quoted = config::shell_quoted(path);
        let text = format!(
            "{shown} is not there and cannot be made in {}; as root type: install -d -m 0700 -o \
             THE_DAEMONS_USER {quoted}",
            parent.display()
        );
        Line::fail(Exit::Storage, "data_dir", text)
    }
}

fn existing_ancestor(path: &Path) -> PathBuf {
    path.ancestors()
        .find(|ancestor| !ancestor.as_os_str().is_empty() && ancestor.exists())
        .map_or_else(|| PathBuf::from("."), Path::to_owned)
}

pub(super) fn disk(facts: &Facts<'_>) -> Vec<Line> {
    const NAME: &str = "disk";
    let config = facts.config();
    let directory = existing_ancestor(&config.data_dir);
    let free = match rustix::fs::statvfs(&directory) {
        Ok(figures) => free_bytes(&figures),
        Err(error) => {
            let text = format!("cannot tell for {}: {error}", directory.display());
            return vec![Line::new(Verdict::Warn, NAME, text)];
        }
    };
    vec![disk_line(&queue_options(config), disk_use(&config.data_dir, 4), free)]
}

/// What all bounds together may take, against what there is of it.
fn disk_line(options: &Options, used: u64, free: u64) -> Line {
    const NAME: &str = "disk";
    let most = options.disk_bound();
    let figures = format!(
        "the data directory may take up to {}, takes {}, free are {}",
        mebibytes(most),
        mebibytes(used),
        mebibytes(free)
    );
    let room = used.saturating_add(free);
    if room >= most {
        return Line::new(Verdict::Ok, NAME, figures);
    }
    let fits = |mebibytes: u64| {
        let queue_max_bytes = mebibytes.saturating_mul(MIB);
        Options { queue_max_bytes, ..options.clone() }.disk_bound() <= room
    };
    let now = options.queue_max_bytes / MIB;
    let mend = if fits(1) {
        // The largest that fits: between one that does and one that does not.
        let (mut low, mut high) = (1, now.max(2));
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if fits(middle) { low = middle } else { high = middle }
        }
        format!("make room, or set queue_max_bytes = \"{low}MiB\"")
    } else {
        "make room, or lower queue_max_bytes, quarantine_max_bytes, rejected_max_bytes and \
         retain_sent_max_bytes"
            .to_owned()
    };
    Line::new(Verdict::Warn, NAME, format!("{figures}; {mend}"))
}

const MIB: u64 = 1 << 20;

fn free_bytes(figures: &StatVfs) -> u64 {
    figures.f_bavail.saturating_mul(figures.f_frsize)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(MIB))
}

/// Bytes a directory takes on disk, to a depth that covers the queue's own layout. What cannot
/// be read counts as nothing: the figure is for an estimate.
fn disk_use(directory: &Path, depth: u8) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries.flatten().fold(0u64, |sum, entry| {
        let Ok(metadata) = entry.metadata() else { return sum };
        let own = metadata.blocks().saturating_mul(512);
        let below =
            if metadata.is_dir() && depth > 0 { disk_use(&entry.path(), depth - 1) } else { 0 };
        sum.saturating_add(own).saturating_add(below)
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
