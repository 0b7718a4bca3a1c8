//! Rules over several keys: credentials, plain http, proxies, warnings; and what a reload sees.

use secrecy::ExposeSecret as _;

use super::*;

const PIN: &str =
    "public_key_sha256 = \"00000000000000000000000000000000000000000000000000000000000000aa\"\n";

fn credential(world: &World) -> (&'static str, String) {
    match &world.ok(Need::Nothing).config.credential {
        Some(Credential::Challenge(secret)) => ("challenge", secret.expose_secret().to_owned()),
        Some(Credential::ApiKey(secret)) => ("api_key", secret.expose_secret().to_owned()),
        None => ("none", String::new()),
    }
}

#[test]
fn a_credential_comes_inline_from_a_file_or_from_systemd() {
    let challenge = ("challenge", UUID.to_owned());
    let inline = format!("challenge_uuid = \"{UUID}\"");
    assert_eq!(credential(&World::with(&inline)), challenge);
    let line = format!("  {UUID}\r\n");
    let file = World::with("challenge_uuid_file = \"c\"").file(
        "/etc/harborforge-connector/c",
        0o400,
        &line,
    );
    assert_eq!(credential(&file), challenge);
    let path = file.ok(Need::Nothing).credential_file;
    assert_eq!(path.as_deref(), Some(Path::new("/etc/harborforge-connector/c")));

    let systemd = World::new().var("CREDENTIALS_DIRECTORY", "/cred");
    assert_eq!(credential(&systemd).0, "none");
    let systemd = systemd.file("/cred/challenge_uuid", 0o440, &line);
    assert_eq!(credential(&systemd), challenge);
    let both = systemd.file("/cred/api_key", 0o440, "k");
    assert_eq!(
        both.errors(Need::Nothing),
        "/cred/api_key: api_key: set together with challenge_uuid (/cred/challenge_uuid), \
         expected only one of the two"
    );
    let bad = World::new().var("CREDENTIALS_DIRECTORY", "/cred").file(
        "/cred/challenge_uuid",
        0o400,
        "hunter2",
    );
    assert_eq!(
        bad.errors(Need::Backend).lines().next(),
        Some(
            "/cred/challenge_uuid: challenge_uuid: found a text of 7 characters in \
             /cred/challenge_uuid, expected a UUID such as 8f14e45f-ceea-467f-9575-1d2f3a4b5c6d"
        )
    );
}

#[test]
fn what_is_configured_comes_before_systemd_and_says_so() {
    let world = World::with("api_key = \"k\"").var("CREDENTIALS_DIRECTORY", "/cred").file(
        "/cred/challenge_uuid",
        0o400,
        UUID,
    );
    assert_eq!(credential(&world), ("api_key", "k".into()));
    assert_eq!(
        world.warnings(),
        ["/cred/challenge_uuid: this systemd credential is not used, since api_key is set"]
    );
}

#[test]
fn a_later_layer_overrides_the_same_mode_and_conflicts_with_the_other() {
    let world =
        World::with("challenge_uuid_file = \"/gone\"").var("HARBORFORGE_CHALLENGE_UUID", UUID);
    assert_eq!(credential(&world), ("challenge", UUID.into()));
    let world = World::with("api_key = \"k\"").var("HARBORFORGE_CHALLENGE_UUID", UUID);
    assert!(world.errors(Need::Nothing).contains("api_key: set together with challenge_uuid"));
}

#[test]
fn plain_http_is_for_loopback_unless_permitted() {
    let challenge = format!("challenge_uuid = \"{UUID}\"\n");
    let key = "api_key = \"k\"\n";
    let insecure = "allow_insecure = true\n";
    let far = "backend_url = \"http://monitor.example\"\n";
    let needs_permission = "needs allow_insecure = true";
    let needs_pin = "needs public_key_sha256";
    let never = "never sent over plain http";
    let text = |parts: &[&str]| parts.concat();
    for (text, expected) in [
        (text(&[far, &challenge]), Some(needs_permission)),
        (text(&[far, &challenge, PIN]), Some(needs_permission)),
        (text(&[far, &challenge, insecure]), Some(needs_pin)),
        (text(&[far, &challenge, insecure, PIN]), None),
        (text(&[far, key, insecure, PIN]), Some(never)),
        (text(&[far, key]), Some(never)),
        (text(&[far]), Some(needs_permission)),
        (text(&["backend_url = \"http://127.0.0.1:1\"\n", &challenge]), None),
        (text(&["backend_url = \"http://[::1]:1\"\n", key]), None),
        (text(&["backend_url = \"http://localhost\"\n", key]), None),
        (text(&["backend_url = \"http://localhost.example\"\n", key]), Some(never)),
        (text(&["backend_url = \"https://monitor.example\"\n", key]), None),
    ] {
        let result = World::with(&text).load(Need::Nothing);
        match expected {
            None => assert!(result.is_ok(), "{text}"),
            Some(part) => {
                let error = result.expect_err(&text).to_string();
                assert!(error.contains(part), "{text}: {error}");
            }
        }
    }
    let world = World::with(&text(&[far, &challenge, insecure, PIN]));
    assert_eq!(world.warnings().len(), 1);
    assert!(world.warnings()[0].contains("everyone on the way can read"));
}

#[test]
fn a_path_prefix_is_kept() {
    for (written, joined) in [
        ("https://h", "https://h/monitor/x"),
        ("https://h/harbor", "https://h/harbor/monitor/x"),
        ("https://h/harbor/", "https://h/harbor/monitor/x"),
        ("https://h:8443/a/b", "https://h:8443/a/b/monitor/x"),
    ] {
        let world = World::with(&format!("backend_url = \"{written}\""));
        let url = world.config().backend_url.clone().unwrap();
        assert_eq!(url.join("monitor/x").unwrap().as_str(), joined);
    }
}

#[test]
fn an_api_key_does_without_the_websocket() {
    let world = World::with("api_key = \"k\"\ntransport = \"websocket\"");
    assert_eq!(
        world.errors(Need::Nothing),
        format!(
            "{SYSTEM}:2: transport: found \"websocket\", an API key allows the heartbeat alone; \
             use auto or http, or a challenge"
        )
    );
    World::with("api_key = \"k\"\ntransport = \"http\"").ok(Need::Nothing);
}

#[test]
fn proxies_come_from_the_key_or_the_environment() {
    let backend = "backend_url = \"https://monitor.example\"\n";
    let host = |world: &World| world.config().proxy.as_ref().map(|proxy| proxy.host.clone());
    let env = || {
        World::with(backend).var("HTTPS_PROXY", "http://one:1").var("https_proxy", "http://two:2")
    };
    assert_eq!(host(&World::with(backend)), None);
    assert_eq!(host(&World::with(backend).var("HTTP_PROXY", "http://three:3")), None);
    assert_eq!(host(&World::with(backend).var("https_proxy", "two:2")).as_deref(), Some("two"));
    assert_eq!(host(&env()).as_deref(), Some("one"));
    assert_eq!(host(&env().var("NO_PROXY", ".example")), None);
    assert_eq!(host(&env().set("proxy", "none")), None);
    assert_eq!(host(&env().set("proxy", "http://four:4")).as_deref(), Some("four"));
    let loopback = World::with("backend_url = \"http://127.0.0.1\"").var("HTTP_PROXY", "three:3");
    assert_eq!(host(&loopback), None);
    let bad = World::with(backend).var("HTTPS_PROXY", "socks5://me:hunter2@p:1");
    assert_eq!(
        bad.errors(Need::Nothing),
        "environment variable HTTPS_PROXY: found a text with user name or password (not shown), \
         expected http://[user:password@]host:port; set proxy = \"none\" to ignore it"
    );
}

#[test]
fn intervals_beyond_the_offline_threshold_draw_a_warning() {
    let world = World::with("report_interval = \"7m\"\nbackoff_cap = \"7m\"");
    assert!(world.warnings().is_empty());
    let world = World::with("report_interval_sec = 421\nbackoff_cap = \"10m\"");
    assert_eq!(
        world.warnings(),
        [
            "/etc/harborforge-connector/config.toml:1: report_interval_sec: 7m 1s is longer than \
             the 7m after which the Monitor calls a server offline",
            "/etc/harborforge-connector/config.toml:2: backoff_cap: 10m is longer than the 7m \
             after which the Monitor calls a server offline",
        ]
    );
}

#[test]
fn a_reload_sees_what_changed_by_group() {
    let base = format!("backend_url = \"https://h\"\nchallenge_uuid = \"{UUID}\"\n");
    let old = World::with(&base).config();
    let changes = |extra: &str| diff(&old, &World::with(&format!("{base}{extra}")).config());
    let one = |group, keys: &[Key]| vec![Change { group, keys: keys.to_vec() }];
    assert_eq!(changes(""), []);
    // The same value in another spelling is no change.
    assert_eq!(changes("report_interval_sec = 30\nqueue_max_bytes = 268435456"), []);
    assert_eq!(changes("report_interval = \"31s\""), one(Group::Schedule, &[Key::ReportInterval]));
    assert_eq!(changes("identifier = \"x\""), one(Group::Endpoint, &[Key::Identifier]));
    assert_eq!(changes("log_level = \"debug\""), one(Group::Logging, &[Key::LogLevel]));
    assert_eq!(changes("retain_sent = 0"), one(Group::Queue, &[Key::RetainSent]));
    assert_eq!(changes("scope = \"cgroup\""), one(Group::Collector, &[Key::Scope]));
    assert_eq!(
        changes("bridge_listen = \"127.0.0.1:1\""),
        one(Group::Bridge, &[Key::BridgeListen])
    );
    assert_eq!(changes("proxy = \"p:1\""), one(Group::Endpoint, &[Key::Proxy]));
    assert_eq!(
        changes("data_dir = \"/d\"\ncontrol_socket = \"/c\"\nlog_format = \"json\""),
        one(Group::Restart, &[Key::LogFormat, Key::DataDir, Key::ControlSocket])
    );
    let new = World::with("backend_url = \"https://h\"\napi_key = \"k\"").config();
    assert_eq!(diff(&old, &new), one(Group::Credentials, &[Key::ApiKey]));
    let new = World::with(&base.replace("8f14", "0000")).config();
    assert_eq!(diff(&old, &new), one(Group::Credentials, &[Key::ChallengeUuid]));
}
