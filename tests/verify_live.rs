//! `verify` of a queue a daemon has open: what is to be done is said to somebody whose daemon runs.

// Clippy's allowance for tests covers test functions alone, and this whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use std::fs;

use support::{Site, monitor, outcome, plain, run};

#[test]
fn nobody_is_told_to_start_the_daemon_that_runs() {
    run(async {
        let monitor = monitor(plain()).await;
        let site = Site::new(&monitor);
        site.fill(3);
        let mut daemon = site.start();
        daemon.has_appended(4).await;
        let (code, stdout, stderr) = outcome(&mut site.command("verify"));
        assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");

        // Read at starts alone, so it stays as it is now.
        fs::write(site.data_dir().join("queue/FORMAT"), "nonsense").unwrap();
        for format in ["table", "jsonl"] {
            let (code, stdout, stderr) = outcome(site.command("verify").args(["--format", format]));
            let said = stdout + &stderr;
            assert_eq!(code, 4, "{said}");
            assert!(said.contains("WRONG: FORMAT (damaged)"), "{said}");
            assert!(said.contains("restart the daemon (systemctl restart "), "{said}");
            assert!(!said.contains(" start the daemon"), "{said}");
        }
        daemon.stop().await;
    });
}
