//! What is known of OpenClaw: in the greeting, and at once when an agent's status changes.
//!
//! The sender alone, with a real queue and real sockets; who finds it out is the watcher's affair.

use std::time::Duration;

use harborforge_connector::collector::openclaw::known::Known;
use harborforge_connector::collector::{OpenClawView, clock};
use harborforge_connector::config::{self, Flags, Need, Sources};
use harborforge_connector::health::Health;
use harborforge_connector::runtime::{self, channel};
use harborforge_connector::sample::{Agent, AgentStatus};
use harborforge_connector::sender::driver::{Driver, Order};
use harborforge_connector::sender::link::Link;
use harborforge_connector::sender::machine::{Settings, Transports};
use harborforge_connector::state::StateFile;
use harborforge_connector::store;
use harborforge_storage::Options;

use crate::support::{Site, counted, has_all, monitor, real_time, run};

fn tell(known: &Known, status: AgentStatus) {
    let agent = Agent { id: "a1".to_owned(), name: "agent".to_owned(), status };
    let version = Some("2026.3.13".to_owned());
    let view = OpenClawView { version, agents: vec![agent], plugin_version: None };
    known.read(view, clock::since_boot());
}

#[test]
fn an_agents_new_status_is_told_at_once_and_only_that() {
    run(async {
        let monitor = monitor(real_time()).await;
        let site = Site::websocket(&monitor);
        site.fill(3);
        let flags = Flags { config: Some(site.configure()), ..Flags::default() };
        let config = config::load(&Sources::of_process(flags), Need::Backend).unwrap().config;
        let link = Link::new(&config).unwrap();
        let state = StateFile::load(&config.data_dir, link.backend_url());
        let (queue, thread) =
            store::start(config.data_dir.clone(), Options::default(), clock::Clock::new()).unwrap();
        let settings = Settings {
            proved: true,
            transports: Transports::Websocket,
            report_interval: Duration::from_secs(1),
            fallback_interval: Duration::from_secs(1),
            backoff_cap: Duration::from_secs(1),
        };
        let (orders, receiver) = channel::unbounded();
        let clock = runtime::Clock::start();
        let health = Health::new(clock.wall(), settings.transports);
        let known = Known::new();
        let driver = Driver::new(settings, link, queue.clone(), state, clock, health, receiver)
            .hinting(known.clone());
        // Before there is a link it is kept for the greeting: no hint comes before that, nor one
        // after it of what the greeting said.
        tell(&known, AgentStatus::Idle);
        let sender = runtime::spawn(driver.run());
        has_all(&monitor, 3).await;
        assert_eq!((monitor.counts().hellos, monitor.counts().agent_changes), (1, 0));
        tell(&known, AgentStatus::Running);
        counted(&monitor, "changes", 1, |counts| counts.agent_changes).await;
        // The same again is no change.
        tell(&known, AgentStatus::Running);
        tell(&known, AgentStatus::Stopped);
        counted(&monitor, "changes", 2, |counts| counts.agent_changes).await;
        orders.send(Order::Shutdown).await.unwrap();
        sender.await;
        queue.stop();
        assert!(matches!(thread.join(), store::Stopped::Cleanly));
        let counts = monitor.counts();
        assert_eq!((counts.agent_changes, counts.refused.len()), (2, 0), "{counts:?}");
    });
}
