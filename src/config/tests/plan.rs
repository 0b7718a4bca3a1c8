//! What `enroll` would write.

use super::*;

const NEW: &str = "22222222-2222-4222-8222-222222222222";

fn challenge(text: &str) -> Wish {
    Wish { credential: Some(Credential::challenge(text).unwrap()), ..Wish::default() }
}

fn api_key(text: &str) -> Wish {
    Wish { credential: Some(Credential::api_key(text).unwrap()), ..Wish::default() }
}

fn planned(world: &World, wish: &Wish) -> Plan {
    plan(&world.sources(), wish).unwrap_or_else(|errors| panic!("{errors}"))
}

fn refused(world: &World, wish: &Wish) -> String {
    match plan(&world.sources(), wish) {
        Ok(_) => panic!("this was planned"),
        Err(errors) => errors.to_string(),
    }
}

/// A world whose system-wide file is root's alone, so that it may hold a secret.
fn closed(text: &str) -> World {
    World::new().file(SYSTEM, 0o600, text)
}

/// The path, the text and whether it is private, of each file.
fn files(plan: &Plan) -> Vec<(&str, &str, bool)> {
    let files = plan.files.iter();
    files.map(|it| (it.path.to_str().unwrap(), it.after.as_str(), it.private)).collect()
}

#[test]
fn an_existing_file_keeps_all_but_what_is_changed() {
    let before = "# ours\r\nbackend_url = 'https://old.example' # the old one\r\n\r\n\
                  api_key = \"geheim\" # from ops\r\nreport_interval = \"10s\"\r\n";
    let world = closed(before);
    let wish = Wish { backend_url: Some("https://new.example".into()), ..challenge(NEW) };
    let plan = planned(&world, &wish);
    let after = format!(
        "# ours\r\nbackend_url = \"https://new.example\" # the old one\r\n\r\n\
         #api_key = \"\" # from ops\r\nreport_interval = \"10s\"\r\nchallenge_uuid = \"{NEW}\"\r\n"
    );
    assert_eq!(files(&plan), [(SYSTEM, after.as_str(), true)]);
    let file = &plan.files[0];
    assert_eq!(file.set, [Key::BackendUrl, Key::ChallengeUuid]);
    assert_eq!(file.unset, [Key::ApiKey]);
    assert_eq!(file.before.as_ref().unwrap().as_str(), before);
    let config = &plan.loaded.config;
    assert!(config.credential.as_ref().unwrap().is_same(&Credential::challenge(NEW).unwrap()));
    assert_eq!(config.backend_url.as_ref().unwrap().as_str(), "https://new.example/");
    assert!(plan.overridden.is_empty());
}

#[test]
fn without_a_file_the_shipped_one_is_made_where_it_is_looked_for() {
    let wish = || Wish { backend_url: Some("https://m.example".into()), ..challenge(NEW) };
    let world = |uid| World::new().uid(uid).var("HOME", "/home/claw");
    for (world, path) in [
        (world(0), SYSTEM),
        (world(1000), "/home/claw/.config/harborforge-connector/config.toml"),
        (world(1000).config_flag("/tmp/own.toml"), "/tmp/own.toml"),
        (world(1000).var("HARBORFORGE_CONFIG", "/tmp/own.toml"), "/tmp/own.toml"),
    ] {
        let plan = planned(&world, &wish());
        let [file] = plan.files.as_slice() else { panic!("{:?}", files(&plan)) };
        assert_eq!((file.path.to_str().unwrap(), file.before.is_none()), (path, true));
        assert!(file.private);
        for line in EXAMPLE.lines() {
            assert!(file.after.lines().any(|after| after == line), "{line}");
        }
        assert_eq!(file.after.lines().count(), EXAMPLE.lines().count() + 2);
        assert_eq!(plan.loaded.file.as_ref().unwrap().to_str(), Some(path));
    }
}

#[test]
fn a_file_of_its_own_takes_the_secret_and_the_configuration_stays() {
    let text = "backend_url = \"https://m.example\"\nchallenge_uuid_file = \"secret/challenge\"\n";
    let path = "/etc/harborforge-connector/secret/challenge";
    let with = closed(text).file(path, 0o400, UUID);
    let plan = planned(&with, &challenge(NEW));
    assert_eq!(files(&plan), [(path, format!("{NEW}\n").as_str(), true)]);
    // The first time there is none yet.
    let plan = planned(&closed(text), &challenge(NEW));
    assert_eq!(files(&plan), [(path, format!("{NEW}\n").as_str(), true)]);
    // It says so already.
    assert!(planned(&with, &challenge(UUID)).files.is_empty());
    // The other mode: its file stays, its key goes.
    let plan = planned(&with, &api_key("geheim"));
    let after = "backend_url = \"https://m.example\"\n\
                 #challenge_uuid_file = \"secret/challenge\"\napi_key = \"geheim\"\n";
    assert_eq!(files(&plan), [(SYSTEM, after, true)]);
}

/// Who is in the group may look at the queue, and need not know the secret for it.
#[test]
fn where_a_group_reads_the_configuration_the_secret_stands_beside_it() {
    let directory = "/etc/harborforge-connector";
    let beside = |name: &str| format!("{directory}/{name}");
    let url = "backend_url = \"https://m.example\"\n";
    for mode in [0o640, 0o644, 0o440] {
        let plan = planned(&World::new().file(SYSTEM, mode, url), &challenge(NEW));
        let after = format!("{url}challenge_uuid_file = \"challenge_uuid\"\n");
        let (path, secret) = (beside("challenge_uuid"), format!("{NEW}\n"));
        assert_eq!(
            files(&plan),
            [(path.as_str(), secret.as_str(), true), (SYSTEM, after.as_str(), false)]
        );
        // Before the configuration names it, it is there.
        let secret: Vec<bool> = plan.files.iter().map(|it| it.secret).collect();
        assert_eq!(secret, [true, false]);
        let held = plan.loaded.config.credential.as_ref().unwrap();
        assert!(held.is_same(&Credential::challenge(NEW).unwrap()));
    }
    // One that stood in the configuration goes from there, and so does that of the other mode.
    let text = format!("{url}challenge_uuid = \"{UUID}\"\n");
    let plan = planned(&World::with(&text), &api_key("geheim"));
    let after = format!("{url}#challenge_uuid = \"\"\napi_key_file = \"api_key\"\n");
    let path = beside("api_key");
    assert_eq!(files(&plan), [(path.as_str(), "geheim\n", true), (SYSTEM, after.as_str(), false)]);
    let plan = planned(&World::with(&text), &challenge(NEW));
    assert!(plan.files.iter().all(|it| !it.after.contains(UUID)), "{:?}", files(&plan));
    // Said again, nothing is written; a new one goes to the same place.
    let text = format!("{url}challenge_uuid_file = \"challenge_uuid\"\n");
    let world = World::with(&text).file(&beside("challenge_uuid"), 0o600, UUID);
    assert!(planned(&world, &challenge(UUID)).files.is_empty());
    let plan = planned(&world, &challenge(NEW));
    assert_eq!(plan.files.len(), 1);
    // A name alone leaves the secret where it is.
    let text = format!("{url}challenge_uuid = \"{UUID}\"\n");
    let wish = Wish { identifier: Some("vps.t1".into()), ..Wish::default() };
    let plan = planned(&World::with(&text), &wish);
    assert!(plan.files.len() == 1 && plan.files[0].after.contains(UUID));
}

#[test]
fn a_file_that_others_can_read_is_closed_by_what_is_planned() {
    let text = "backend_url = \"https://m.example\"\nchallenge_uuid_file = \"/c\"\n";
    let world = World::new().file(SYSTEM, 0o644, text).file("/c", 0o644, UUID);
    assert_eq!(
        files(&planned(&world, &challenge(NEW))),
        [("/c", format!("{NEW}\n").as_str(), true)]
    );
    // Without a secret in it, it may stay open.
    let world = World::new().file(SYSTEM, 0o644, text).file("/c", 0o600, UUID);
    let wish = Wish { identifier: Some("vps \"1\"".into()), ..Wish::default() };
    let after = format!("{text}identifier = \"vps \\\"1\\\"\"\n");
    assert_eq!(files(&planned(&world, &wish)), [(SYSTEM, after.as_str(), false)]);
}

#[test]
fn a_configuration_that_would_not_hold_is_not_planned() {
    let good = format!("backend_url = \"https://m.example\"\nchallenge_uuid = \"{UUID}\"\n");
    let world = World::with(&good);
    let url = |url: &str| Wish { backend_url: Some(url.into()), ..Wish::default() };
    let name = |name: &str| Wish { identifier: Some(name.into()), ..Wish::default() };
    for (wish, parts) in [
        (url("ftp://m.example"), ["config.toml:1", "backend_url", "ftp://m.example"]),
        (url("http://m.example"), ["config.toml:1", "backend_url", "allow_insecure"]),
        (name(""), ["config.toml:3", "identifier", "\"\""]),
        (name("two\nlines"), ["config.toml:3", "identifier", "two\\nlines"]),
    ] {
        let errors = refused(&world, &wish);
        for part in parts {
            assert!(errors.contains(part), "{part} in {errors}");
        }
    }
    // What was wrong before is told as it is by every command.
    let errors = refused(&World::with("backend_url = \n[queue]\nmax = 1\n"), &challenge(NEW));
    assert!(errors.contains("config.toml:1") && errors.contains("not valid TOML"), "{errors}");
    let errors = refused(&World::with(&format!("{good}[queue]\nmax = 1\n")), &challenge(NEW));
    assert!(errors.contains("queue: unknown key"), "{errors}");
    let errors = refused(&World::new(), &url("https://m.example"));
    assert!(errors.contains("challenge_uuid: not set"), "{errors}");
    let errors = refused(&World::new().config_flag("/etc/monitor.json"), &challenge(NEW));
    assert!(errors.contains("a .json configuration is not written"), "{errors}");
    let unreadable = World::new().unreadable(SYSTEM, io::ErrorKind::PermissionDenied);
    assert!(refused(&unreadable, &challenge(NEW)).contains("cannot read"));
}

#[test]
fn what_comes_before_the_file_is_told() {
    let good = format!("backend_url = \"https://m.example\"\nchallenge_uuid = \"{UUID}\"\n");
    let world = World::with(&good)
        .var("HARBORFORGE_IDENTIFIER", "other")
        .var("HARBORFORGE_CHALLENGE_UUID", UUID)
        .var("HARBORFORGE_REPORT_INTERVAL", "5s");
    let wish = Wish { identifier: Some("vps.t1".into()), ..challenge(NEW) };
    let plan = planned(&world, &wish);
    let told: Vec<String> = plan.overridden.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("HARBORFORGE_IDENTIFIER") && told[1].contains("CHALLENGE_UUID"));
    assert!(told.iter().all(|text| !text.contains(UUID) && !text.contains(NEW)), "{told:?}");
}
