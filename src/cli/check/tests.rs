//! Each check on facts of the tests' own.

use super::*;
use crate::config::{FileText, Files, Flags, Need, Sources};

struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &Path) -> io::Result<FileText> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// What one check says about a configuration made of `KEY=VALUE` settings; one in capitals is the
/// variable itself.
fn lines(check: fn(&Facts<'_>) -> Vec<Line>, set: &[(&str, &str)], now: u64) -> Vec<String> {
    let mut env = std::collections::BTreeMap::new();
    for (key, value) in set {
        let variable = key.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        let name = match variable {
            true => (*key).to_owned(),
            false => format!("HARBORFORGE_{}", key.to_ascii_uppercase()),
        };
        env.insert(name, (*value).into());
    }
    let host_name = Some("host".to_owned());
    let sources = Sources { flags: Flags::default(), env, host_name, uid: 0, files: &NoFiles };
    let loaded = config::load(&sources, Need::Nothing).unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
    let facts = Facts { loaded: &loaded, now, uid: 0 };
    check(&facts).iter().map(ToString::to_string).collect()
}

#[test]
fn the_clock_must_be_of_this_century() {
    assert_eq!(lines(clock, &[], 1_773_262_800), ["ok   clock: 2026-03-11T21:00:00Z (UTC)"]);
    assert_eq!(
        lines(clock, &[], 0),
        [
            "FAIL clock: 1970-01-01T00:00:00Z cannot be right; certificates and proofs depend on it: \
          set up NTP (type: timedatectl set-ntp true)"
        ]
    );
}

#[test]
fn the_identifier_must_fit_into_the_proof() {
    let uuid = "8f14e45f-ceea-467f-9575-1d2f3a4b5c6d";
    let say = |name: &str| {
        lines(identifier, &[("identifier", name), ("challenge_uuid", uuid)], 0).remove(0)
    };
    assert!(say(&"x".repeat(56)).starts_with("ok   identifier: "));
    assert!(say(&"x".repeat(57)).starts_with("warn identifier: "));
    // What JSON escapes takes two bytes.
    assert!(say(&"\"".repeat(29)).starts_with("warn identifier: "));
    // The longest identifier fits the largest key unless escaped.
    assert!(say(&"x".repeat(255)).starts_with("warn identifier: "));
    let long = say(&"\"".repeat(200));
    assert!(long.starts_with("FAIL identifier: "), "{long}");
    assert!(long.ends_with("the largest permitted key leaves 312; choose a shorter identifier"));
    // An API key is sent as it is, there is no proof to fit into.
    assert_eq!(
        lines(identifier, &[("identifier", &"x".repeat(57)), ("api_key", "k")], 0),
        [format!("ok   identifier: {}", "x".repeat(57))]
    );
    assert_eq!(lines(identifier, &[], 0), ["ok   identifier: host (the host name)"]);
}

#[test]
fn the_proof_without_the_identifier_takes_134_bytes() {
    let proof = r#"{"identifier":"","challenge_uuid":"8f14e45f-ceea-467f-9575-1d2f3a4b5c6d","nonce":"0123456789012345678901","ts":"2026-03-11T21:00:00Z"}"#;
    assert_eq!(proof.len(), 134);
    assert_eq!(room_for_identifier(2048), 56);
}

#[test]
fn a_secret_in_the_environment_is_warned_of() {
    assert_eq!(
        lines(credential, &[("api_key", "k")], 0),
        [
            "ok   credential: API key from environment variable HARBORFORGE_API_KEY",
            "warn credential: HARBORFORGE_API_KEY can be read by every process of this user and \
             may end in crash reports; a file named by api_key_file is safer",
        ]
    );
}

#[test]
fn the_file_that_is_safer_is_named_by_its_key_whatever_the_variable() {
    let said = lines(credential, &[("HF_MONITER_API_KEY", "k")], 0);
    assert!(said[1].starts_with("warn credential: HF_MONITER_API_KEY can be read"), "{said:?}");
    assert!(said[1].ends_with("a file named by api_key_file is safer"), "{said:?}");
}

#[test]
fn a_proxy_is_shown_without_its_password() {
    let set = [("proxy", "http://me:hunter2@p:3128")];
    assert_eq!(
        lines(proxy, &set, 0),
        ["ok   proxy: p port 3128, with a user name, from environment variable HARBORFORGE_PROXY"]
    );
    assert!(lines(proxy, &[], 0).is_empty());
}

#[test]
fn trust_anchors_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    let shown = path.to_str().unwrap();
    let say = || lines(ca_file, &[("ca_file", shown)], 0).remove(0);
    assert!(say().starts_with(&format!("FAIL ca_file: {shown}: cannot be read: ")));
    fs::write(&path, "nothing").unwrap();
    assert!(say().contains("holds no certificate; expected PEM"));
    fs::write(&path, "-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----\n").unwrap();
    assert!(say().contains("is not valid PEM at certificate 1"));
    fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(say().contains("certificate 1 is no trust anchor"));
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    fs::write(&path, parameters.self_signed(&key).unwrap().pem()).unwrap();
    assert_eq!(say(), format!("ok   ca_file: {shown}, 1 trust anchor(s)"));
}

#[test]
fn a_data_directory_is_judged_without_being_changed() {
    let directory = tempfile::tempdir().unwrap();
    let say = |path: &Path| lines(data_dir, &[("data_dir", path.to_str().unwrap())], 0).remove(0);
    let absent = directory.path().join("a/b");
    assert_eq!(
        say(&absent),
        format!("ok   data_dir: {}, will be made at the first start", absent.display())
    );
    assert!(!absent.exists() && !directory.path().join("a").exists());
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(say(&file).ends_with("is no directory; name another one in data_dir"));
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(say(directory.path()).contains("has mode 0755, others can look into it; type: chmod"));
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(say(directory.path()).starts_with("ok   data_dir: "));
}

#[test]
fn the_sum_of_the_bounds_is_compared_with_the_free_space() {
    const MIB: u64 = 1 << 20;
    let options = Options::default();
    let most = options.disk_bound();
    let say = |used, free| disk_line(&options, used, free).to_string();
    let shown = most.div_ceil(MIB);
    assert_eq!(
        say(3 * MIB, most),
        format!(
            "ok   disk: the data directory may take up to {shown} MiB, takes 3 MiB, free are \
             {shown} MiB"
        )
    );
    // What is taken already is part of the sum.
    assert!(say(most / 2, most - most / 2).starts_with("ok   disk: "));
    let line = say(0, 600 * MIB);
    let (figures, set) = line.split_once("; make room, or set queue_max_bytes = \"").unwrap();
    assert!(figures.ends_with("takes 0 MiB, free are 600 MiB"), "{figures}");
    // What it says to set is the most that fits.
    let set: u64 = set.strip_suffix("MiB\"").unwrap().parse().unwrap();
    let with = |queue_max_bytes| Options { queue_max_bytes, ..options.clone() }.disk_bound();
    assert!(with(set * MIB) <= 600 * MIB && with((set + 1) * MIB) > 600 * MIB, "{line}");
    assert!(say(0, 300 * MIB).ends_with(
        "free are 300 MiB; make room, or lower queue_max_bytes, quarantine_max_bytes, \
         rejected_max_bytes and retain_sent_max_bytes"
    ));
}

#[test]
fn the_documentation_shows_real_lines() {
    let doc = include_str!("../../../docs/OPERATIONS.md");
    for free in [20_480, 600] {
        let line = disk_line(&Options::default(), 3 << 20, free << 20).to_string();
        assert!(doc.contains(&format!("\n{line}\n")), "{line}");
    }
}

#[test]
fn the_disk_of_the_data_directory_is_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let small = [
        ("data_dir", path),
        ("queue_max_bytes", "1MiB"),
        ("retain_sent_max_bytes", "0"),
        ("rejected_max_bytes", "0"),
        ("quarantine_max_bytes", "0"),
    ];
    let line = lines(disk, &small, 0).remove(0);
    assert!(line.starts_with("ok   disk: the data directory may take up to "), "{line}");
    let line = lines(disk, &[("data_dir", path), ("queue_max_bytes", "8000000TiB")], 0).remove(0);
    assert!(line.starts_with("warn disk: "), "{line}");
    fs::write(directory.path().join("file"), vec![1; 100_000]).unwrap();
    assert!(disk_use(directory.path(), 1) >= 100_000);
}
