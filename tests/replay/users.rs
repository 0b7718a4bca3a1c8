//! Who may, and as whom it works. Needs root, to be somebody else.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use crate::support::{Site, batching, has_all, monitor, outcome, program, run};

/// The user nobody is in most systems; any number without an account will do.
const OTHER: u32 = 65534;

fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: only root can start a program as another user");
    }
    root
}

/// The program as the other user would have it: configured by the environment, since the file is
/// not for him.
fn environment(site: &Site, command: &mut Command) {
    let text = fs::read_to_string(site.configure()).unwrap();
    for line in text.lines() {
        let (key, value) = line.split_once(" = ").unwrap();
        let name = format!("HARBORFORGE_{}", key.to_uppercase());
        command.env(name, value.trim_matches('"'));
    }
    fs::set_permissions(site.path(""), fs::Permissions::from_mode(0o755)).unwrap();
}

/// Everything below a directory, itself included.
fn below(dir: &Path, visit: &mut dyn FnMut(&Path)) {
    visit(dir);
    if dir.is_dir() {
        for entry in fs::read_dir(dir).unwrap() {
            below(&entry.unwrap().path(), visit);
        }
    }
}

#[test]
fn a_stranger_is_refused_and_told_what_to_do() {
    if !is_root("a_stranger_is_refused_and_told_what_to_do") {
        return;
    }
    run(async {
        use std::os::unix::process::CommandExt as _;

        let monitor = monitor(batching()).await;
        let site = Site::new(&monitor);
        site.fill(3);
        let mut daemon = site.start();
        has_all(&monitor, 4).await;
        daemon.has_appended(4).await;
        let as_stranger = |arguments: &[&str]| {
            let mut command = program(&["--config", "/dev/null", "replay"]);
            environment(&site, &mut command);
            outcome(command.args(arguments).uid(OTHER).gid(OTHER))
        };
        let (code, stdout, stderr) = as_stranger(&[]);
        assert_eq!((code, stdout.as_str()), (1, ""));
        assert!(
            stderr.contains("you may not open") && stderr.contains("make the group harborforge"),
            "{stderr}"
        );
        // As one of its group: may look, and change nothing.
        let socket = site.path("control.sock");
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
        let (code, stdout, stderr) = as_stranger(&["--sent", "--since", "1h", "--dry-run"]);
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.contains("\"dry_run\":true"), "{stdout}");
        let (code, stdout, stderr) = as_stranger(&["--sent", "--since", "1h"]);
        assert_eq!((code, stdout.as_str()), (1, ""));
        assert!(stderr.contains("is for root and the daemon's own user"), "{stderr}");
        assert_eq!(monitor.counts().replayed, 0);
        daemon.says("refused").await;
        daemon.stop().await;
    });
}

#[test]
fn what_root_replays_stays_the_daemons_users() {
    if !is_root("what_root_replays_stays_the_daemons_users") {
        return;
    }
    run(async {
        let monitor = monitor(batching()).await;
        let site = Site::new(&monitor);
        site.fill(50);
        below(&site.data_dir(), &mut |path| chown(path, Some(OTHER), Some(OTHER)).unwrap());
        let mut command = program(&["--config", "/dev/null", "replay"]);
        environment(&site, &mut command);
        let (code, stdout, stderr) = outcome(&mut command);
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.contains("\"delivered\":50"), "{stdout}");
        // Whatever goes wrong then is told to that user, though root reads it.
        let says = format!("belongs to user id {OTHER}: going on as that user");
        assert!(stderr.contains(&says), "{stderr}");
        below(&site.data_dir(), &mut |path| {
            let found = fs::metadata(path).unwrap();
            assert_eq!((found.uid(), found.gid()), (OTHER, OTHER), "{}", path.display());
        });
        assert!(site.data_dir().join("state.json").exists(), "the key's fingerprint is kept");
    });
}
