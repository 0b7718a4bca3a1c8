//! While a daemon runs: it is asked.

use std::process::{Child, Stdio};

use futures_util::join;
use harborforge_monitor::{Capability, Fault, Monitor, Options, Route};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{
    Daemon, PATIENCE, Site, batching, has_all, monitor, outcome, real_time, run, spawn,
};
use crate::{done, replay, replayed};

/// The status of a site's daemon.
fn status(site: &Site) -> Value {
    let mut command = site.command("status");
    let (code, stdout, stderr) = outcome(command.arg("--json"));
    assert_eq!(code, 0, "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// Everything taken so far has arrived, in order, and no duplicate of it.
async fn live_traffic_is_well(monitor: &Monitor, site: &Site, mut daemon: Daemon) {
    let last = daemon.appended();
    daemon.has_appended(last + 1).await;
    has_all(monitor, last + 1).await;
    daemon.stop().await;
    let counts = monitor.counts();
    assert_eq!((counts.duplicates, counts.out_of_order), (0, 0), "{counts:?}");
    let books = site.books();
    books.agree_with(monitor);
    assert_eq!(books.rejected(), Vec::<u64>::new());
}

#[test]
fn the_backlog_goes_at_once_and_the_daemon_goes_on() {
    run(async {
        let monitor = monitor(batching()).await;
        let mut site = Site::new(&monitor);
        // Without the asking nothing would be tried for long.
        site.set("backoff_cap", "10m").set("report_interval", "1h").fill(500);
        monitor.pause().await;
        let mut daemon = site.start();
        daemon.has_appended(501).await;
        let (code, summary, stderr) = replayed(&site, &[]);
        assert_eq!((code, &summary["ended"]), (5, &"unreachable".into()), "{stderr}");
        assert!(stderr.contains("501 samples stay queued"), "{stderr}");

        // Into a long wait, so that only the asking ends it.
        monitor.resume().await.unwrap();
        monitor.misbehave(Fault::retry_after(503, "500").once().at(Route::Heartbeat));
        daemon.signal(Signal::USR1);
        daemon.complains(&["503"]).await;
        let (code, plan, _) = replayed(&site, &["--dry-run"]);
        assert_eq!((code, &plan["samples"], &plan["last_seq"]), (0, &501.into(), &501.into()));
        let summary = done(&site, &[]);
        assert_eq!((&summary["samples"], &summary["delivered"]), (&501.into(), &501.into()));
        daemon.stop().await;
        let books = site.books();
        books.agree_with(&monitor);
        assert_eq!((books.pending, monitor.counts().unique), (0, 501));
    });
}

/// Delivered samples go again while others are taken and sent over `transport`.
async fn again_beside(monitor: Monitor, site: Site, transport: &str) {
    site.fill(150);
    let mut daemon = site.start();
    has_all(&monitor, 151).await;
    daemon.is_confirmed(transport).await;
    // What was sent up to now and nothing that comes meanwhile.
    let summary = done(&site, &["--sent", "--seq", "..150"]);
    assert_eq!((&summary["samples"], &summary["delivered"]), (&150.into(), &150.into()));
    assert_eq!(monitor.counts().replayed, 150);
    let status = status(&site);
    let (figures, queue) = (&status["figures"], &status["queue"]);
    assert_eq!(figures["replayed"], 150);
    let number = |value: &Value| value.as_u64().unwrap();
    let delivered = number(&figures["delivered_websocket"]) + number(&figures["delivered_http"]);
    assert_eq!(delivered + number(&queue["pending"]), number(&queue["next_seq"]) - 1);
    live_traffic_is_well(&monitor, &site, daemon).await;
}

#[test]
fn delivered_samples_go_again_beside_live_traffic() {
    run(async {
        let (ours, theirs) = (monitor(real_time()).await, monitor(batching()).await);
        let (fast, slow) = (Site::websocket(&ours), Site::new(&theirs));
        join!(again_beside(ours, fast, "websocket"), again_beside(theirs, slow, "http"));
    });
}

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
}

#[test]
fn one_at_a_time_and_it_ends_with_whoever_asked() {
    run(async {
        let monitor = monitor(real_time()).await;
        let site = Site::websocket(&monitor);
        site.fill(20);
        let mut daemon = site.start();
        has_all(&monitor, 21).await;
        daemon.is_confirmed("websocket").await;
        // The sixth replayed one is stored, and the answer never comes.
        monitor.misbehave(Fault::HoldAnswer.once().at(Route::Heartbeat).after(5));
        let mut command = replay(&site, &["--sent", "--seq", "..20"]);
        let first = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        monitor.wait_for(|books| books.counts().replayed == 6, PATIENCE).await.unwrap();
        let (code, _, stderr) = replayed(&site, &["--rejected"]);
        assert_eq!(code, 1);
        assert!(stderr.contains("under way already"), "{stderr}");
        let (code, _, _) = replayed(&site, &["--rejected", "--dry-run"]);
        assert_eq!(code, 0, "looking is free");

        interrupt(&first);
        let output = first.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("go on with --seq 6.."), "{stderr}");
        daemon.says("replay ended").await;
        assert_eq!(done(&site, &["--sent", "--seq", "6..20"])["delivered"], 15);
        live_traffic_is_well(&monitor, &site, daemon).await;
    });
}

#[test]
fn rejected_samples_go_once_the_monitor_is_mended() {
    run(async {
        let offers = [Capability::Ack, Capability::Resume, Capability::Batch].into();
        let monitor = monitor(Options { capabilities: offers, ..real_time() }).await;
        monitor.misbehave(Fault::reject([4, 9]));
        let site = Site::websocket(&monitor);
        site.fill(12);
        let mut daemon = site.start();
        daemon.is_confirmed("websocket").await;
        assert_eq!(status(&site)["queue"]["rejected"], 2);
        assert_eq!(done(&site, &["--rejected"])["refused"], 2);
        monitor.heal();
        let (_, plan, _) = replayed(&site, &["--rejected", "--dry-run"]);
        assert_eq!((&plan["first_seq"], &plan["last_seq"]), (&4.into(), &9.into()));
        assert_eq!(done(&site, &["--rejected"])["delivered"], 2);
        assert_eq!(status(&site)["queue"]["rejected"], 0);
        let last = daemon.appended();
        has_all(&monitor, last).await;
        daemon.stop().await;
        assert_eq!(monitor.counts().duplicates, 0);
        let books = site.books();
        books.agree_with(&monitor);
        assert_eq!(books.rejected(), Vec::<u64>::new());
    });
}

#[test]
fn a_daemon_with_another_queue_is_not_asked() {
    run(async {
        let (theirs, ours) = (monitor(batching()).await, monitor(batching()).await);
        let other = Site::new(&theirs);
        let mut daemon = other.start();
        daemon.has_appended(1).await;
        let mut site = Site::new(&ours);
        site.set("control_socket", other.path("control.sock").to_str().unwrap()).fill(30);
        let (code, plan, stderr) = replayed(&site, &["--dry-run"]);
        assert_eq!((code, &plan["samples"], &plan["last_seq"]), (0, &30.into(), &30.into()));
        assert_eq!(stderr, "");
        assert_eq!(done(&site, &[])["delivered"], 30);
        has_all(&ours, 30).await;
        daemon.stop().await;
    });
}
