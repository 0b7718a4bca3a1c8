//! Where a value comes from: the search for the file, the order of the layers, the defaults of
//! paths.

use super::*;

#[test]
fn a_later_layer_overrides_an_earlier_one() {
    let minute = Duration::from_secs(60);
    assert_eq!(World::new().config().report_interval, minute / 2);
    let file = World::with("report_interval = \"1m\"");
    assert_eq!(file.config().report_interval, minute);
    let env = World::with("report_interval = \"1m\"").var("HARBORFORGE_REPORT_INTERVAL", "2m");
    assert_eq!(env.config().report_interval, 2 * minute);
    let flag = env.set("report_interval", "3m").set("report_interval", "4m");
    let loaded = flag.ok(Need::Nothing);
    assert_eq!(loaded.config.report_interval, 4 * minute);
    let origin = loaded.origins.get(&Key::ReportInterval).map(ToString::to_string);
    assert_eq!(origin.as_deref(), Some("--set report_interval"));
}

#[test]
fn origins_name_file_and_line() {
    let loaded = World::with("# first\n\nscope = \"cgroup\"\n").ok(Need::Nothing);
    assert_eq!(loaded.file.as_deref(), Some(Path::new(SYSTEM)));
    assert_eq!(loaded.origins[&Key::Scope].to_string(), format!("{SYSTEM}:3"));
    assert_eq!(loaded.origins[&Key::Transport], Origin::Default);
    assert!(!loaded.origins.contains_key(&Key::BackendUrl));
}

#[test]
fn both_spellings_of_an_interval_are_taken() {
    let config = World::with("report_interval_sec = 7\nhttp_fallback_interval_sec = 9").config();
    assert_eq!(config.report_interval, Duration::from_secs(7));
    assert_eq!(config.http_fallback_interval, Duration::from_secs(9));
    // In different layers they are no conflict: the later layer counts, either way round.
    let world = World::with("report_interval = \"1m\"").var("HARBORFORGE_REPORT_INTERVAL_SEC", "8");
    assert_eq!(world.config().report_interval, Duration::from_secs(8));
    let world = World::with("report_interval_sec = 8").set("report_interval", "1m");
    assert_eq!(world.config().report_interval, Duration::from_secs(60));
}

#[test]
fn every_key_has_its_variable() {
    for key in Key::ALL {
        let world = World::new().var(&key.variable(), "\u{7}");
        let error = world.errors(Need::Nothing);
        assert!(error.contains(&key.variable()), "{}: {error}", key.name());
    }
    let world = World::new()
        .var("HARBORFORGE_OPENCLAW_HOME", "/a:/b")
        .var("HARBORFORGE_REPORT_NGINX", "true")
        .var("HARBORFORGE_QUEUE_MAX_BYTES", "1GiB")
        .var("HARBORFORGE_RETAIN_SENT", "0");
    let config = world.config();
    assert_eq!(config.openclaw_home, [PathBuf::from("/a"), "/b".into()]);
    assert!(config.report_nginx);
    assert_eq!((config.queue.max_bytes, config.queue.retain_sent), (1 << 30, Duration::ZERO));
}

#[test]
fn a_variable_that_is_no_key_is_warned_of() {
    let world = World::new().var("HARBORFORGE_REPROT_INTERVAL", "1s").var("HARBORFORGE_CONFIG", "");
    assert_eq!(
        world.warnings(),
        ["environment variable HARBORFORGE_REPROT_INTERVAL: no such key, it has no effect; did \
          you mean HARBORFORGE_REPORT_INTERVAL?"]
    );
}

#[test]
fn the_file_is_searched_in_order() {
    let user = "/home/me/.config/harborforge-connector/config.toml";
    let xdg = "/xdg/harborforge-connector/config.toml";
    let world = || {
        World::with("identifier = \"system\"")
            .file(user, 0o600, "identifier = \"user\"")
            .file(xdg, 0o600, "identifier = \"xdg\"")
            .file("/v.toml", 0o600, "identifier = \"variable\"")
            .file("/f.toml", 0o600, "identifier = \"flag\"")
            .var("HOME", "/home/me")
    };
    let name = |world: World| world.config().identifier.clone();
    assert_eq!(name(world()), "system");
    assert_eq!(name(world().uid(1000)), "user");
    assert_eq!(name(world().uid(1000).var("XDG_CONFIG_HOME", "/xdg")), "xdg");
    assert_eq!(name(world().uid(1000).var("XDG_CONFIG_HOME", "/other")), "system");
    let world = || world().var("HARBORFORGE_CONFIG", "/v.toml");
    assert_eq!(name(world()), "variable");
    assert_eq!(name(world().config_flag("/f.toml")), "flag");
    assert_eq!(name(World::new()), "host");
}

#[test]
fn directories_follow_systemd_root_and_xdg() {
    let paths = |world: World| {
        let config = world.ok(Need::DataDir).config;
        (config.data_dir.display().to_string(), config.control_socket.display().to_string())
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let name = "harborforge-connector";
    assert_eq!(
        paths(World::new()),
        pair(&format!("/var/lib/{name}"), &format!("/run/{name}/control.sock"))
    );
    assert_eq!(
        paths(World::new().var("STATE_DIRECTORY", "/s:/t").var("RUNTIME_DIRECTORY", "/r:/q")),
        pair("/s", "/r/control.sock")
    );
    let user = || World::new().uid(1000).var("HOME", "/home/me");
    assert_eq!(
        paths(user()),
        pair(
            &format!("/home/me/.local/state/{name}"),
            &format!("/home/me/.local/state/{name}/control.sock")
        )
    );
    assert_eq!(
        paths(user().var("XDG_STATE_HOME", "/state").var("XDG_RUNTIME_DIR", "/run/user/1000")),
        pair(&format!("/state/{name}"), &format!("/run/user/1000/{name}/control.sock"))
    );
    // A relative one is no XDG directory.
    assert_eq!(
        paths(user().var("XDG_STATE_HOME", "state")).0,
        format!("/home/me/.local/state/{name}")
    );
}

#[test]
fn without_a_home_only_commands_that_need_it_fail() {
    let world = World::new().uid(1000);
    world.ok(Need::Nothing);
    assert_eq!(
        world.errors(Need::DataDir),
        "data_dir: not set, expected the path of a directory, since neither XDG_STATE_HOME nor \
         HOME is set"
    );
}

#[test]
fn relative_paths_start_where_they_are_written() {
    let world = World::with("ca_file = \"ca.pem\"\ndata_dir = \"/abs\"");
    let config = world.config();
    assert_eq!(config.ca_file.as_deref(), Some(Path::new("/etc/harborforge-connector/ca.pem")));
    assert_eq!(config.data_dir, Path::new("/abs"));
    let world = World::with("").var("HARBORFORGE_CA_FILE", "ca.pem");
    assert_eq!(world.config().ca_file.as_deref(), Some(Path::new("ca.pem")));
}

#[test]
fn a_socket_path_must_fit_into_an_address() {
    let long = "x".repeat(107);
    World::new().set("control_socket", &long).ok(Need::Nothing);
    let error = World::new().set("control_socket", &format!("{long}x")).errors(Need::Nothing);
    assert!(error.ends_with("(108 bytes), expected a path of at most 107 bytes"), "{error}");
    // A default can be too long as well.
    let error = World::new().var("RUNTIME_DIRECTORY", &format!("/{long}")).errors(Need::Nothing);
    assert!(error.starts_with("control_socket: found /xxx"), "{error}");
}

#[test]
fn a_user_without_a_daemon_reaches_the_systems_unless_he_said_where_it_is() {
    let theirs = "/run/harborforge-connector/control.sock";
    let reached = |world: World, there: &[&str]| {
        let mut loaded = world.ok(Need::Nothing);
        let uid = 1000;
        loaded.reach_system_daemon(uid, |path| there.iter().any(|known| path == Path::new(known)));
        let config = loaded.config;
        (config.control_socket.display().to_string(), config.data_dir.display().to_string())
    };
    let user = || World::new().uid(1000).var("HOME", "/h").var("XDG_RUNTIME_DIR", "/x");
    let own = "/x/harborforge-connector/control.sock";
    let state = "/h/.local/state/harborforge-connector";
    assert_eq!(reached(user(), &[]), (own.to_owned(), state.to_owned()));
    assert_eq!(
        reached(user(), &[theirs]),
        (theirs.to_owned(), "/var/lib/harborforge-connector".to_owned())
    );
    assert_eq!(reached(user(), &[theirs, own]).0, own);
    let queue = format!("{state}/queue");
    assert_eq!(reached(user(), &[theirs, &queue]).1, state, "a queue of his own stays his");
    assert_eq!(reached(user().set("control_socket", "/c"), &[theirs]).0, "/c");
    let mut root = World::new().ok(Need::Nothing);
    let before = root.config.control_socket.clone();
    root.reach_system_daemon(0, |_| false);
    assert_eq!(root.config.control_socket, before);
}
