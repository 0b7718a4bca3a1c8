//! The table of keys is the one source: the shipped file and the documentation agree with it,
//! and its ranges are those the code keeps.

use super::*;

/// Every `#key = value` of the shipped file with the comment above it, in order.
fn example_keys() -> Vec<(String, String, String)> {
    let mut keys = Vec::new();
    let mut comment = String::new();
    for line in EXAMPLE.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            comment.push_str(text);
            comment.push(' ');
        } else if let Some((key, value)) = line.strip_prefix('#').and_then(|l| l.split_once(" = "))
        {
            keys.push((key.to_owned(), value.to_owned(), std::mem::take(&mut comment)));
        } else {
            assert!(line.is_empty() || line == "#", "a line of another form: {line}");
            comment.clear();
        }
    }
    keys
}

#[test]
fn the_shipped_file_has_every_key_once_with_default_and_meaning() {
    let keys = example_keys();
    let names: Vec<&str> = keys.iter().map(|(key, _, _)| key.as_str()).collect();
    let expected: Vec<&str> = Key::ALL.iter().map(|key| key.name()).collect();
    assert_eq!(names, expected);
    for (name, value, comment) in &keys {
        let key = Key::from_name(name).unwrap();
        let comment = comment.to_lowercase();
        assert!(comment.contains(&key.meaning().to_lowercase()), "{name}: {comment}");
        assert!(comment.contains(&key.values().to_lowercase()), "{name}: {comment}");
        if let Fallback::Text(text) = key.fallback() {
            assert_eq!(value.trim_matches('"'), text, "{name}");
        }
    }
}

#[test]
fn the_shipped_file_changes_nothing_and_each_line_of_it_works() {
    let shipped = World::new().file(SYSTEM, 0o644, EXAMPLE).config();
    assert_eq!(diff(&World::new().config(), &shipped), []);
    for (name, value, _) in example_keys() {
        let key = Key::from_name(&name).unwrap();
        let world = World::with(&format!("{name} = {value}"))
            .file("/etc/harborforge-connector/challenge_uuid", 0o600, UUID)
            .file("/etc/harborforge-connector/api_key", 0o600, "k");
        let loaded = world.ok(Need::Nothing);
        assert!(loaded.warnings.is_empty(), "{name}: {:?}", loaded.warnings);
        if let Fallback::Text(_) = key.fallback() {
            assert_eq!(diff(&World::new().config(), &loaded.config), [], "{name}");
        }
    }
}

#[test]
fn the_defaults_are_those_of_the_interface() {
    let config = World::new().config();
    let seconds = Duration::from_secs;
    assert_eq!(config.identifier, "host");
    assert_eq!(config.report_interval, seconds(30));
    assert_eq!(config.http_fallback_interval, seconds(60));
    assert_eq!(config.backoff_cap, seconds(300));
    assert_eq!((config.log_level.as_str(), config.log_format), ("info", LogFormat::Auto));
    let expected = QueueBounds {
        max_bytes: 256 << 20,
        max_age: None,
        retain_sent: seconds(86400),
        retain_sent_max_bytes: 32 << 20,
        rejected_max_bytes: 64 << 20,
        quarantine_max_bytes: 256 << 20,
    };
    assert_eq!(config.queue, expected);
    assert!(!config.allow_insecure && !config.report_nginx);
    assert!(config.ca_file.is_none() && config.public_key_sha256.is_none());
    assert_eq!(config.transport, Transport::Auto);
    assert_eq!(config.disk_path, Path::new("/"));
    assert_eq!((config.scope, config.openclaw), (Scope::Host, OpenClaw::Auto));
    assert!(config.openclaw_home.is_empty() && config.bridge_listen.is_none());
    assert!(config.backend_url.is_none() && config.credential.is_none());
}

#[test]
fn the_documentation_has_the_table() {
    let doc = include_str!("../../../docs/CONFIGURATION.md");
    let rows: Vec<&str> = doc.lines().filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<String> = Key::ALL
        .iter()
        .map(|key| {
            let default = match key.fallback() {
                Fallback::Text(text) => format!("`{text}`"),
                Fallback::Described(text) => text.to_owned(),
            };
            format!("| `{}` | {default} | {} | {} |", key.name(), key.values(), key.meaning())
        })
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn the_documentations_example_and_errors_are_real() {
    let doc = include_str!("../../../docs/CONFIGURATION.md");
    let example = doc.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    World::with(example).ok(Need::Backend);
    let text = "\n\nreprot_interval = \"1s\"\n\nqueue_max_bytes = \"256M\"";
    for error in World::with(text).errors(Need::Nothing).lines() {
        assert!(doc.contains(error), "{error}");
    }
}

#[test]
fn the_ranges_are_those_the_table_tells() {
    for (key, lowest, highest, below, above) in [
        ("report_interval", "1s", "1h", "999ms", "3601s"),
        ("report_interval_sec", "1", "3600", "0", "3601"),
        ("http_fallback_interval", "1s", "1h", "999ms", "3601s"),
        ("http_fallback_interval_sec", "1", "3600", "0", "3601"),
        ("backoff_cap", "1s", "10m", "999ms", "601s"),
        ("queue_max_age", "1s", "10years", "999ms", "11years"),
        ("retain_sent", "0s", "1year", "-1s", "366days"),
        ("queue_max_bytes", "1MiB", "9223372036854775807", "1048575", "9223372036854775808"),
        ("rejected_max_bytes", "0", "9223372036854775807", "-1", "9223372036854775808"),
    ] {
        for value in [lowest, highest] {
            World::new().set(key, value).ok(Need::Nothing);
        }
        for value in [below, above] {
            let error = World::new().set(key, value).errors(Need::Nothing);
            assert!(error.contains(key), "{error}");
        }
    }
}
