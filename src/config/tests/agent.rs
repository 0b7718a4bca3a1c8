//! HarborForge.Monitor's own `config.json` and environment.

use secrecy::ExposeSecret as _;

use super::*;

const JSON: &str = "/etc/harborforge-monitor/config.json";

const WHOLE: &str = r#"{
  "backendUrl": "https://monitor.example/harbor",
  "identifier": "vps.t1",
  "apiKey": "hf-0123456789",
  "reportIntervalSec": 45,
  "logLevel": "warn",
  "rootFs": "/host",
  "monitorPort": 9100
}
"#;

fn world(text: &str) -> World {
    World::new().file(JSON, 0o600, text).config_flag(JSON)
}

fn api_key(config: &Config) -> Option<&str> {
    match config.credential.as_ref()? {
        Credential::ApiKey(secret) => Some(secret.expose_secret()),
        Credential::Challenge(_) => None,
    }
}

#[test]
fn the_agents_file_is_read_with_the_line_of_each_value() {
    let loaded = world(WHOLE).ok(Need::Backend);
    let config = &loaded.config;
    assert_eq!(config.backend_url.as_ref().unwrap().as_str(), "https://monitor.example/harbor/");
    assert_eq!(config.identifier, "vps.t1");
    assert_eq!(api_key(config), Some("hf-0123456789"));
    assert_eq!(config.report_interval, Duration::from_secs(45));
    assert_eq!(config.log_level, "warn");
    assert_eq!(config.root_fs, Path::new("/host"));
    assert_eq!(config.bridge_listen, Some("127.0.0.1:9100".parse().unwrap()));
    let line = |key: Key| loaded.origins[&key].to_string();
    assert_eq!(line(Key::BackendUrl), format!("{JSON}:2"));
    assert_eq!(line(Key::BridgeListen), format!("{JSON}:8"));
    assert_eq!(loaded.file.as_deref(), Some(Path::new(JSON)));
}

#[test]
fn what_the_agent_takes_for_unset_is_not_set() {
    let config = world(r#"{"rootFs": "", "logLevel": null, "monitorPort": 0}"#).config();
    assert_eq!((config.root_fs.as_path(), config.log_level.as_str()), (Path::new("/"), "info"));
    assert_eq!(config.bridge_listen, None);
}

/// A text, and what is said of it, each line without the path.
const FAULTS: &[(&str, &[&str])] = &[
    (
        "{\n\"backendUrl\": 1,\n\"reportIntervalSec\": \"soon\",\n\"monitorPort\": 70000\n}",
        &[
            "2: backendUrl: found the integer 1, expected an http or https URL without query, fragment, user name or password",
            "3: reportIntervalSec: found \"soon\", expected a whole number of seconds, 1 to 3600",
            "4: monitorPort: found the integer 70000, expected a port, 1 to 65535, or 0 for none",
        ],
    ),
    (
        "{\"backendURL\": \"x\",\n\"report_interval_sec\": 1,\n\"colour\": 1}",
        &[
            "1: backendURL: unknown key, did you mean backendUrl?",
            "2: report_interval_sec: unknown key, did you mean reportIntervalSec?",
            "3: colour: unknown key, expected one of backendUrl, identifier, apiKey, reportIntervalSec, logLevel, rootFs, monitorPort; all else is set in a TOML file, in the environment or by --set",
        ],
    ),
    (
        "{\"reportIntervalSec\": 1.5,\n\"identifier\": {\"a\": 1},\n\"rootFs\": [1],\n\"logLevel\": true}",
        &[
            "1: reportIntervalSec: found a number with a fraction, expected a whole number of seconds, 1 to 3600",
            "2: identifier: found an object, expected 1 to 255 bytes of text without control characters",
            "3: rootFs: found a list, expected an absolute path",
            "4: logLevel: found true, expected error, warn, info, debug, trace, or a filter such as \"info,harborforge_connector::sender=debug\"",
        ],
    ),
    (
        "{\"apiKey\": \"hunter 2\"}",
        &[
            "1: apiKey: found a text of 8 characters, expected 1 to 4096 printable ASCII characters without spaces",
        ],
    ),
    (
        "{\"identifier\": \"a\",\n\"identifier\": \"b\"}",
        &[
            "2: identifier: set together with identifier (/etc/harborforge-monitor/config.json:1), expected only one of the two",
        ],
    ),
    (
        "{\"identifier\": \"a\",\n}",
        &["2: not valid JSON: trailing comma, found something else in column 1"],
    ),
    (
        "{\"apiKey\": \"hunter2\"",
        &["1: not valid JSON: EOF while parsing an object, found the end of the file"],
    ),
    (
        "\"hunter2\"",
        &["1: not valid JSON: expected an object with keys, found a value of another kind"],
    ),
];

#[test]
fn faults_are_told_all_at_once_with_line_key_and_what_is_expected() {
    for (text, expected) in FAULTS {
        let errors = world(text).errors(Need::Nothing);
        let expected: Vec<String> =
            expected.iter().map(|error| format!("{JSON}:{error}")).collect();
        assert_eq!(errors.lines().collect::<Vec<_>>(), expected, "{text}");
        assert!(!errors.contains("hunter"), "{errors}");
    }
}

#[test]
fn a_file_with_a_key_that_others_can_read_is_refused() {
    let world = World::new().file(JSON, 0o644, WHOLE).config_flag(JSON);
    let errors = world.errors(Need::Nothing);
    for part in [":4: apiKey:", "mode 0644", "chmod o-rwx /etc/harborforge-monitor/config.json"] {
        assert!(errors.contains(part), "{part} in {errors}");
    }
    let without = World::new().file(JSON, 0o644, r#"{"apiKey": ""}"#).config_flag(JSON);
    without.ok(Need::Nothing);
}

#[test]
fn what_is_missing_is_asked_for_by_its_name_in_that_file() {
    assert_eq!(
        world("{}").errors(Need::Backend).lines().collect::<Vec<_>>(),
        [
            "backendUrl: not set, expected an http or https URL without query, fragment, user \
             name or password; set it in /etc/harborforge-monitor/config.json as backendUrl or as \
             HARBORFORGE_BACKEND_URL",
            "apiKey: not set, expected the API key; set it in \
             /etc/harborforge-monitor/config.json, or as HARBORFORGE_API_KEY, or instead a \
             challenge as HARBORFORGE_CHALLENGE_UUID",
        ]
    );
}

#[test]
fn the_agents_variables_come_after_the_file_and_before_ours() {
    let config = World::new()
        .var("HF_MONITER_BACKEND_URL", "https://m.example")
        .var("HF_MONITER_IDENTIFIER", "vps.t2")
        .var("HF_MONITER_API_KEY", "key")
        .var("HF_MONITER_REPORT_INTERVAL", "20")
        .var("HF_MONITER_LOG_LEVEL", "debug")
        .var("HF_MONITER_ROOTFS", "/host")
        .var("MONITOR_PORT", "9101")
        .ok(Need::Backend)
        .config;
    assert_eq!(config.backend_url.as_ref().unwrap().as_str(), "https://m.example/");
    assert_eq!((config.identifier.as_str(), api_key(&config)), ("vps.t2", Some("key")));
    assert_eq!(
        (config.report_interval, config.log_level.as_str()),
        (Duration::from_secs(20), "debug")
    );
    assert_eq!(config.root_fs, Path::new("/host"));
    assert_eq!(config.bridge_listen, Some("127.0.0.1:9101".parse().unwrap()));

    let below = world(WHOLE).var("HF_MONITER_REPORT_INTERVAL", "20").var("MONITOR_PORT", "");
    let config = below.config();
    assert_eq!(config.report_interval, Duration::from_secs(20));
    assert_eq!(config.bridge_listen, Some("127.0.0.1:9100".parse().unwrap()), "empty: not set");
    // Another spelling of ours wins as well, and is no conflict.
    let config = below
        .var("HARBORFORGE_REPORT_INTERVAL", "10s")
        .var("HARBORFORGE_BRIDGE_LISTEN", "off")
        .config();
    assert_eq!((config.report_interval, config.bridge_listen), (Duration::from_secs(10), None));
    let flag = World::new()
        .var("HF_MONITER_IDENTIFIER", "a")
        .var("HARBORFORGE_IDENTIFIER", "b")
        .set("identifier", "c");
    assert_eq!(flag.config().identifier, "c");
}

#[test]
fn faults_of_the_agents_variables_name_them() {
    let world = World::new().var("MONITOR_PORT", "http").var("HF_MONITER_REPORT_INTERVAL", "30s");
    assert_eq!(
        world.errors(Need::Nothing).lines().collect::<Vec<_>>(),
        [
            "environment variable MONITOR_PORT: monitorPort: found \"http\", expected a port, 1 to \
             65535, or 0 for none",
            "environment variable HF_MONITER_REPORT_INTERVAL: reportIntervalSec: found \"30s\", \
             expected a whole number of seconds, 1 to 3600",
        ]
    );
    let world = World::new()
        .var("HF_MONITER_REPORT_INTERVAL_SEC", "1")
        .var("MONITOR_PORT", "tcp://10.0.0.7:80");
    let warnings = world.warnings();
    assert_eq!(
        warnings[0],
        "environment variable HF_MONITER_REPORT_INTERVAL_SEC: no such setting, it has no effect; \
         did you mean HF_MONITER_REPORT_INTERVAL?"
    );
    assert!(warnings[1].contains("Kubernetes") && warnings.len() == 2, "{warnings:?}");
}

#[test]
fn the_document_for_who_migrates_names_every_setting() {
    let doc = include_str!("../../../docs/MIGRATING.md");
    for name in super::super::agent::NAMES {
        for text in [name.json, name.variable, name.key.name()] {
            assert!(doc.contains(&format!("`{text}`")), "{text}");
        }
    }
}
