//! The exact text of every class of error: what a user reads is part of the interface.

use super::*;

/// A file's text and the errors it draws, each without the path in front.
const CASES: &[(&str, &[&str])] = &[
    // Syntax.
    (
        "report_interval = 30s",
        &[
            "1: not valid TOML: string values must be quoted, expected literal string, found \"30s\" in column 19",
        ],
    ),
    (
        "\nbackend_url = \"https://x",
        &["2: not valid TOML: invalid basic string, expected `\"`, found the end of the file"],
    ),
    (
        "identifier = \"a\"\nidentifier = \"b\"",
        &["2: not valid TOML: duplicate key, found \"identifier\" in column 1"],
    ),
    // Unknown keys.
    (
        "reprot_interval = \"30s\"",
        &["1: reprot_interval: unknown key, did you mean report_interval?"],
    ),
    ("backendUrl = \"https://x\"", &["1: backendUrl: unknown key, did you mean backend_url?"]),
    ("colour = 1", &["1: colour: unknown key, expected one of the keys of docs/CONFIGURATION.md"]),
    ("[queue]\nmax_bytes = 1", &["1: queue: unknown key, did you mean queue_max_bytes?"]),
    (
        "[server]\nbackend_url = \"https://x\"",
        &["1: server: unknown key, did you mean backend_url?"],
    ),
    // Types.
    (
        "backend_url = 1",
        &[
            "1: backend_url: found the integer 1, expected an http or https URL without query, fragment, user name or password",
        ],
    ),
    (
        "report_interval = 30",
        &[
            "1: report_interval: found the integer 30, expected a duration such as \"30s\", 1s to 1h",
        ],
    ),
    (
        "report_interval = 1.5",
        &[
            "1: report_interval: found a number with a fraction, expected a duration such as \"30s\", 1s to 1h",
        ],
    ),
    (
        "report_interval_sec = \"30s\"",
        &["1: report_interval_sec: found \"30s\", expected a whole number of seconds, 1 to 3600"],
    ),
    ("allow_insecure = \"yes\"", &["1: allow_insecure: found \"yes\", expected true or false"]),
    ("report_nginx = 1", &["1: report_nginx: found the integer 1, expected true or false"]),
    ("disk_path = true", &["1: disk_path: found true, expected an absolute path"]),
    (
        "identifier = 2026-01-01",
        &[
            "1: identifier: found a date or time, expected 1 to 255 bytes of text without control characters",
        ],
    ),
    (
        "queue_max_bytes = 99999999999999999999",
        &[
            "1: queue_max_bytes: found an integer beyond 64 bits, expected a size such as \"256MiB\", at least 1MiB",
        ],
    ),
    (
        "openclaw_home = [1]",
        &[
            "1: openclaw_home: found a list of other things than texts, expected a list of paths such as [\"/home/claw/.openclaw\"]",
        ],
    ),
    ("[transport]\na = 1", &["1: transport: found a table, expected auto, websocket or http"]),
    // Ranges and forms.
    (
        "report_interval = \"999ms\"",
        &["1: report_interval: found \"999ms\", expected a duration such as \"30s\", 1s to 1h"],
    ),
    (
        "report_interval_sec = 3601",
        &[
            "1: report_interval_sec: found the integer 3601, expected a whole number of seconds, 1 to 3600",
        ],
    ),
    (
        "http_fallback_interval = \"61m\"",
        &[
            "1: http_fallback_interval: found \"61m\", expected a duration such as \"60s\", 1s to 1h",
        ],
    ),
    (
        "backoff_cap = \"11m\"",
        &["1: backoff_cap: found \"11m\", expected a duration such as \"5m\", 1s to 10m"],
    ),
    (
        "identifier = \"\"",
        &["1: identifier: found \"\", expected 1 to 255 bytes of text without control characters"],
    ),
    (
        "identifier = \"a\\u0007\"",
        &[
            "1: identifier: found \"a\\u{7}\", expected 1 to 255 bytes of text without control characters",
        ],
    ),
    (
        "log_level = \"inof\"",
        &[
            "1: log_level: found \"inof\", expected error, warn, info, debug, trace, or a filter such as \"info,harborforge_connector::sender=debug\" (\"inof\" is no level and sets none)",
        ],
    ),
    ("log_format = \"xml\"", &["1: log_format: found \"xml\", expected auto, text or json"]),
    (
        "queue_max_bytes = \"1023KiB\"",
        &[
            "1: queue_max_bytes: found \"1023KiB\", expected a size such as \"256MiB\", at least 1MiB",
        ],
    ),
    (
        "queue_max_age = \"soon\"",
        &[
            "1: queue_max_age: found \"soon\", expected a duration such as \"30d\", 1s to 10years, or \"none\"",
        ],
    ),
    (
        "retain_sent = \"2years\"",
        &[
            "1: retain_sent: found \"2years\", expected a duration such as \"24h\", at most 1year, or 0 to turn it off",
        ],
    ),
    (
        "retain_sent_max_bytes = -1",
        &["1: retain_sent_max_bytes: found the integer -1, expected a size such as \"32MiB\""],
    ),
    (
        "public_key_sha256 = \"abc\"",
        &["1: public_key_sha256: found \"abc\", expected 64 hexadecimal digits"],
    ),
    (
        "proxy = \"socks5://p:1\"",
        &[
            "1: proxy: found \"socks5://p:1\", expected http://[user:password@]host:port, or \"none\"",
        ],
    ),
    (
        "proxy = \"ftp://me:hunter2@p:1\"",
        &[
            "1: proxy: found a text with user name or password (not shown), expected http://[user:password@]host:port, or \"none\"",
        ],
    ),
    ("transport = \"udp\"", &["1: transport: found \"udp\", expected auto, websocket or http"]),
    ("scope = \"vm\"", &["1: scope: found \"vm\", expected host or cgroup"]),
    ("openclaw = \"on\"", &["1: openclaw: found \"on\", expected auto or off"]),
    ("disk_path = \"data\"", &["1: disk_path: found \"data\", expected an absolute path"]),
    (
        "bridge_listen = \"0.0.0.0:9100\"",
        &[
            "1: bridge_listen: found \"0.0.0.0:9100\", expected a loopback address with port such as \"127.0.0.1:9100\", or \"off\"",
        ],
    ),
    // The URL.
    (
        "backend_url = \"monitor.example\"",
        &[
            "1: backend_url: found \"monitor.example\", expected an http or https URL without query, fragment, user name or password",
        ],
    ),
    (
        "backend_url = \"ftp://monitor.example\"",
        &[
            "1: backend_url: found \"ftp://monitor.example\", expected an http or https URL without query, fragment, user name or password",
        ],
    ),
    (
        "backend_url = \"https://me:hunter2@x\"",
        &[
            "1: backend_url: found a URL with user name or password, expected an http or https URL without query, fragment, user name or password",
        ],
    ),
    (
        "backend_url = \"https://x/?a=b\"",
        &[
            "1: backend_url: found a URL with a query (?...), expected an http or https URL without query, fragment, user name or password",
        ],
    ),
    (
        "backend_url = \"https://x/#a\"",
        &[
            "1: backend_url: found a URL with a fragment (#...), expected an http or https URL without query, fragment, user name or password",
        ],
    ),
    // Secrets are described, never shown.
    (
        "challenge_uuid = \"hunter2\"",
        &[
            "1: challenge_uuid: found a text of 7 characters, expected a UUID such as 8f14e45f-ceea-467f-9575-1d2f3a4b5c6d",
        ],
    ),
    (
        "challenge_uuid = 1234567",
        &[
            "1: challenge_uuid: found an integer, expected a UUID such as 8f14e45f-ceea-467f-9575-1d2f3a4b5c6d",
        ],
    ),
    (
        "api_key = \"hunter 2\"",
        &[
            "1: api_key: found a text of 8 characters, expected 1 to 4096 printable ASCII characters without spaces",
        ],
    ),
    (
        "api_key = hunter2",
        &[
            "1: not valid TOML: string values must be quoted, expected literal string, found something else in column 11",
        ],
    ),
    // Conflicts.
    (
        "report_interval = \"30s\"\nreport_interval_sec = 30",
        &[
            "1: report_interval: set together with report_interval_sec (/etc/harborforge-connector/config.toml:2), expected only one of the two",
        ],
    ),
    (
        "http_fallback_interval_sec = 5\nhttp_fallback_interval = \"5s\"",
        &[
            "2: http_fallback_interval: set together with http_fallback_interval_sec (/etc/harborforge-connector/config.toml:1), expected only one of the two",
        ],
    ),
    (
        "challenge_uuid = \"a\"\nchallenge_uuid_file = \"b\"",
        &[
            "1: challenge_uuid: set together with challenge_uuid_file (/etc/harborforge-connector/config.toml:2), expected only one of the two",
        ],
    ),
    (
        "challenge_uuid = \"a\"\napi_key = \"b\"",
        &[
            "2: api_key: set together with challenge_uuid (/etc/harborforge-connector/config.toml:1), expected only one of the two",
        ],
    ),
    (
        "challenge_uuid_file = \"a\"\napi_key_file = \"b\"",
        &[
            "2: api_key_file: set together with challenge_uuid_file (/etc/harborforge-connector/config.toml:1), expected only one of the two",
        ],
    ),
    // Files that are named.
    (
        "challenge_uuid_file = \"gone\"",
        &["1: challenge_uuid_file: cannot read /etc/harborforge-connector/gone: entity not found"],
    ),
    (
        "api_key_file = \"/open\"",
        &[
            "1: api_key_file: /open holds a secret and has mode 0644, so that others can read it; type: chmod o-rwx /open",
        ],
    ),
    (
        "challenge_uuid_file = \"/empty\"",
        &[
            "1: challenge_uuid_file: found a text of 0 characters in /empty, expected a UUID such as 8f14e45f-ceea-467f-9575-1d2f3a4b5c6d",
        ],
    ),
    // Several at once, by line.
    (
        "log_format = 1\nx = 2\nbackoff_cap = \"0s\"",
        &[
            "1: log_format: found the integer 1, expected auto, text or json",
            "2: x: unknown key, expected one of the keys of docs/CONFIGURATION.md",
            "3: backoff_cap: found \"0s\", expected a duration such as \"5m\", 1s to 10m",
        ],
    ),
];

#[test]
fn each_class_of_error_has_its_text() {
    let mut wrong = String::new();
    for (text, expected) in CASES {
        let world = World::with(text).file("/open", 0o644, "key").file("/empty", 0o600, "\n");
        let errors = world.errors(Need::Nothing);
        assert!(!errors.contains("hunter"), "a secret stands in: {errors}");
        let expected: Vec<String> = expected.iter().map(|e| format!("{SYSTEM}:{e}")).collect();
        let expected = expected.join("\n");
        if errors != expected {
            wrong.push_str(&format!(
                "\nfor      {text:?}\nfound    {errors}\nexpected {expected}\n"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_is_missing_is_said_with_where_to_set_it() {
    assert_eq!(
        World::new().errors(Need::Backend),
        "backend_url: not set, expected an http or https URL without query, fragment, user name \
         or password; set it in /etc/harborforge-connector/config.toml (not there yet) or as \
         HARBORFORGE_BACKEND_URL\n\
         challenge_uuid: not set, expected the challenge the Monitor shows when a server is \
         added, here or in a file named by challenge_uuid_file, or instead api_key or \
         api_key_file; set it in /etc/harborforge-connector/config.toml (not there yet)"
    );
    // A file that is broken may hold the key after all: one mistake, one error.
    let world = World::with("backend_url = https://x");
    assert_eq!(world.errors(Need::Backend).lines().count(), 1);
    let world = World::new().uid(1000).unreadable(SYSTEM, io::ErrorKind::PermissionDenied);
    assert_eq!(world.errors(Need::Backend).lines().count(), 1);
    // A refused value is not also a missing one.
    let world = World::with("backend_url = 1\nchallenge_uuid = 2");
    assert_eq!(world.errors(Need::Backend).lines().count(), 2);
}

#[test]
fn errors_of_the_environment_and_of_flags_name_them() {
    let world = World::new().var("HARBORFORGE_REPORT_INTERVAL", "soon");
    assert_eq!(
        world.errors(Need::Nothing),
        "environment variable HARBORFORGE_REPORT_INTERVAL: report_interval: found \"soon\", \
         expected a duration such as \"30s\", 1s to 1h"
    );
    let world = World::new().var("HARBORFORGE_LOG_FORMAT", "");
    assert!(world.errors(Need::Nothing).contains("log_format: found \"\", expected"));
    let world = World::new().set("scope", "vm");
    assert_eq!(
        world.errors(Need::Nothing),
        "--set scope: scope: found \"vm\", expected host or cgroup"
    );
    let world = World::new().set("scoep", "host");
    assert_eq!(world.errors(Need::Nothing), "--set scoep: unknown key, did you mean scope?");
    let world = World::new().set("api_key", "hunter2");
    assert_eq!(
        world.errors(Need::Nothing),
        "--set api_key: api_key: found a text of 7 characters, expected no secret on the command \
         line, where everybody can read it; use HARBORFORGE_API_KEY or the \
         configuration file"
    );
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_named() {
    use std::os::unix::ffi::OsStringExt as _;
    let mut world = World::new();
    let bytes = std::ffi::OsString::from_vec(vec![0xff]);
    world.env.insert("HARBORFORGE_IDENTIFIER".into(), bytes);
    assert_eq!(
        world.errors(Need::Nothing),
        "environment variable HARBORFORGE_IDENTIFIER: identifier: found a value that is not \
         UTF-8, expected 1 to 255 bytes of text without control characters"
    );
}

#[test]
fn a_file_that_others_can_read_may_hold_no_secret() {
    let text = format!("challenge_uuid = \"{UUID}\"");
    for mode in [0o600, 0o640, 0o440, 0o660] {
        World::new().file(SYSTEM, mode, &text).ok(Need::Nothing);
    }
    assert_eq!(
        World::new().file(SYSTEM, 0o644, &text).errors(Need::Nothing),
        "/etc/harborforge-connector/config.toml:1: challenge_uuid: \
         /etc/harborforge-connector/config.toml holds a secret and has mode 0644, so that others \
         can read it; type: chmod o-rwx /etc/harborforge-connector/config.toml"
    );
    let proxy = "proxy = \"http://me:hunter2@p:3128\"";
    assert!(World::new().file(SYSTEM, 0o644, proxy).errors(Need::Nothing).contains("chmod o-rwx"));
    // Without a secret everybody may read it.
    World::new().file(SYSTEM, 0o644, "scope = \"host\"").ok(Need::Nothing);
    let odd =
        World::new().config_flag("/my conf/it's.toml").file("/my conf/it's.toml", 0o604, &text);
    assert!(odd.errors(Need::Nothing).ends_with(r"type: chmod o-rwx '/my conf/it'\''s.toml'"));
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let world = World::new().config_flag("/gone.toml");
    assert_eq!(world.errors(Need::Nothing), "cannot read /gone.toml: entity not found");
    let world = World::new().config_flag("/etc/monitor.json");
    assert_eq!(world.errors(Need::Nothing), "cannot read /etc/monitor.json: entity not found");
    // What a command does not need is only warned of.
    let world = World::new().unreadable(SYSTEM, io::ErrorKind::PermissionDenied);
    assert!(world.errors(Need::DataDir).starts_with("cannot read /etc/"));
    assert_eq!(
        world.warnings(),
        ["cannot read /etc/harborforge-connector/config.toml: permission denied; run as the user \
          that may read it, or use sudo; going on with the defaults"]
    );
}

#[test]
fn who_may_not_read_is_told_which_group_may() {
    let denied = |group: Option<&str>| Problem::Unreadable {
        path: SYSTEM.into(),
        error: io::ErrorKind::PermissionDenied.into(),
        group: group.map(str::to_owned),
    };
    let text = denied(Some("harborforge")).to_string();
    let advice = "join the group harborforge (sudo usermod -aG harborforge \"$USER\", then log in \
                  again), or use sudo";
    assert!(text.ends_with(advice), "{text}");
    assert!(denied(None).to_string().ends_with("run as the user that may read it, or use sudo"));
}

#[test]
fn a_secret_that_may_not_be_read_stops_only_who_needs_it() {
    let text = "backend_url = \"https://x\"\napi_key_file = \"/root/key\"";
    let world = World::with(text).unreadable("/root/key", io::ErrorKind::PermissionDenied);
    assert_eq!(
        world.errors(Need::Backend),
        format!(
            "{SYSTEM}:2: api_key_file: cannot read /root/key: permission denied; run as the user \
             that may read it, or use sudo"
        )
    );
    assert!(world.ok(Need::DataDir).config.credential.is_none());
}

#[test]
fn a_file_that_others_can_write_draws_a_warning() {
    assert_eq!(
        World::new().file(SYSTEM, 0o646, "").warnings(),
        [format!(
            "{SYSTEM}: others can write it and so decide where telemetry goes; type: chmod o-w \
             {SYSTEM}"
        )]
    );
}

#[test]
fn a_fault_elsewhere_does_not_hide_the_systemd_credential() {
    let world = World::with("backend_url = \"https://x\"\ndata_dir = 7")
        .var("CREDENTIALS_DIRECTORY", "/cred")
        .file("/cred/challenge_uuid", 0o400, UUID);
    let errors = world.errors(Need::Backend);
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[test]
fn a_password_has_no_place_on_the_command_line() {
    let error = World::new().set("proxy", "http://me:hunter2@p:1").errors(Need::Nothing);
    assert!(error.contains("expected no secret on the command line"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn nothing_that_is_shown_holds_a_secret() {
    for text in [
        format!("backend_url = \"https://x\"\nchallenge_uuid = \"{UUID}\""),
        "backend_url = \"https://x\"\napi_key = \"hunter2\"\nproxy = \"http://u:hunter2@p:1\""
            .into(),
    ] {
        let shown = format!("{:?}", World::with(&text).ok(Need::Backend));
        assert!(!shown.contains("hunter2") && !shown.contains(UUID), "{shown}");
    }
}
